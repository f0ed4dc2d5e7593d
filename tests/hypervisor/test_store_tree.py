"""The store's tree: operations and what they answer, permissions, quotas, paths, and their costs.

Expectations are written out, from docs/misc/xenstore.txt and from what xenstored does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.store import Store
from hypervisor.store_children import Children
from hypervisor.store_errors import ERRNOS, StoreError
from hypervisor.store_nodes import Content, Edit, Node, find, new_root, walk, walk_up
from hypervisor.store_paths import ABSOLUTE_MAX, RELATIVE_MAX, canonical, is_below, parent, prefixes
from hypervisor.store_permissions import Caller, Permission, parse, render
from hypervisor.store_quota import Quota
from tests.hypervisor.store_script import Script, play

ROOT = Caller(0)
HOME = "/local/domain/1"

# --- what operations answer -----------------------------------------------------------------------

TABLES = {
    "a value is what was written last": [
        ("0 write /a one", "-"),
        ("0 read /a", "one"),
        ("0 write /a two", "-"),
        ("0 read /a", "two"),
        ("0 write /a", "-"),
        ("0 read /a", "''"),
    ],
    "parents are created, empty, and keep what they had": [
        ("0 write /a/b/c x", "-"),
        ("0 read /a/b", "''"),
        ("0 write /a/b y", "-"),
        ("0 write /a/b/d z", "-"),
        ("0 read /a/b", "y"),
        ("0 ls /a/b", "c d"),
        ("0 ls /a/b/c", "-"),
    ],
    "mkdir creates what is not there, and leaves alone what is": [
        ("0 mkdir /a/b", "-"),
        ("0 read /a/b", "''"),
        ("0 write /a/b x", "-"),
        ("0 mkdir /a/b", "-"),
        ("0 read /a/b", "x"),
    ],
    "names are listed sorted, whatever the order of their creation": [
        ("0 write /n/b", "-"),
        ("0 write /n/a-c", "-"),
        ("0 write /n/Z", "-"),
        ("0 write /n/a", "-"),
        ("0 write /n/10", "-"),
        ("0 ls /n", "10 Z a a-c b"),
    ],
    "rm takes all below with it": [
        ("0 write /a/b/c x", "-"),
        ("0 write /a/d y", "-"),
        ("0 rm /a/b", "-"),
        ("0 ls /a", "d"),
        ("0 read /a/b", "ENOENT"),
        ("0 read /a/b/c", "ENOENT"),
        ("0 write /a/b z", "-"),
        ("0 ls /a/b", "-"),
    ],
    "rm of what is not there is fine if its parent is": [
        ("0 rm /nothing", "-"),
        ("0 rm /nothing/at/all", "ENOENT"),
        ("0 mkdir /nothing/at", "-"),
        ("0 rm /nothing/at/all", "-"),
    ],
    "the root is there, can be written, and stays": [
        ("0 read /", "''"),
        ("0 write / x", "-"),
        ("0 read /", "x"),
        ("0 rm /", "EINVAL"),
        ("1 rm /", "EACCES"),
        ("0 ls /", "local"),
        ("0 mkdir /", "-"),
        ("0 chmod / n0 r1", "-"),
        ("1 read /", "x"),
    ],
    "what is not there cannot be read, listed, or given permissions": [
        ("0 read /x", "ENOENT"),
        ("0 ls /x", "ENOENT"),
        ("0 perms /x", "ENOENT"),
        ("0 chmod /x n0", "ENOENT"),
    ],
    "a relative path begins at home": [
        ("1 write x/y hers", "-"),
        ("0 read /local/domain/1/x/y", "hers"),
        ("0 write x/y his", "-"),
        ("0 read /local/domain/0/x/y", "his"),
        ("1 ls x", "y"),
        ("2 read x/y", "ENOENT"),
    ],
    "a domain owns its home, and others see nothing of it": [
        ("1 perms /local/domain/1", "n1"),
        ("2 read /local/domain/1", "EACCES"),
        ("2 ls /local/domain/1", "EACCES"),
        ("2 write /local/domain/1/x", "EACCES"),
        ("0 perms /local/domain", "n0"),
        ("1 ls /local/domain", "EACCES"),
    ],
    "a guest may not tell what is not there from what is not for it": [
        ("0 write /secret/x 1", "-"),
        ("1 read /secret/x", "EACCES"),
        ("1 read /secret/y", "EACCES"),
        ("1 rm /secret/y", "EACCES"),
        ("1 mkdir /secret/y", "EACCES"),
        ("0 chmod /secret r0", "-"),
        ("1 read /secret/x", "EACCES"),
        ("1 read /secret/y", "ENOENT"),
        ("1 read /secret/y/z", "ENOENT"),
        ("1 write /secret/y", "EACCES"),
    ],
    "what is allowed at a node is allowed whatever is above it": [
        ("0 write /deep/in x", "-"),
        ("0 chmod /deep/in n0 b1", "-"),
        ("1 read /deep/in", "x"),
        ("1 write /deep/in y", "-"),
        ("1 write /deep/in/side z", "-"),
        ("1 rm /deep/in", "-"),
        ("0 read /deep/in", "ENOENT"),
        ("1 write /deep/in x", "EACCES"),
    ],
    "letters: who may do what": [
        ("0 write /a x", "-"),
        ("0 chmod /a n0 r1 w2 b3", "-"),
        ("1 read /a", "x"),
        ("1 write /a y", "EACCES"),
        ("2 read /a", "EACCES"),
        ("2 ls /a", "EACCES"),
        ("2 write /a y", "-"),
        ("3 read /a", "y"),
        ("3 write /a z", "-"),
        ("3 perms /a", "n0 r1 w2 b3"),
        ("2 perms /a", "EACCES"),
        ("3 chmod /a n0", "EACCES"),
    ],
    "the first letter is for who is not listed, and the first entry for a domain counts": [
        ("0 write /a x", "-"),
        ("0 chmod /a r0 n1 b1 b2", "-"),
        ("3 read /a", "x"),
        ("3 write /a y", "EACCES"),
        ("1 read /a", "EACCES"),
        ("2 write /a y", "-"),
    ],
    "an entry for DOMID_ANY is for everybody": [
        ("0 write /a x", "-"),
        ("0 chmod /a n0 w1 r32757", "-"),
        ("2 read /a", "x"),
        ("1 read /a", "EACCES"),
    ],
    "an owner may do everything, whatever its letter": [
        ("0 write /a x", "-"),
        ("0 chmod /a n1 n2", "-"),
        ("1 read /a", "x"),
        ("1 write /a y", "-"),
        ("1 chmod /a n1 r2", "-"),
        ("2 read /a", "y"),
    ],
    "only domain 0 gives a node away": [
        ("1 write x", "-"),
        ("1 chmod x n2", "EPERM"),
        ("0 chmod /local/domain/1/x n2", "-"),
        ("1 read x", "EACCES"),
        ("2 read /local/domain/1/x", "''"),
    ],
    "a new node has the permissions of its parent, and a guest owns what it makes": [
        ("0 mkdir /d", "-"),
        ("0 chmod /d b0 r2 n3", "-"),
        ("0 write /d/by0", "-"),
        ("0 perms /d/by0", "b0 r2 n3"),
        ("1 write /d/by1/deep", "-"),
        ("0 perms /d/by1", "b1 r2 n3"),
        ("0 perms /d/by1/deep", "b1 r2 n3"),
        ("0 write /local/domain/1/x", "-"),
        ("0 perms /local/domain/1/x", "n1"),
    ],
    "a write changes no permissions": [
        ("0 write /a x", "-"),
        ("0 chmod /a n0 b1", "-"),
        ("1 write /a y", "-"),
        ("0 perms /a", "n0 b1"),
    ],
    "to remove a node needs a right to the node, not to its parent": [
        ("0 write /a/b", "-"),
        ("0 chmod /a/b n0 w1", "-"),
        ("0 write /a/c", "-"),
        ("1 rm /a/c", "EACCES"),
        ("1 rm /a/b", "-"),
        ("1 rm /a/b", "EACCES"),
        ("0 ls /a", "c"),
    ],
    "a domain with a target may do what its target may": [
        ("1 write x hers", "-"),
        ("2 read /local/domain/1/x", "EACCES"),
        ("0 target 2 1", "-"),
        ("2 read /local/domain/1/x", "hers"),
        ("2 write /local/domain/1/y his", "-"),
        ("0 perms /local/domain/1/y", "n2"),
        ("2 chmod /local/domain/1/x n1 r3", "-"),
        ("2 chmod /local/domain/1/x n2", "EPERM"),
        ("1 read /local/domain/2", "EACCES"),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_in_the_tree(name: str) -> None:
    play(Script(), TABLES[name])


def test_who_is_not_introduced_has_no_say() -> None:
    script = Script()
    assert (
        script.run("4 read /", "4 write x", "4 watch x t", "4 start t", "4 chmod @x n0")
        == ["EACCES"] * 5
    )


def test_an_error_names_an_errno_of_the_wire_and_says_why() -> None:
    with pytest.raises(StoreError, match=r"ENOENT: there is no /x") as caught:
        Store().read(ROOT, "/x")
    assert caught.value.errno in ERRNOS
    assert len(ERRNOS) == 16


# --- quotas ---------------------------------------------------------------------------------------


def test_a_guest_may_own_so_many_nodes_and_domain_0_any_number() -> None:
    script = Script(Quota(nodes=4))  # the home is one
    play(
        script,
        [
            ("1 write a", "-"),
            ("1 write b/c/d", "ENOSPC"),
            ("1 ls .".replace(" .", f" {HOME}"), "a"),
            ("1 write b/c", "-"),
            ("1 mkdir e", "ENOSPC"),
            ("1 write a still", "-"),
            ("0 write /local/domain/1/more", "-"),  # nobody stops domain 0; she owns it
            ("1 rm b/c", "-"),
            ("1 write e", "ENOSPC"),
            ("1 rm b", "-"),
            ("1 write e", "-"),
            ("0 chmod /local/domain/1/e n0", "-"),
            ("1 write f", "-"),
            ("0 write /1/2/3/4/5/6/7", "-"),
        ],
    )


def test_a_quota_of_0_is_none() -> None:
    script = Script(Quota(nodes=0, node_size=0, permissions=0))
    assert script.run(*(f"1 write n{i}" for i in range(50))) == ["-"] * 50
    assert script(f"1 write big {'x' * 4000}") == "-"
    assert script(f"1 chmod big n1 {' '.join(f'r{i}' for i in range(50))}") == "-"


def test_values_and_permissions_have_their_limits_for_guests() -> None:
    script = Script()
    play(
        script,
        [
            (f"1 write x {'x' * 2048}", "-"),
            (f"1 write x {'x' * 2049}", "ENOSPC"),
            (f"1 write /y {'x' * 2049}", "EACCES"),
            (f"0 write /local/domain/1/x {'x' * 4000}", "-"),
            ("1 chmod x n1 r2 r3 r4 r5", "-"),
            ("1 chmod x n1 r2 r3 r4 r5 r6", "ENOSPC"),
            ("1 perms x", "n1 r2 r3 r4 r5"),
            ("0 chmod /local/domain/1/x n1 r2 r3 r4 r5 r6 r7", "-"),
        ],
    )


# --- paths ----------------------------------------------------------------------------------------

LONGEST = "/" + "x" * (ABSOLUTE_MAX - 1)


@pytest.mark.parametrize(
    ("path", "means"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/b-c_d@e/F9", "/a/b-c_d@e/F9"),
        ("a", "/local/domain/7/a"),
        ("a/b", "/local/domain/7/a/b"),
        ("/@x", "/@x"),
        (LONGEST, LONGEST),
        ("x" * RELATIVE_MAX, "/local/domain/7/" + "x" * RELATIVE_MAX),
        ("", None),
        ("//", None),
        ("/a/", None),
        ("a/", None),
        ("/a//b", None),
        ("a//b", None),
        ("/a b", None),
        ("/a.b", None),
        ("/a\n", None),
        ("/a\0", None),
        ("/ä", None),
        ("/aé", None),
        ("@x", None),
        (LONGEST + "x", None),
        ("x" * (RELATIVE_MAX + 1), None),
    ],
)
def test_a_path(path: str, means: str | None) -> None:
    if means is not None:
        assert canonical(path, 7) == means
        return
    with pytest.raises(StoreError) as caught:
        canonical(path, 7)
    assert caught.value.errno == "EINVAL"


@pytest.mark.parametrize("operation", ["read", "ls", "write", "mkdir", "rm"])
def test_every_operation_refuses_a_bad_path(operation: str) -> None:
    assert Script().run(f"0 {operation} //", f"0 {operation} @releaseDomain") == ["EINVAL"] * 2


@given(st.lists(st.sampled_from("ab"), max_size=6).map(lambda way: "/" + "/".join(way)))
def test_prefixes_lead_from_the_root_to_the_path(path: str) -> None:
    tops = prefixes(path)
    assert tops[0] == "/"
    assert tops[-1] == path
    assert [parent(top) for top in tops[1:]] == tops[:-1]
    assert all(is_below(path, top) for top in tops)
    assert not is_below(path, path.rstrip("/") + "/c")
    assert not is_below(path + "x", path) or path == "/"


# --- permissions as text --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["n0", "r1", "w65535", "b32757"])
def test_an_entry_reads_as_it_was_written(text: str) -> None:
    assert render(parse([text])) == [text]


@pytest.mark.parametrize("text", ["", "n", "x1", "n65536", "n-1", "n1 ", "rw1", "0", "n999999"])
def test_that_is_no_permission(text: str) -> None:
    with pytest.raises(StoreError):
        parse([text])


def test_permissions_begin_with_an_owner() -> None:
    with pytest.raises(StoreError):
        parse([])


# --- listings and generations ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("0 read /d/a", True),
        ("0 write /d/a new", True),
        ("0 write /d/a/b new", True),
        ("0 chmod /d/a n1", True),
        ("0 rm /d/none", True),
        ("0 mkdir /d", True),
        ("0 write /d/b", False),
        ("0 rm /d/a", False),
        ("0 write /d x", False),
        ("0 write /d", False),
        ("0 chmod /d n1", False),
    ],
)
def test_the_generation_changes_with_the_node_and_the_names_of_its_children(
    line: str, same: bool
) -> None:
    script = Script()
    script.run("0 write /d/a old")
    before = script.store.listing(ROOT, "/d").generation
    script(line)
    assert (script.store.listing(ROOT, "/d").generation == before) == same


def test_a_node_that_is_made_again_has_another_generation() -> None:
    script = Script()
    script.run("0 write /d/a old")
    before = script.store.listing(ROOT, "/d").generation
    script.run("0 rm /d", "0 write /d/a old")
    assert script.store.listing(ROOT, "/d").generation != before


# --- the persistent parts -------------------------------------------------------------------------

NAMES = st.sampled_from([f"n{i}" for i in range(200)])


@given(st.lists(st.tuples(NAMES, st.none() | st.integers()), max_size=300))
def test_children_are_a_map_and_every_version_of_it_stays(
    steps: list[tuple[str, int | None]],
) -> None:
    model: dict[str, int] = {}
    children: Children[int] = Children()
    versions: list[tuple[Children[int], dict[str, int]]] = []
    for name, value in steps:
        if value is not None:
            model[name] = value
            children = children.put(name, value)
        elif name in model:
            del model[name]
            children = children.drop(name)
        if len(versions) % 3 == 0:
            children.packed()
        versions.append((children, dict(model)))
    for version, expected in versions:
        assert list(version) == sorted(expected.items())
        assert len(version) == len(expected)
        assert version.packed() == "".join(f"{name}\0" for name in sorted(expected)).encode()
        assert all(version.get(name) == expected.get(name) for name in ["n0", "n1", "n199"])


def test_children_whose_hashes_are_alike_are_kept_apart() -> None:
    class Alike(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    children: Children[int] = Children()
    for i in range(100):
        children = children.put(Alike(f"n{i:02}"), i)
    assert [value for _, value in children] == list(range(100))
    for i in range(99):
        children = children.drop(Alike(f"n{i:02}"))
    assert list(children) == [("n99", 99)]


PERMS = (Permission(0, 0),)


def test_an_edit_gives_the_next_version_and_leaves_the_one_before() -> None:
    first = new_root(PERMS, 0)
    edit = Edit(first)
    edit.set("/a", Content(b"a", PERMS), 1)
    edit.set("/a/b", Content(b"b", PERMS), 2)
    edit.set("/c", Content(b"c", PERMS), 3)
    edit.set("/a/b", Content(b"B", PERMS), 4)
    second = edit.finish()
    assert [path for path, _ in walk("/", first)] == ["/"]
    assert [path for path, _ in walk("/", second)] == ["/", "/a", "/a/b", "/c"]
    assert [path for path, _ in walk_up("/", second)] == ["/a/b", "/a", "/c", "/"]
    stamps = {path: (n.revision, n.listing, n.latest) for path, n in walk("/", second)}
    assert stamps == {"/": (0, 3, 4), "/a": (1, 2, 4), "/a/b": (4, 2, 4), "/c": (3, 3, 3)}
    third = Edit(second)
    assert third.set("/c", None, 5) == Content(b"c", PERMS)
    assert third.finish().latest == 5
    assert find(second, "/c") is not None


@pytest.mark.parametrize(("path", "content"), [("/", None), ("/x", None), ("/a", None)])
def test_an_edit_that_would_break_the_tree_is_a_bug(path: str, content: None) -> None:
    edit = Edit(new_root(PERMS, 0))
    edit.set("/a", Content(b"", PERMS), 1)
    edit.set("/a/b", Content(b"", PERMS), 2)
    with pytest.raises(AssertionError):
        edit.set(path, content, 3)
    with pytest.raises(AssertionError):
        edit.set("/no/parent", Content(b"", PERMS), 3)


def test_the_deepest_tree_there_can_be_works() -> None:
    store = Store()
    path = "/x" * (ABSOLUTE_MAX // 2)
    store.write(ROOT, path, b"deep")
    assert store.read(ROOT, path) == b"deep"
    assert len(store.snapshot(ROOT, "/").values) == ABSOLUTE_MAX // 2 + 1
    store.rm(ROOT, "/x")
    assert store.directory(ROOT, "/") == []


# --- what operations cost, counted ----------------------------------------------------------------


def grown(nodes: int) -> Store:
    """A store of so many nodes, with directories of very different sizes."""
    store = Store(log_changes=64)
    made = 1
    while made < nodes:
        wide = made % 2
        path = f"/wide/x{made}" if wide else f"/d/{made % 97}/e/{made}"
        store.write(ROOT, path, b"v")
        made += 1 if wide else 2
    store.write(ROOT, "/wide/at", b"v")
    store.write(ROOT, "/d/1/e/at", b"v")
    return store


@pytest.fixture(scope="module")
def stores() -> tuple[Store, Store]:
    return grown(1_000), grown(100_000)


def fresh(old: Node, new: Node) -> int:
    """How much of a version is not shared with the one before: nodes, and entries of tables."""
    count = 1
    if new.children is not old.children:
        count += len(_tables(new.children._table, old.children._table))
        for name in _tables(new.children._table, old.children._table):
            child, before = new.children.get(name), old.children.get(name)
            if child is not None and child is not before:
                count += fresh(before or old, child)
    return count


def _tables(new: object, old: object) -> list[str]:
    """The names in those tables that are not shared; a slot counts as one."""
    if new is old:
        return []
    if isinstance(new, tuple):
        olds = old if isinstance(old, tuple) else (None,) * len(new)
        inner = [name for a, b in zip(new, olds, strict=True) for name in _tables(a, b)]
        return inner + ["/"] * len(new)
    assert isinstance(new, dict)
    return list(new)


def calls(operation: Callable[[], object]) -> int:
    """How many functions that calls, those of Python and those in C."""
    count = 0

    def counted(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        operation()
    finally:
        sys.setprofile(before)
    return count


def ways(store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
    for at in ("/wide/at", "/d/1/e/at"):
        made = f"{at}/new"
        yield f"read {at}", partial(store.read, ROOT, at)
        yield f"write {at}", partial(store.write, ROOT, at, b"w")
        yield f"create {at}", partial(store.write, ROOT, made, b"w")
        yield f"rm {at}", partial(store.rm, ROOT, made)
        yield f"chmod {at}", partial(store.set_perms, ROOT, at, PERMS)
        yield f"transaction {at}", partial(transaction, store, at)
        yield f"since {at}", partial(store.since, ROOT, at, store.revision - 2)
        yield f"list {at}", partial(store.directory, ROOT, at)
        yield f"watch {at}", partial(store.watch, ROOT, at, b"t")
        yield f"unwatch {at}", partial(store.unwatch, ROOT, at, b"t")
    yield "create wide", partial(store.write, ROOT, "/wide/new", b"w")
    yield "rm wide", partial(store.rm, ROOT, "/wide/new")
    yield "introduce", partial(store.introduce, 1)
    yield "release", partial(store.release, 1, remove_nodes=True)


def transaction(store: Store, path: str) -> None:
    tx = store.transaction_start(ROOT)
    store.read(ROOT, path, tx)
    store.write(ROOT, path, b"tx", tx)
    store.write(ROOT, f"{path}/made", b"tx", tx)
    store.rm(ROOT, f"{path}/made", tx)
    store.write(ROOT, "/elsewhere", b"now")
    store.transaction_end(ROOT, tx, commit=True)


def test_an_operation_calls_as_much_in_a_hundred_times_larger_store(
    stores: tuple[Store, Store],
) -> None:
    small, large = stores
    for (name, in_small), (_, in_large) in zip(ways(small), ways(large), strict=True):
        few, many = calls(in_small), calls(in_large)
        assert many <= few * 1.3 + 10, f"{name}: {few} calls, but {many}"


def test_an_operation_copies_as_much_in_a_hundred_times_larger_store(
    stores: tuple[Store, Store],
) -> None:
    small, large = stores
    for (name, in_small), (_, in_large) in zip(ways(small), ways(large), strict=True):
        counts = []
        for store, operation in ((small, in_small), (large, in_large)):
            before = store._head.root
            operation()
            counts.append(fresh(before, store._head.root))
        assert counts[1] <= counts[0] + 200, f"{name}: copies {counts}"
        assert counts[1] <= 700, f"{name}: copies {counts}"
