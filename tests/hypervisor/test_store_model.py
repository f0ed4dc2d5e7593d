"""The store against a model that knows nothing of how it is made: a dict of path to node.

The model copies the dict where the store shares, and looks at every watch where the store has an
index. A transaction is modelled by what it has asked and been told: if its commit succeeds, asking
the same of the store as it is at that moment must be answered the same (so it might have run just
then, alone); if it fails, something must have happened at, above or below what it has looked at.
Readers of the log keep a mirror each, made of what they were given alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypervisor.store import Effect, Store
from hypervisor.store_errors import StoreError
from hypervisor.store_log import Wake
from hypervisor.store_nodes import walk
from hypervisor.store_permissions import Caller, parse, render
from hypervisor.store_quota import Quota
from hypervisor.store_watches import Event

GUESTS = (1, 2)
LETTERS = {"n": "", "r": "r", "w": "w", "b": "rw"}

Nodes = dict[str, tuple[bytes, list[str]]]  # of path to value and permissions
Touched = dict[str, bool]  # of path to whether those above it are told, too


class Refused(Exception):
    pass


def above(path: str) -> str:
    return path.rsplit("/", 1)[0] or "/"


def within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def may(perms: list[str], domid: int, need: str) -> bool:
    if domid == 0 or perms[0][1:] == str(domid):
        return True
    if need == "o":
        return False
    for entry in perms[1:]:
        if entry[1:] == str(domid):
            return need in LETTERS[entry[0]]
    return need in LETTERS[perms[0][0]]


def full(path: str, domid: int) -> str:
    return path if path.startswith("/") else f"/local/domain/{domid}/{path}"


def look(nodes: Nodes, domid: int, path: str, needs: str) -> bool:
    """Whether it is there; Refused if the domain may not have it, or not know."""
    if path in nodes and all(may(nodes[path][1], domid, need) for need in needs):
        return True
    at = above(path)
    while at not in nodes:
        at = above(at)
    if any(may(nodes[at][1], domid, need) for need in needs) and path not in nodes:
        return False
    raise Refused("EACCES")


def ask(nodes: Nodes, domid: int, op: str, path: str, *args: Any) -> tuple[Any, Touched]:
    """The answer to it and what it tells; ``nodes`` are changed by it."""
    path = full(path, domid)
    if op in ("read", "directory", "get_perms"):
        if not look(nodes, domid, path, "r"):
            raise Refused("ENOENT")
        if op == "read":
            return nodes[path][0], {}
        if op == "get_perms":
            return nodes[path][1], {}
        return sorted(at.rsplit("/", 1)[1] for at in nodes if at != "/" and above(at) == path), {}
    if op in ("write", "mkdir"):
        there = look(nodes, domid, path, "w")
        if there and op == "mkdir":
            return None, {}
        if not there:
            make(nodes, domid, path)
        if op == "write":
            nodes[path] = (args[0], nodes[path][1])
        return None, {path: True}
    if op == "rm":
        there = look(nodes, domid, path, "w")
        if path == "/":
            raise Refused("EINVAL")
        if not there:
            if above(path) not in nodes:
                raise Refused("ENOENT")
            return None, {}
        gone = sorted((at for at in nodes if within(at, path)), key=post_order)
        for at in gone:
            del nodes[at]
        return None, {at: at == path for at in gone}
    assert op == "set_perms"
    if not look(nodes, domid, path, "wo"):
        raise Refused("ENOENT")
    if domid and args[0][0][1:] != nodes[path][1][0][1:]:
        raise Refused("EPERM")
    nodes[path] = (nodes[path][0], args[0])
    return None, {path: True}


def make(nodes: Nodes, domid: int, path: str) -> None:
    if path in nodes:
        return
    make(nodes, domid, above(path))
    first, *others = nodes[above(path)][1]
    nodes[path] = (b"", [f"{first[0]}{domid}" if domid else first, *others])


def post_order(path: str) -> list[str]:
    """A key: what is below a node before the node, siblings by their names."""
    return [*path.split("/"), "\x7f"]


@dataclass
class Watching:
    caller: Caller
    path: str
    said: str
    token: bytes
    depth: int | None


@dataclass
class Open:
    """A transaction: its copy, what was asked and answered, and since when it is."""

    nodes: Nodes
    since: int
    told: list[tuple[str, tuple[Any, ...], Any]] = field(default_factory=list)
    touched: Touched = field(default_factory=dict)


PATHS = st.one_of(
    st.lists(st.sampled_from("ab"), max_size=3).map(lambda way: "/" + "/".join(way)),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=2).map("/".join),
    st.sampled_from(["/local", "/local/domain/1", "/local/domain/2/a"]),
)
CALLERS = st.sampled_from([Caller(0), Caller(0, 1), Caller(1), Caller(2)])
VALUES = st.sampled_from([b"", b"x", b"y"])
ENTRIES = st.lists(
    st.tuples(st.sampled_from("nrwb"), st.sampled_from("012")).map("".join), min_size=1, max_size=3
)
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["read", "directory", "get_perms", "mkdir", "rm"]), PATHS),
    st.tuples(st.just("write"), PATHS, VALUES),
    st.tuples(st.just("set_perms"), PATHS, ENTRIES),
)
READINGS = ("read", "directory", "get_perms")


class AgainstADict(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.store = Store(Quota(nodes=0, watches=0))
        self.nodes: Nodes = {"/": (b"", ["n0"])}
        self.open: dict[tuple[Caller, int], Open] = {}
        self.watches: list[Watching] = []
        self.mirrors: dict[tuple[int, str], dict[str, Any]] = {
            (domid, top): {"at": None, "values": {}}
            for domid in (0, *GUESTS)
            for top in ("/", "/a", "/local/domain/1", "/a/b")
        }
        self.introduced: set[int] = set()
        for domid, top in self.mirrors:
            if domid == 0:
                self.store.follow(Caller(0), top, top.encode())
        for domid in GUESTS:
            self.come(domid)

    # --- what is said to both ---------------------------------------------------------------------

    def real(self, caller: Caller, op: str, args: tuple[Any, ...], tx: int = 0) -> Any:
        path, *rest = args
        if op == "set_perms":
            rest = [parse(rest[0])]
        answer = getattr(self.store, op)(caller, path, *rest, tx)
        return render(answer) if op == "get_perms" else answer

    @rule(caller=CALLERS, operation=OPERATIONS)
    def at_once(self, caller: Caller, operation: tuple[Any, ...]) -> None:
        if not self.may_speak(caller):
            return
        op, *args = operation
        before, revision = dict(self.nodes), self.store.revision
        try:
            expected, touched = ask(self.nodes, caller.domid, op, *args)
        except Refused as refused:
            self.is_refused(str(refused), caller, op, tuple(args))
            assert self.nodes == before
            return
        answer = self.real(caller, op, tuple(args))
        if op in READINGS:
            assert answer == expected
        else:
            self.told(answer, touched, before, revision)

    @rule(caller=CALLERS)
    def start(self, caller: Caller) -> None:
        if self.may_speak(caller) and sum(who == caller for who, _ in self.open) < 2:
            tx = self.store.transaction_start(caller)
            self.open[caller, tx] = Open(dict(self.nodes), self.store.revision)

    @rule(data=st.data(), operation=OPERATIONS)
    def in_a_transaction(self, data: st.DataObject, operation: tuple[Any, ...]) -> None:
        if not self.open:
            return
        caller, tx = data.draw(st.sampled_from(sorted(self.open)))
        transaction = self.open[caller, tx]
        op, *rest = operation
        args = tuple(rest)
        before = dict(transaction.nodes)
        try:
            expected, touched = ask(transaction.nodes, caller.domid, op, *args)
        except Refused as refused:
            self.is_refused(str(refused), caller, op, args, tx)
            assert transaction.nodes == before
            transaction.told.append((op, args, str(refused)))
            return
        answer = self.real(caller, op, args, tx)
        assert answer == (expected if op in READINGS else [])
        transaction.told.append((op, args, expected))
        for path, wide in touched.items():
            transaction.touched[path] = wide or transaction.touched.get(path, False)

    @rule(data=st.data(), commit=st.booleans() | st.just(True))
    def end(self, data: st.DataObject, commit: bool) -> None:
        if not self.open:
            return
        caller, tx = data.draw(st.sampled_from(sorted(self.open)))
        transaction = self.open.pop((caller, tx))
        before, revision = dict(self.nodes), self.store.revision
        try:
            effects = self.store.transaction_end(caller, tx, commit=commit)
        except StoreError as error:
            refused = error.errno
        else:
            refused = ""
        if refused:
            assert (commit, refused) == (True, "EAGAIN")
            changed = self.store.since(Caller(0), "/", transaction.since).changes
            looked = [full(args[0], caller.domid) for _, args, _ in transaction.told]
            assert any(
                within(change.path, path) or within(path, change.path)
                for change in changed
                for path in looked
            )
            return
        if not commit:
            assert effects == []
            return
        for op, args, answer in transaction.told:
            try:
                now, _ = ask(self.nodes, caller.domid, op, *args)
            except Refused as refused:
                now = str(refused)
            assert now == answer, f"{op} {args} would be answered otherwise now"
        self.told(effects, transaction.touched, before, revision)

    @rule(
        caller=CALLERS,
        path=PATHS,
        token=st.sampled_from([b"s", b"t"]),
        depth=st.sampled_from([None, None, 0, 1]),
    )
    def watch(self, caller: Caller, path: str, token: bytes, depth: int | None) -> None:
        if not self.may_speak(caller):
            return
        new = Watching(caller, full(path, caller.domid), path, token, depth)
        if any((w.caller, w.path, w.token) == (caller, new.path, token) for w in self.watches):
            with pytest.raises(StoreError, match="EEXIST"):
                self.store.watch(caller, path, token, depth)
            return
        assert self.store.watch(caller, path, token, depth) == [Event(caller, path, token)]
        self.watches.append(new)

    @rule(data=st.data())
    def unwatch(self, data: st.DataObject) -> None:
        if self.watches:
            gone = self.watches.pop(data.draw(st.integers(0, len(self.watches) - 1)))
            self.store.unwatch(gone.caller, gone.path, gone.token)

    @rule(caller=CALLERS, how=st.sampled_from(["reset_watches", "disconnect"]))
    def begin_afresh(self, caller: Caller, how: str) -> None:
        if self.may_speak(caller) and caller != Caller(0):
            getattr(self.store, how)(caller)
            self.forget(lambda other: other == caller)

    @rule(domid=st.sampled_from(GUESTS))
    def come(self, domid: int) -> None:
        if domid in self.introduced:
            assert self.store.introduce(domid) == []
            self.forget(lambda other: other.domid == domid)
            return
        self.introduced.add(domid)
        home, before, revision = f"/local/domain/{domid}", dict(self.nodes), self.store.revision
        touched: Touched = {}
        if home not in self.nodes:
            if above(home) not in self.nodes:
                make(self.nodes, 0, above(home))
                touched[above(home)] = True
            make(self.nodes, 0, home)
            self.nodes[home] = (b"", [f"n{domid}"])
            touched[home] = True
        self.told(self.store.introduce(domid), touched, before, revision, one_by_one=True)

    @rule(domid=st.sampled_from(GUESTS), remove=st.booleans())
    def go(self, domid: int, remove: bool) -> None:
        if domid not in self.introduced:
            return
        self.introduced.discard(domid)
        self.forget(lambda other: other.domid == domid)
        before, revision, touched = dict(self.nodes), self.store.revision, {}
        for path in sorted(before):
            value, perms = self.nodes.get(path, (b"", ["n0"]))
            if remove and perms[0][1:] == str(domid) and path != "/":
                _, gone = ask(self.nodes, 0, "rm", path)
                touched.update(gone)
            elif any(entry[1:] == str(domid) for entry in perms):
                owner = perms[0][0] + "0" if perms[0][1:] == str(domid) else perms[0]
                others = [entry for entry in perms[1:] if entry[1:] != str(domid)]
                self.nodes[path] = (value, [owner, *others])
                touched[path] = True
        effects = self.store.release(domid, remove_nodes=remove)
        self.told(effects, touched, before, revision, one_by_one=True)

    # --- what must hold ---------------------------------------------------------------------------

    def may_speak(self, caller: Caller) -> bool:
        return caller.domid == 0 or caller.domid in self.introduced

    def forget(self, whose: Any) -> None:
        self.watches = [watch for watch in self.watches if not whose(watch.caller)]
        self.open = {key: value for key, value in self.open.items() if not whose(key[0])}

    def is_refused(
        self, errno: str, caller: Caller, op: str, args: tuple[Any, ...], tx: int = 0
    ) -> None:
        with pytest.raises(StoreError, match=errno):
            self.real(caller, op, args, tx)

    def told(
        self,
        effects: list[Effect],
        touched: Touched,
        before: Nodes,
        revision: int,
        *,
        one_by_one: bool = False,
    ) -> None:
        """The events are those of the changes that are told, in the order of the changes; the
        followers with something to see are woken; the log makes the nodes of the model.
        """
        changes = self.store.since(Caller(0), "/", revision).changes
        assert len({change.path for change in changes}) == len(changes)
        assert {change.path for change in changes} >= {
            path for path in before.keys() | self.nodes.keys()
            if before.get(path) != self.nodes.get(path)
        }  # fmt: skip
        tree = {path: value for path, (value, _) in before.items()}
        for change in changes:
            assert tree.get(change.path) == change.old
            if change.new is None:
                del tree[change.path]
            else:
                tree[change.path] = change.new
            assert all(above(path) in tree for path in tree)
        assert tree == {path: value for path, (value, _) in self.nodes.items()}

        expected = [
            Event(watch.caller, self.shown(watch, change.path), watch.token)
            for change in changes
            if change.path in touched
            for watch in self.watches
            if self.hears(watch, change.path, touched[change.path], before)
        ]
        assert [effect for effect in effects if isinstance(effect, Event)] == expected
        woken = {effect.token.decode() for effect in effects if isinstance(effect, Wake)}
        tops = {top for domid, top in self.mirrors if domid == 0}
        assert woken == {t for t in tops if any(within(c.path, t) for c in changes)}
        if not one_by_one:
            assert len(woken) == sum(isinstance(effect, Wake) for effect in effects)

    def shown(self, watch: Watching, path: str) -> str:
        return (
            path if watch.said == watch.path else path[len(f"/local/domain/{watch.caller[0]}/") :]
        )

    def hears(self, watch: Watching, path: str, wide: bool, before: Nodes) -> bool:
        if not within(path, watch.path) or (path != watch.path and not wide):
            return False
        if watch.depth is not None:
            below = path.strip("/").split("/") if path != "/" else []
            top = watch.path.strip("/").split("/") if watch.path != "/" else []
            if len(below) - len(top) > watch.depth:
                return False
        domid = watch.caller.domid
        known = [nodes[path][1] for nodes in (before, self.nodes) if path in nodes]
        parents = [nodes[above(path)][1] for nodes in (self.nodes, before) if above(path) in nodes]
        return any(may(perms, domid, "r") for perms in [*known, *parents[:1]])

    @invariant()
    def the_tree_is_that_of_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        head = self.store._head
        nodes = {path: node.content for path, node in walk("/", head.root)}
        assert {p: (c.value, render(c.perms)) for p, c in nodes.items()} == self.nodes
        for domid in (0, 1, 2):
            owned = [p for p, (_, perms) in self.nodes.items() if perms[0][1:] == str(domid)]
            assert head.accounts.nodes(domid) == len(owned)
        for domid in GUESTS:
            named = [p for p, (_, perms) in self.nodes.items()
                     if any(entry[1:] == str(domid) for entry in perms)]  # fmt: skip
            assert head.accounts.named(domid) == sorted(named)

    @invariant()
    def whoever_reads_the_log_has_all_it_may_see(self) -> None:
        for (domid, top), mirror in getattr(self, "mirrors", {}).items():
            if domid not in {0, *self.introduced}:
                mirror["at"] = None
                continue
            caller = Caller(domid)
            if mirror["at"] is None and domid == 0:  # from the beginning of it all
                mirror.update(at=0, values={"/": b""} if top == "/" else {})
            elif mirror["at"] is None:
                mirror.update(zip(("at", "values"), self.store.snapshot(caller, top), strict=True))
            revision, changes = self.store.since(caller, top, mirror["at"])
            values = mirror["values"]
            for change in changes:
                assert change.revision > mirror["at"]
                if change.new is None:
                    assert values.pop(change.path) == change.old
                else:
                    assert values.get(change.path) == change.old
                    values[change.path] = change.new
            mirror["at"] = revision
            assert values == self.store.snapshot(caller, top).values
            seen = {p: v for p, (v, perms) in self.nodes.items()
                    if within(p, top) and may(perms, domid, "r")}  # fmt: skip
            assert values == seen


AgainstADict.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestAgainstADict = AgainstADict.TestCase
