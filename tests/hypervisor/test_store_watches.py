"""Watches, and the domains that come and go: who is told what, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hypervisor.store_errors import StoreError
from hypervisor.store_permissions import Caller, Subject
from hypervisor.store_quota import Quota
from hypervisor.store_watches import TOKEN_MAX, Watches
from tests.hypervisor.store_script import Script, play

TABLES = {
    "a watch fires when it is set, even on what is not there, or is not for the domain": [
        ("0 watch /a t", "0 /a t"),
        ("1 watch /secret t", "1 /secret t"),
    ],
    "it fires for what happens at its path and below it": [
        ("0 watch /a t", "0 /a t"),
        ("0 write /a x", "0 /a t"),
        ("0 write /a x", "0 /a t"),
        ("0 write /a/b/c x", "0 /a/b/c t"),
        ("0 mkdir /a/d", "0 /a/d t"),
        ("0 chmod /a/d n1", "0 /a/d t"),
        ("0 rm /a/d", "0 /a/d t"),
        ("0 write /ab x", "-"),
        ("0 write / x", "-"),
        ("0 rm /a", "0 /a t"),
    ],
    "it does not fire for what changes nothing": [
        ("0 write /a x", "-"),
        ("0 watch / t", "0 / t"),
        ("0 mkdir /a", "-"),
        ("0 rm /none", "-"),
        ("0 read /a", "x"),
        ("1 write /a y", "EACCES"),
    ],
    "one on the root is told everything": [
        ("0 watch / t", "0 / t"),
        ("0 write /a/b x", "0 /a/b t"),
        ("0 write / x", "0 / t"),
    ],
    "one that is further down is told its own path when something above it is removed": [
        ("0 write /a/b/c/d x", "-"),
        ("0 watch /a/b/c low", "0 /a/b/c low"),
        ("0 watch /a/b mid", "0 /a/b mid"),
        ("0 watch / top", "0 / top"),
        ("0 watch /a/b/none none", "0 /a/b/none none"),
        ("0 rm /a", "0 /a/b/c low; 0 /a/b mid; 0 /a top"),
    ],
    "events of one change are in the order in which the watches were set": [
        ("0 watch /a 1", "0 /a 1"),
        ("0.1 watch / 2", "0.1 / 2"),
        ("0 watch /a/b 3", "0 /a/b 3"),
        ("0 watch / 4", "0 / 4"),
        ("0 write /a/b x", "0 /a/b 1; 0.1 /a/b 2; 0 /a/b 3; 0 /a/b 4"),
    ],
    "one that was set with a relative path is told relative paths": [
        ("1 watch x/y rel", "1 x/y rel"),
        ("1 watch /local/domain/1/x abs", "1 /local/domain/1/x abs"),
        ("1 write x/y/z", "1 x/y/z rel; 1 /local/domain/1/x/y/z abs"),
        ("0 rm /local/domain/1/x", "1 x/y rel; 1 /local/domain/1/x abs"),
        ("0 watch tool t", "0 tool t"),
        ("0 write /local/domain/0/tool", "0 tool t"),
    ],
    "path and token are its name, however the path was said": [
        ("1 watch x t", "1 x t"),
        ("1 watch x t", "EEXIST"),
        ("1 watch /local/domain/1/x t", "EEXIST"),
        ("1 watch x u", "1 x u"),
        ("1.1 watch x t", "1.1 x t"),
        ("1 unwatch x none", "ENOENT"),
        ("1 unwatch y t", "ENOENT"),
        ("1.2 unwatch x t", "ENOENT"),
        ("1 unwatch /local/domain/1/x t", "-"),
        ("1 unwatch x t", "ENOENT"),
        ("1 write x", "1 x u; 1.1 x t"),
    ],
    "a bad path cannot be watched": [
        ("0 watch /a/ t", "EINVAL"),
        ("0 watch // t", "EINVAL"),
        ("0 unwatch // t", "EINVAL"),
        ("0 watch /a t -1", "EINVAL"),
        ("0 watch @any t", "0 @any t"),
        ("0 unwatch @any t", "-"),
    ],
    "a depth limits how far down it looks": [
        ("0 watch /a 0 0", "0 /a 0"),
        ("0 watch /a 1 1", "0 /a 1"),
        ("0 watch /a 2 2", "0 /a 2"),
        ("0 watch / r1 1", "0 / r1"),
        ("0 watch / r0 0", "0 / r0"),
        ("0 write /a", "0 /a 0; 0 /a 1; 0 /a 2; 0 /a r1"),
        ("0 write /a/b", "0 /a/b 1; 0 /a/b 2"),
        ("0 write /a/b/c", "0 /a/b/c 2"),
        ("0 write /a/b/c/d", "-"),
        ("0 write /", "0 / r1; 0 / r0"),
        ("0 rm /a", "0 /a 0; 0 /a 1; 0 /a 2; 0 /a r1"),
    ],
    "a domain is told what it may read, or whose parent it may read": [
        ("0 write /pub/x 1", "-"),
        ("1 watch / t", "1 / t"),
        ("0 write /pub/x 2", "-"),
        ("0 chmod /pub/x n0 r1", "1 /pub/x t"),
        ("0 write /pub/x 3", "1 /pub/x t"),
        ("2 watch / t", "2 / t"),
        ("0 chmod /pub n0 r2", "2 /pub t"),
        ("0 write /pub/x 4", "1 /pub/x t; 2 /pub/x t"),
        ("0 chmod /pub/x n0", "1 /pub/x t; 2 /pub/x t"),
        ("0 write /pub/x 5", "2 /pub/x t"),
        ("0 rm /pub/x", "2 /pub/x t"),
        ("0 chmod /pub n0", "2 /pub t"),
        ("0 write /pub/x 6", "-"),
    ],
    "it is told of the removal of what it could read, though it sees nothing now": [
        ("0 write /a/b x", "-"),
        ("0 chmod /a/b n0 r1", "-"),
        ("1 watch /a/b t", "1 /a/b t"),
        ("0 rm /a", "1 /a/b t"),
    ],
    "so at a commit": [
        ("0 write /a/b x", "-"),
        ("0 chmod /a/b n0 r1", "-"),
        ("1 watch /a t", "1 /a t"),
        ("0 start t", "1"),
        ("0/t rm /a/b", "-"),
        ("0/t write /a/c", "-"),
        ("0/t commit", "1 /a/b t"),
    ],
    "it is told of the removal of what only its parent let it know of": [
        ("0 write /p/q/r x", "-"),
        ("0 chmod /p/q n0 r1", "-"),
        ("0 chmod /p/q/r n0", "-"),
        ("1 watch /p/q/r t", "1 /p/q/r t"),
        ("0 rm /p", "1 /p/q/r t"),
    ],
    "a parent that cannot be read any more lets it know of nothing": [
        ("0 write /d/x 1", "-"),
        ("0 chmod /d n0 r1", "-"),
        ("1 watch / t", "1 / t"),
        ("0 start t", "1"),
        ("0/t chmod /d n0", "-"),
        ("0/t write /d/x 2", "-"),
        ("0/t commit", "1 /d t"),
    ],
    "a target's eyes": [
        ("2 watch /local/domain/1 t", "2 /local/domain/1 t"),
        ("1 write x", "-"),
        ("0 target 2 1", "-"),
        ("1 write x", "2 /local/domain/1/x t"),
    ],
    "a reset or the end of a connection takes its watches": [
        ("0 watch /a t", "0 /a t"),
        ("0.1 watch /a t", "0.1 /a t"),
        ("0.2 watch /a t", "0.2 /a t"),
        ("0 reset", "-"),
        ("0.1 disconnect", "-"),
        ("0 write /a", "0.2 /a t"),
        ("0 watch /a t", "0 /a t"),
    ],
    # --- domains
    "who may is told of domains that come and go": [
        ("0 watch @introduceDomain in", "0 @introduceDomain in"),
        ("0 watch @releaseDomain out", "0 @releaseDomain out"),
        ("1 watch @introduceDomain in", "1 @introduceDomain in"),
        ("1 watch @releaseDomain out", "1 @releaseDomain out"),
        ("0 introduce 9", "0 @introduceDomain in"),
        ("0 introduce 9", "-"),
        ("0 crash 9", "0 @releaseDomain out; 1 @releaseDomain out"),
        ("0 crash 9", "-"),
        ("0 resume 9", "-"),
        ("0 crash 9", "0 @releaseDomain out; 1 @releaseDomain out"),
        ("0 release 9", "0 @releaseDomain out; 1 @releaseDomain out"),
        ("0 release 9", "ENOENT"),
        ("0 crash 9", "ENOENT"),
        ("0 resume 9", "ENOENT"),
        ("0 release 0", "EINVAL"),
        ("0 crash 0", "EINVAL"),
        ("0 introduce 0", "EINVAL"),
        ("0 introduce 32752", "EINVAL"),
        ("0 target 0 1", "EINVAL"),
        ("0 target 1 9", "ENOENT"),
        ("0 target 9 1", "ENOENT"),
    ],
    "and of which, with a depth, or by name": [
        ("0 watch @releaseDomain any", "0 @releaseDomain any"),
        ("0 watch @releaseDomain all 1", "0 @releaseDomain all"),
        ("0 watch @releaseDomain none 0", "0 @releaseDomain none"),
        ("0 watch @releaseDomain/2 two", "0 @releaseDomain/2 two"),
        ("0 release 1", "0 @releaseDomain any; 0 @releaseDomain/1 all"),
        ("0 release 2", "0 @releaseDomain any; 0 @releaseDomain/2 all; 0 @releaseDomain/2 two"),
    ],
    "special names have permissions, and nothing else": [
        ("0 perms @introduceDomain", "n0"),
        ("0 perms @releaseDomain", "n0 r32757"),
        ("1 perms @releaseDomain", "n0 r32757"),
        ("1 perms @introduceDomain", "EACCES"),
        ("1 chmod @introduceDomain n0 r1", "EACCES"),
        ("0 chmod @any n0", "ENOENT"),
        ("0 perms @any", "ENOENT"),
        ("0 perms @releaseDomain/1", "ENOENT"),
        ("0 start t", "1"),
        ("0/t perms @introduceDomain", "n0"),
        ("0/t chmod @introduceDomain n0 r1", "EINVAL"),
        ("0/none perms @introduceDomain", "ENOENT"),
        ("0 chmod @introduceDomain n0 r1", "-"),
        ("1 watch @introduceDomain t", "1 @introduceDomain t"),
        ("0 introduce 9", "1 @introduceDomain t"),
        ("0 chmod @introduceDomain n1", "-"),
        ("1 chmod @introduceDomain n2", "EPERM"),
        ("1 chmod @introduceDomain n1 r2 r3 r4 r5 r6", "ENOSPC"),
        ("1 chmod @introduceDomain n1 r2", "-"),
        ("2 perms @introduceDomain", "n1 r2"),
        ("0 release 1", "-"),
        ("0 perms @introduceDomain", "n0 r2"),
    ],
    "an introduced domain gets a home, and the watches there tell": [
        ("0 watch /local l", "0 /local l"),
        ("0 watch @introduceDomain in", "0 @introduceDomain in"),
        ("0 introduce 9", "0 /local/domain/9 l; 0 @introduceDomain in"),
        ("0 perms /local/domain/9", "n9"),
        ("0 write /local/domain/8/x hello", "0 /local/domain/8/x l"),
        ("0 introduce 8", "0 @introduceDomain in"),
        ("8 read x", "EACCES"),
        ("0 perms /local/domain/8", "n0"),
    ],
    "to introduce a domain again resets its connections": [
        ("1 watch x t", "1 x t"),
        ("0 introduce 1", "-"),
        ("1 write x", "-"),
    ],
    "a released domain hears nothing and names nothing; its nodes are domain 0's": [
        ("1 write x hers", "-"),
        ("1 chmod x b1 r2", "-"),
        ("0 write /for/her x", "-"),
        ("0 chmod /for/her n0 r1 r2 b1", "-"),
        ("1 watch / t", "1 / t"),
        ("0 watch /for her", "0 /for her"),
        ("0 release 1", "0 /for/her her"),
        ("1 read x", "EACCES"),
        ("0 perms /for/her", "n0 r2"),
        ("0 perms /local/domain/1/x", "b0 r2"),
        ("0 read /local/domain/1/x", "hers"),
        ("0 introduce 1", "-"),
        ("1 read /for/her", "EACCES"),
        ("0 perms /local/domain/1", "n0"),
    ],
    "or they go with all below them": [
        ("1 write x/y hers", "-"),
        ("0 mkdir /srv", "-"),
        ("0 chmod /srv b0", "-"),
        ("1 write /srv/one/deep", "-"),
        ("0 write /srv/one/of0", "-"),
        ("0 chmod /srv/one/of0 n0", "-"),
        ("2 write /srv/two", "-"),
        ("0 watch /srv srv", "0 /srv srv"),
        ("0 watch @releaseDomain out", "0 @releaseDomain out"),
        ("0 release 1 remove", "0 /srv/one srv; 0 @releaseDomain out"),
        ("0 ls /local/domain", "2 3"),
        ("0 ls /srv", "two"),
    ],
    "the root stays, whoever owned it": [
        ("0 chmod / n1 r2", "-"),
        ("0 release 1 remove", "-"),
        ("0 perms /", "n0 r2"),
    ],
    "a target that has gone is a target no more": [
        ("0 target 2 1", "-"),
        ("0 release 1", "-"),
        ("0 introduce 1", "-"),
        ("0 write /a", "-"),
        ("0 chmod /a n1", "-"),
        ("2 read /a", "EACCES"),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_of_watches(name: str) -> None:
    play(Script(), TABLES[name])


def test_a_guest_may_have_so_many_watches_and_domain_0_any_number() -> None:
    play(
        Script(Quota(watches=2)),
        [
            ("1 watch a t", "1 a t"),
            ("1.1 watch a t", "1.1 a t"),
            ("1 watch b t", "ENOSPC"),
            ("1 watch a t", "EEXIST"),
            ("1.1 disconnect", "-"),
            ("1 watch b t", "1 b t"),
            ("1 unwatch b t", "-"),
            ("1 watch c t", "1 c t"),
            ("2 watch a t", "2 a t"),
            ("0 watch a t", "0 a t"),
            ("0 watch b t", "0 b t"),
            ("0 watch c t", "0 c t"),
        ],
    )


def test_an_event_always_fits_into_a_message() -> None:
    watches, caller, subject = Watches(), Caller(0), Subject(0)
    watches.add(caller, subject, "/", b"x" * TOKEN_MAX, None)
    (event,) = watches.fire("/" + "x" * 3071, lambda _: True)
    assert len(event.path) + 1 + len(event.token) + 1 == 4096
    for token, errno in ((b"x" * (TOKEN_MAX + 1), "E2BIG"), (b"a\0b", "EINVAL")):
        with pytest.raises(StoreError) as caught:
            watches.add(caller, subject, "/", token, None)
        assert caught.value.errno == errno


def test_finding_who_is_told_does_not_depend_on_how_many_watch_elsewhere() -> None:
    class Counted(dict[str, object]):
        asked = 0

        def __contains__(self, key: object) -> bool:
            Counted.asked += 1
            return super().__contains__(key)

    watches, subject = Watches(), Subject(0)
    for i in range(1000):
        watches.add(Caller(0, i), subject, f"/device/{i}", b"t", None)
    counted = Counted(watches._by_path)
    watches._by_path = counted  # type: ignore[assignment]
    asked: list[int] = []
    may_know: Callable[[int], bool] = lambda domid: not asked.append(domid)  # type: ignore[func-returns-value] # noqa: E731
    assert len(watches.fire("/device/7/state", may_know)) == 1
    assert Counted.asked == 4
    assert asked == [0]


def test_each_domain_is_asked_for_once() -> None:
    watches = Watches()
    for connection in range(5):
        watches.add(Caller(1, connection), Subject(1), "/a", b"t", None)
    asked: list[int] = []

    def may_know(domid: int) -> bool:
        asked.append(domid)
        return False

    assert watches.fire("/a", may_know) == []
    assert asked == [1]


def test_nothing_is_kept_of_watches_that_are_gone() -> None:
    script = Script()
    script.run("1 watch a t", "1 watch b t", "1.1 watch a t", "2 watch a t", "1 unwatch a t")
    script.run("1 reset", "1.1 disconnect", "0 release 2")
    watches = script.store._watches
    assert len(watches) == 0
    assert (watches._by_path, watches._by_caller, watches._counts) == ({}, {}, {})
