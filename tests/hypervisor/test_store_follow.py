"""The lossless face, live: every change once, in order, whoever reads, dies, is slow or late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from actors import Actor, Message, System
from hypervisor import Compacted, Follower, Seen, StoreChanged
from hypervisor.store_actor import Introduce, Release, StoreActor
from hypervisor.store_calls import PART_BYTES
from hypervisor.store_door import open_here
from tests.hypervisor.store_programs import PATIENCE, World, ask, new_world, refused

PLACEMENTS = ("thread", "process")
LARGE = b"x" * 4_000
ENOUGH = 1_100  # of those are more than the log keeps


@pytest.fixture
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def take_all(follower: Follower) -> list[Seen]:
    found: list[Seen] = []
    while changes := follower.take():
        found += changes
    return found


# --- every change, once, in order -----------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_guest_follows_what_others_write(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    revision = world.store.snapshot("/").revision
    world.store.write("/a", b"1")
    world.store.set_perms("/a", ["r0"])
    world.store.write("/a", b"2")
    number = ask(domain, "follow", "/a", revision)
    world.store.rm("/a")
    assert [ask(domain, "get", number)[1:] for _ in range(3)] == [
        ["/a", None, b"1", 0],  # it may read it now: as if it had been created
        ["/a", b"1", b"2", 0],
        ["/a", b"2", None, 0],
    ]
    assert ask(domain, "get", number, 0) is None
    assert ask(domain, "take", number) == []
    ask(domain, "write", "a", b"its own")
    assert ask(domain, "get", number, 0) is None  # it is not below /a
    ask(domain, "close", number)
    world.store.write("/a", b"unheard")


def test_without_a_revision_it_begins_now(world: World) -> None:
    world.store.write("/a", b"before")
    with world.store.follow("/a") as follower:
        assert follower.get(0) is None
        world.store.write("/a", b"1")
        change = follower.get(PATIENCE)
        assert change is not None
        assert (change.path, change.old, change.new, change.domid) == ("/a", b"before", b"1", 0)
        assert follower.revision == change.revision


def test_a_transaction_is_told_in_the_order_of_its_changes(world: World) -> None:
    with world.store.follow("/") as follower:
        with world.store.transaction() as transaction:
            transaction.write("/b", b"1")
            transaction.write("/a", b"2")
        changes = take_all(follower)
        assert [(change.path, change.new) for change in changes] == [("/b", b"1"), ("/a", b"2")]


def test_who_stops_in_the_middle_goes_on_there(world: World) -> None:
    revision = world.store.snapshot("/").revision
    for number in range(10):
        world.store.write("/a", b"%d" % number)
    found = []
    for _ in range(10):
        with world.store.follow("/a", since=revision) as follower:
            change = follower.get(PATIENCE)
            assert change is not None
            found.append(change.new)
            revision = follower.revision
    assert found == [b"%d" % number for number in range(10)]
    with world.store.follow("/a", since=revision) as follower:
        assert follower.take() == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_who_is_slow_misses_nothing(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    number = ask(domain, "follow", "/a", world.store.snapshot("/").revision)
    world.store.write("/a", b"")
    world.store.set_perms("/a", ["r0"])
    count = 3 * PART_BYTES // 300
    for i in range(count):  # several parts of an answer
        world.store.write("/a", b"%d" % i * 100)
    found = [ask(domain, "get", number)[3][: len(str(i))] for i in range(-1, count)]
    assert found == [b""] + [b"%d" % i for i in range(count)]
    assert ask(domain, "get", number, 0) is None


def test_a_process_that_is_killed_goes_on_from_a_revision_that_somebody_has_kept(
    world: World,
) -> None:
    count = 300
    writer = world.domain("writer", "process")
    watcher = world.domain("watcher", "process", restart="permanent")
    owner = ask(writer, "domid")
    world.store.write("/shared/state", b"")
    world.store.set_perms("/shared/state", [f"r{owner}"])
    world.store.write("/progress", b"%d" % world.store.snapshot("/").revision)
    world.store.set_perms("/progress", ["b0"])

    def write() -> None:
        for i in range(count):
            ask(writer, "write", "/shared/state", b"%d" % i)

    writing = threading.Thread(target=write)
    writing.start()
    found: list[bytes] = []
    incarnations = set()
    for goal in (count // 4, count + 1):
        kept = int(ask(watcher, "read", "/progress"))
        number = ask(watcher, "follow", "/shared/state", kept)
        while len(found) < goal:
            found.append(ask(watcher, "get", number)[3])
            ask(watcher, "write", "/progress", b"%d" % ask(watcher, "revision", number))
        incarnations.add(ask(watcher, "domid"))
        if goal <= count:
            with world.store.watch("@releaseDomain") as released:
                assert released.get(PATIENCE) is not None  # it says so once at the beginning
                world.machine.kill("watcher")
                assert released.get(PATIENCE) is not None
            ask(writer, "write", "/shared/state", b"nobody is there")
    writing.join()
    found.remove(b"nobody is there")
    assert found == [b"%d" % i for i in range(count)]
    assert len(incarnations) == 2


# --- too late -------------------------------------------------------------------------------------


def test_who_comes_too_late_gets_the_present_nodes_and_goes_on_from_there(world: World) -> None:
    store = world.store
    store.write("/a/b", b"old")
    with store.follow("/a", since=store.snapshot("/a").revision) as follower:
        store.write("/a/c", b"missed")
        for _ in range(ENOUGH):
            store.write("/a/b", LARGE)
        with pytest.raises(Compacted) as caught:
            follower.get(PATIENCE)
        assert caught.value.snapshot == {"/a": b"", "/a/b": LARGE, "/a/c": b"missed"}
        assert caught.value.path == "/a"
        assert follower.revision == caught.value.revision
        assert follower.get(0) is None
        store.write("/a/b", b"new")
        change = follower.get(PATIENCE)
        assert change is not None
        assert (change.old, change.new) == (LARGE, b"new")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_guest_is_told_so_too(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    number = ask(domain, "follow", "/", world.store.snapshot("/").revision)
    for _ in range(ENOUGH):
        world.store.write("/local/domain/1/large", LARGE)
    assert refused(domain, "get", number) == "Compacted"
    assert ask(domain, "get", number, 0) is None
    revision = ask(domain, "revision", number)
    assert revision == world.store.snapshot("/").revision


def test_a_reader_that_is_compacted_between_two_parts_gets_what_it_had_first(world: World) -> None:
    store = world.store
    with store.follow("/a") as follower:
        for i in range(2 * PART_BYTES // len(LARGE)):
            store.write("/a", b"%d" % i + LARGE[:-2])
        first = follower.take()
        assert first[0].new == b"0" + LARGE[:-2]
        assert len(first) < 2 * PART_BYTES // len(LARGE)
        for _ in range(ENOUGH):
            store.write("/b", LARGE)
        store.write("/a", b"last")
        with pytest.raises(Compacted) as caught:
            follower.take()
        assert caught.value.snapshot == {"/a": b"last"}


def test_a_snapshot_of_any_size_is_of_one_moment(world: World) -> None:
    store = world.store
    with store.transaction() as transaction:
        for number in range(1_000):
            transaction.write(f"/a/{number}", b"0" * 200)
    ended = threading.Event()

    def change() -> None:
        for generation in range(1, 30):
            with store.transaction() as transaction:
                for number in (0, 500, 999):
                    transaction.write(f"/a/{number}", b"%d" % (generation % 10) * 200)
        ended.set()

    changing = threading.Thread(target=change)
    changing.start()
    rounds = 0
    while rounds < 3 or not ended.is_set():
        nodes = store.snapshot("/a").values
        assert len(nodes) == 1_001
        assert len({nodes[f"/a/{number}"] for number in (0, 500, 999)}) == 1
        rounds += 1
    changing.join()


# --- who may see what -----------------------------------------------------------------------------


def test_a_guest_sees_only_what_it_may_read(world: World) -> None:
    domain = world.domain("d", "process")
    revision = world.store.snapshot("/").revision
    number = ask(domain, "follow", "/a", revision)
    world.store.write("/a/secret", b"1")
    world.store.write("/a/open", b"2")
    world.store.set_perms("/a/open", ["r0"])
    world.store.write("/a/secret", b"3")
    world.store.write("/a/open", b"4")
    assert [ask(domain, "get", number)[1:4] for _ in range(2)] == [
        ["/a/open", None, b"2"],
        ["/a/open", b"2", b"4"],
    ]
    assert ask(domain, "get", number, 0) is None
    assert ask(domain, "snapshot", "/a")[1] == {"/a/open": b"4"}


def test_a_new_domain_sees_what_was_before_it_but_not_what_another_of_its_domid_could() -> None:
    with System() as system:
        store = system.start(StoreActor)
        root = open_here(store, 0, system.start)
        root.write("/shared", b"1")
        root.set_perms("/shared", ["r0"])
        store.ask(Introduce(5, {}))
        first = open_here(store, 5, system.start)
        with first.follow("/shared", since=0) as follower:
            assert [change.new for change in take_all(follower)] == [b"1"]
        root.write("/for-5", b"secret")
        root.set_perms("/for-5", ["n0", "r5"])
        assert first.read("/for-5") == b"secret"
        revision = root.snapshot("/").revision
        store.ask(Release(5))
        store.ask(Introduce(5, {}))
        second = open_here(store, 5, system.start)
        with second.follow("/", since=revision) as again, pytest.raises(Compacted) as caught:
            again.get(PATIENCE)
        assert "/for-5" not in caught.value.snapshot
        assert caught.value.snapshot["/shared"] == b"1"


# --- who is told ----------------------------------------------------------------------------------


class Ear(Actor):
    """Hands on what it is told."""

    def __init__(self, told: SimpleQueue[Message]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Message) -> None:
        self._told.put(message)


def test_an_actor_is_told_once_until_it_has_looked(world: World) -> None:
    told: SimpleQueue[Message] = SimpleQueue()
    ear = world.machine.system.start(Ear, told)
    with world.store.follow("/a", to=ear) as follower:
        assert told.get(timeout=PATIENCE) == StoreChanged(follower.number)
        assert follower.take() == []
        for number in range(10):
            world.store.write("/a", b"%d" % number)
        assert told.get(timeout=PATIENCE) == StoreChanged(follower.number)
        assert len(take_all(follower)) == 10
        assert told.empty()
        world.store.write("/a", b"again")
        assert told.get(timeout=PATIENCE) == StoreChanged(follower.number)
