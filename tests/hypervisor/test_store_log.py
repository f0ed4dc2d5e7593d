"""The lossless face: every change once, in order, also for who may not see all, or comes late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.store import Store
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Log
from hypervisor.store_nodes import Content
from hypervisor.store_paths import is_below
from hypervisor.store_permissions import Caller, Permission
from hypervisor.store_quota import Quota
from hypervisor.store_tree import Change, Tells
from tests.hypervisor.store_script import Script, play

ROOT = Caller(0)
PERMS = (Permission(0, 0),)

# The homes of Script take revisions 1 to 5.
TABLES = {
    "every node that changes is a change, parents first when they are made": [
        ("0 write /a/b x", "-"),
        ("0 since / 5", "/a: absent -> '', /a/b: absent -> x"),
        ("0 since /a 5", "/a: absent -> '', /a/b: absent -> x"),
        ("0 since /a/b 5", "/a/b: absent -> x"),
        ("0 since /a 6", "/a/b: absent -> x"),
        ("0 since /a 7", "-"),
        ("0 since /b 5", "-"),
        ("0 since /local 3", "/local/domain/2: absent -> '', /local/domain/3: absent -> ''"),
    ],
    "and last when they are removed": [
        ("0 write /a/b/c x", "-"),
        ("0 write /a/d y", "-"),
        ("0 rm /a", "-"),
        (
            "0 since / 9",
            "/a/b/c: x -> absent, /a/b: '' -> absent, /a/d: y -> absent, /a: '' -> absent",
        ),
        ("0 since /a/b 9", "/a/b/c: x -> absent, /a/b: '' -> absent"),
    ],
    "it is replaced between two looks, and both are seen": [
        ("0 write /dev/state 4", "-"),
        ("0 write /dev/state 6", "-"),
        ("0 rm /dev", "-"),
        ("0 write /dev/state 4", "-"),
        (
            "0 since /dev/state 7",
            "/dev/state: 4 -> 6, /dev/state: 6 -> absent, /dev/state: absent -> 4",
        ),
    ],
    "permissions are a change, too": [
        ("0 write /a x", "-"),
        ("0 chmod /a n0 r1", "-"),
        ("0 since /a 6", "/a: x -> x"),
    ],
    "what a reader may not read is not there for it": [
        ("0 write /a x", "-"),
        ("0 write /a/b y", "-"),
        ("0 chmod /a/b n0 r1", "-"),
        ("0 write /a/b z", "-"),
        ("0 chmod /a/b n0", "-"),
        ("0 write /a/b secret", "-"),
        ("0 chmod /a/b n0 r1", "-"),
        (
            "1 since /a 5",
            "/a/b: absent -> y, /a/b: y -> z, /a/b: z -> absent, /a/b: absent -> secret",
        ),
        ("2 since / 5", "-"),
        ("1 since b 5", "-"),
    ],
    "nothing is told of what was not committed": [
        ("0 start t", "1"),
        ("0/t write /a x", "-"),
        ("0 since / 5", "-"),
        ("0/t abort", "-"),
        ("0 since / 5", "-"),
    ],
    "who follows is woken, once for each operation, and only for what it may see": [
        ("0 follow /a f", "-"),
        ("1 follow /a f", "-"),
        ("1.1 follow x f", "-"),
        ("0 follow /a/b/c deep", "-"),
        ("0 write /a/b x", "wake 0 f"),
        ("0 write /ab x", "-"),
        ("0 chmod /a/b n0 r1", "wake 0 f; wake 1 f"),
        ("0 start t", "1"),
        ("0/t write /a/b y", "-"),
        ("0/t write /a/c z", "-"),
        ("0/t commit", "wake 0 f; wake 1 f"),
        ("1 write x/y", "wake 1.1 f"),
        ("0 write /a/b/c/d", "wake 0 f; wake 1 f; wake 0 deep"),
        ("0 watch /a w", "0 /a w"),
        ("0 rm /a/b", "0 /a/b w; wake 0 f; wake 1 f; wake 0 deep"),
    ],
    "a follower has a name, and an end": [
        ("1 follow /a f", "-"),
        ("1 follow /b f", "EEXIST"),
        ("1 unfollow g", "ENOENT"),
        ("1 unfollow f", "-"),
        ("1 unfollow f", "ENOENT"),
        ("1 follow x f", "-"),
        ("1.1 follow x f", "-"),
        ("1.2 follow x f", "-"),
        ("1 reset", "-"),
        ("1.1 disconnect", "-"),
        ("1 write x", "wake 1.2 f"),
        ("0 release 1", "-"),
        ("0 introduce 1", "-"),
        ("0 write /local/domain/1/x", "-"),
        ("1 follow // f", "EINVAL"),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_of_the_log(name: str) -> None:
    play(Script(), TABLES[name])


def test_a_guest_may_follow_as_much_as_it_may_watch() -> None:
    play(
        Script(Quota(watches=1)),
        [("1 follow a f", "-"), ("1 follow a g", "ENOSPC"), ("0 follow a f", "-")],
    )


def test_a_change_says_who_made_it_and_when() -> None:
    script = Script()
    script.run("1 write x 1", "1 start t", "1/t write x 2", "1/t commit", "0 release 1")
    changes = script.store.since(ROOT, "/local/domain/1/x", 5).changes
    assert [(c.revision, c.domid, c.old, c.new) for c in changes] == [
        (6, 1, None, b"1"),
        (7, 1, b"1", b"2"),
        (9, 0, b"2", b"2"),  # it belongs to domain 0 now
    ]


def test_a_reader_goes_on_from_where_it_has_got_to() -> None:
    script = Script()
    script.run("0 write /a 1", "0 write /b 1")
    first = script.store.since(ROOT, "/a", 5)
    assert (first.revision, len(first.changes)) == (7, 1)
    script.run("0 write /a 2")
    second = script.store.since(ROOT, "/a", first.revision)
    assert [(c.old, c.new) for c in second.changes] == [(b"1", b"2")]


# --- too late -------------------------------------------------------------------------------------


def test_who_comes_too_late_gets_what_there_is_now() -> None:
    script = Script(log_changes=3)
    play(
        script,
        [
            ("0 write /a/b 1", "-"),
            ("0 write /a/b 2", "-"),
            ("0 write /a/b 3", "-"),
            ("0 since /a 6", "/a/b: absent -> 1, /a/b: 1 -> 2, /a/b: 2 -> 3"),
            ("0 since /a 5", "compacted at 9: /a=, /a/b=3"),
            ("1 since /a 5", "compacted at 9: "),
            ("0 since /gone 0", "compacted at 9: "),
            ("0 since /local/domain/1 3", "-"),  # nothing has happened there since
            ("0 since /local/domain/1/none 3", "-"),
            ("0 since /local/domain/1 2", "compacted at 9: /local/domain/1="),
            ("0 since /none 9", "-"),
            (
                "0 since / 10",
                (
                    "compacted at 9: /=, /a=, /a/b=3, /local=, /local/domain=, "
                    "/local/domain/1=, /local/domain/2=, /local/domain/3="
                ),
            ),
        ],
    )
    assert script.store.snapshot(ROOT, "/a") == (9, {"/a": b"", "/a/b": b"3"})


def test_a_domain_does_not_see_what_another_of_its_domid_could() -> None:
    play(
        Script(),
        [
            ("0 write /a secret", "-"),
            ("0 chmod /a n0 r1", "-"),
            ("1 since /a 5", "/a: absent -> secret"),
            ("0 release 1", "-"),  # which is 8 and 9
            ("0 introduce 1", "-"),
            ("1 since /a 5", "compacted at 9: "),
            ("1 since /a 8", "compacted at 9: "),
            ("1 since /a 9", "-"),
            ("0 since /a 5", "/a: absent -> secret, /a: secret -> secret, /a: secret -> secret"),
        ],
    )


def test_a_domain_of_a_new_domid_sees_what_was_before_it() -> None:
    play(
        Script(),
        [
            ("0 write /a open", "-"),
            ("0 chmod /a r0", "-"),
            ("0 write /b secret", "-"),
            ("0 introduce 7", "-"),
            ("7 since /a 5", "/a: absent -> open"),
            ("7 since /b 5", "-"),
        ],
    )


def test_a_domain_does_not_see_through_its_target_what_another_of_that_domid_could() -> None:
    play(
        Script(),
        [
            ("0 write /a secret", "-"),
            ("0 chmod /a n0 r1", "-"),
            ("0 release 1", "-"),  # which is 8 and 9
            ("0 introduce 1", "-"),
            ("0 target 2 1", "-"),
            ("2 since /a 5", "compacted at 9: "),
            ("2 since /a 9", "-"),
        ],
    )


@given(
    st.lists(st.tuples(st.sampled_from(["/a", "/a/b", "/c"]), st.integers(0, 300))),
    st.integers(1, 500),
)
def test_what_comes_in_parts_is_the_same(writes: list[tuple[str, int]], most: int) -> None:
    store = Store()
    for path, size in writes:
        store.write(ROOT, path, b"x" * size)
    whole = store.since(ROOT, "/a", 0).changes
    found, reached = [], 0
    while reached < store.revision:
        reached, changes = store.since(ROOT, "/a", reached, most)
        assert sum(len(c.new or b"") for c in changes) <= most or len(changes) == 1
        found += changes
    assert found == whole


def test_a_token_that_is_too_long_is_refused() -> None:
    script = Script()
    with pytest.raises(StoreError, match="E2BIG"):
        script.store.follow(ROOT, "/a", b"t" * 1023)
    script.store.follow(ROOT, "/a", b"t" * 1022)


def test_compacted_can_be_read() -> None:
    with pytest.raises(Compacted, match="changes below /a are no longer all there; now is 0"):
        Store().since(ROOT, "/a", 1)


def test_a_store_that_begins_where_another_ended_knows_a_stranger() -> None:
    store = Store(revision=1000)
    store.write(ROOT, "/a", b"x")
    assert store.revision == 1001
    assert len(store.since(ROOT, "/", 1000).changes) == 1
    for revision in (0, 999, 1002):
        with pytest.raises(Compacted) as caught:
            store.since(ROOT, "/", revision)
        assert (caught.value.path, caught.value.revision) == ("/", 1001)
        assert caught.value.snapshot == {"/": b"", "/a": b"x"}


def test_values_that_are_large_count() -> None:
    store = Store(log_bytes=10_000)
    for i in range(10):
        store.write(ROOT, "/a", b"%d" % i * 2000)
    assert len(store._log) == 2
    store.write(ROOT, "/a", b"x" * 9_000)
    assert len(store._log) == 0
    with pytest.raises(Compacted):
        store.since(ROOT, "/a", store.revision - 1)
    store.rm(ROOT, "/a")
    store.write(ROOT, "/b", b"small")
    assert [c.new for c in store.since(ROOT, "/", store.revision - 1).changes] == [b"small"]


PATHS = st.lists(st.sampled_from("ab"), max_size=20).map(lambda way: "/" + "/".join(way))


@given(st.lists(PATHS, max_size=40), st.integers(1, 12), st.integers(1, 2_000), st.lists(PATHS))
def test_a_log_gives_what_a_list_would(
    paths: list[str], most: int, most_bytes: int, asked: list[str]
) -> None:
    log = Log(0, most, most_bytes)
    kept: list[Change] = []
    content = Content(b"x" * 20, PERMS)
    for revision, path in enumerate(paths, 1):
        change = Change(revision, path, None, content, 0, Tells.SUBTREE)
        log.append(change)
        kept = [*kept, change][-most:]
        while sum(len(c.path) + 20 for c in kept) > most_bytes:
            kept.pop(0)
        assert len(log) == len(kept)
    last = len(paths)
    for revision in range(last + 2):
        assert log.covers(revision) == (last - len(kept) <= revision <= last)
        if log.covers(revision):
            for path in {*asked, *paths, "/"}:
                expected = [c for c in kept if c.revision > revision and is_below(c.path, path)]
                assert log.since(path, revision) == expected
    assert len(log._latest) <= sum(len(c.path) for c in kept) + 1


def test_looking_costs_what_is_found_and_not_what_is_logged() -> None:
    store = Store()
    for i in range(5_000):
        store.write(ROOT, f"/device/{i % 100}/state", b"%d" % i)
    visited: list[int] = []
    records = store._log._records

    class Spied:
        def __len__(self) -> int:
            return len(records)

        def __getitem__(self, at: int) -> object:
            visited.append(at)
            return records[at]

    store._log._records = Spied()  # type: ignore[assignment]
    assert len(store.since(ROOT, "/device/7", 4_000).changes) == len(visited) <= 15
    assert visited


def test_deep_paths_do_not_make_the_log_costly() -> None:
    store = Store()
    store.follow(ROOT, "/x" * 100, b"f")
    store.write(ROOT, "/x" * 1000, b"deep")
    assert len(store._log._latest) == 16
    assert len(store.since(ROOT, "/x" * 999, 0).changes) == 2
    assert store.write(ROOT, "/x" * 1000, b"deeper") != []
    assert store.write(ROOT, "/x" * 50, b"not so deep") == []
