"""The store as guests have it: by hypercall, from threads and processes, on the classic face."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, Fd, Message, System
from hypervisor import DomainDead, Machine, StoreError, StoreOperations, WatchClosed
from hypervisor.frames import receive_frame
from hypervisor.hypercalls import Refused
from hypervisor.store_actor import Introduce, Put, Release, StoreActor
from hypervisor.store_calls import (
    Changes,
    CloseStore,
    Follow,
    MoreNodes,
    Nodes,
    OpenStore,
    Since,
    StoreCall,
    StoreEvent,
    StoreEvents,
    StoreRefused,
    StoreRequest,
    TakeSnapshot,
    Unfollow,
)
from hypervisor.store_door import Attach, ProcessDoor, Taken
from hypervisor.xs_wire import HEADER_SIZE, PAYLOAD_MAX, Op, Packet, pack, parse
from tests.actors.parts import Recorder
from tests.hypervisor.store_programs import PATIENCE, Watching, World, ask, new_world, refused
from transport import ChannelClosed, OutcomeUnknown, RemoteError

PLACEMENTS = ("thread", "process")


@pytest.fixture
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_guest_has_all_operations_and_paths_relative_to_its_home(
    world: World, placement: str
) -> None:
    domain = world.domain("d", placement)
    domid = ask(domain, "domid")
    home = f"/local/domain/{domid}"
    assert ask(domain, "get_domain_path", domid) == home
    ask(domain, "write", "data/a", b"1\0binary\xff")
    ask(domain, "mkdir", "data/b")
    assert ask(domain, "read", f"{home}/data/a") == b"1\0binary\xff"
    assert ask(domain, "directory", "data") == ["a", "b"]
    assert ask(domain, "directory", "data/b") == []
    assert ask(domain, "exists", "data/b")
    ask(domain, "rm", "data/b")
    assert not ask(domain, "exists", "data/b")
    ask(domain, "set_perms", "data/a", [f"n{domid}", "r0"])
    assert ask(domain, "get_perms", "data/a") == [f"n{domid}", "r0"]
    assert world.store.read(f"{home}/data/a") == b"1\0binary\xff"
    assert world.store.read(f"{home}/name") == b"d"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_a_guest_may_do_depends_on_its_domid_and_not_on_what_it_says(
    world: World, placement: str
) -> None:
    domain = world.domain("d", placement)
    world.store.write("/secret", b"x")
    assert refused(domain, "read", "/secret") == "EACCES"
    assert refused(domain, "write", "/mine", b"x") == "EACCES"
    assert refused(domain, "set_perms", "/secret", ["b1"]) == "EACCES"
    assert refused(domain, "is_domain_introduced", 0) == "EACCES"
    assert refused(domain, "read", "nothing") == "ENOENT"
    assert refused(domain, "read", "a//b") == "EINVAL"
    assert refused(domain, "write", "a\0b", b"x") == "EINVAL"
    assert refused(domain, "write", "\N{SNOWMAN}", b"x") == "EINVAL"
    assert refused(domain, "write x", "a", 2049) == "ENOSPC"
    assert refused(domain, "write x", "a", PAYLOAD_MAX) == "E2BIG"
    assert refused(domain, "exists", "/secret") == "EACCES"
    assert world.store.is_domain_introduced(ask(domain, "domid"))
    assert not world.store.is_domain_introduced(77)


def test_a_guest_over_its_quota_is_refused_alone(world: World) -> None:
    greedy, modest = world.domain("greedy", "process"), world.domain("modest", "thread")
    for number in range(128):
        ask(greedy, "watch", f"w{number}")
    assert refused(greedy, "watch", "w") == "ENOSPC"
    ask(modest, "watch", "w")
    for _ in range(10):
        ask(greedy, "start")
    assert refused(greedy, "start") == "ENOSPC"
    ask(modest, "start")


def test_a_value_is_bytes(world: World) -> None:
    text: Any = "text"
    with pytest.raises(TypeError, match="the value of a node is bytes, not str"):
        world.store.write("/a", text)
    assert not world.store.exists("/a")


def test_a_directory_of_any_size_is_one_list(world: World) -> None:
    names = sorted(f"node-{number:04}" for number in range(1_000))
    for name in names:
        world.store.write(f"/large/{name}", b"")
    world.store.set_perms("/large", ["r0"])
    assert world.store.directory("/large") == names
    with world.store.transaction() as transaction:
        transaction.rm("/large/node-0000")
        assert transaction.directory("/large") == names[1:]
    for placement in PLACEMENTS:
        listed = ask(world.domain(placement, placement), "long directory", "/large")
        assert listed == [999, names[1], names[-1], sha256("".join(names[1:]).encode()).digest()]
    for count in range(999, 390, -1):  # also where the parts end just so
        world.store.rm(f"/large/node-{count:04}")
        if count < 415:
            assert world.store.directory("/large") == names[1:count]


# --- transactions ---------------------------------------------------------------------------------


def test_a_transaction_that_conflicts_is_eagain_and_has_done_nothing(world: World) -> None:
    store = world.store
    store.write("/count", b"1")
    transaction = store.transaction()
    seen = int(transaction.read("/count"))
    transaction.write("/count", b"%d" % (seen + 1))
    transaction.write("/other", b"x")
    store.write("/count", b"7")
    with pytest.raises(StoreError, match="EAGAIN") as caught, transaction:
        assert transaction.read("/count") == b"2"
    assert caught.value.errno == "EAGAIN"
    assert store.read("/count") == b"7"
    assert not store.exists("/other")


def test_a_transaction_whose_block_raises_is_aborted(world: World) -> None:
    transaction = world.store.transaction()
    transaction.write("/a", b"x")
    with pytest.raises(StoreError, match="ENOENT"), transaction:
        transaction.read("/b")
    assert not world.store.exists("/a")
    with pytest.raises(StoreError, match="ENOENT"):
        transaction.commit()


def test_atomically_goes_round_until_nobody_was_quicker(world: World) -> None:
    store = world.store
    store.write("/count", b"0")

    def add() -> None:
        for _ in range(50):
            store.atomically(increment, attempts=1_000)

    def increment(transaction: StoreOperations) -> None:
        transaction.write("/count", b"%d" % (int(transaction.read("/count")) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("/count") == b"200"


def test_atomically_gives_up_after_so_many_attempts(world: World) -> None:
    store = world.store
    tries: list[StoreOperations] = []

    def hopeless(transaction: StoreOperations) -> None:
        transaction.exists("/a")
        store.write("/a", b"%d" % len(tries))
        tries.append(transaction)

    with pytest.raises(StoreError, match="EAGAIN"):
        store.atomically(hopeless, attempts=3)
    assert len(tries) == 3


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_transactions_of_a_domain_end_with_it(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    ask(domain, "write", "a", b"1")
    number = ask(domain, "start")
    ask(domain, "in", number, "write", "a", b"2")
    assert ask(domain, "in", number, "read", "a") == b"2"
    assert ask(domain, "read", "a") == b"1"
    other = ask(domain, "start")
    ask(domain, "in", number, "commit")
    assert ask(domain, "read", "a") == b"2"
    assert ask(domain, "in", other, "read", "a") == b"1"


# --- watches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_watch_says_where_to_look_until_it_is_closed(world: World, placement: str) -> None:
    domain, domid = (d := world.domain("d", placement)), ask(d, "domid")
    home = f"/local/domain/{domid}"
    relative, absolute = ask(domain, "watch", "data"), ask(domain, "watch", f"{home}/data")
    shallow = ask(domain, "watch", "data", 0)
    for number, path in ((relative, "data"), (absolute, f"{home}/data"), (shallow, "data")):
        assert ask(domain, "get", number) == path  # it says so once at the beginning
    world.store.write(f"{home}/data/x", b"1")
    assert ask(domain, "get", relative) == "data/x"
    assert ask(domain, "get", absolute) == f"{home}/data/x"
    world.store.rm(f"{home}/data")
    assert ask(domain, "get", relative) == "data"
    assert ask(domain, "get", shallow) == "data"
    ask(domain, "close", relative)
    world.store.write(f"{home}/data", b"2")
    assert ask(domain, "get", absolute) == f"{home}/data"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_guest_hears_of_the_end_of_others(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    other = world.domain("other", "thread")
    watch = ask(domain, "watch", "@releaseDomain", 1)
    ask(domain, "get", watch)
    domid = ask(other, "domid")
    world.machine.shutdown("other")
    assert ask(domain, "get", watch) == f"@releaseDomain/{domid}"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_events_come_while_a_program_starts_and_calls_are_answered_while_it_stops(
    world: World, placement: str
) -> None:
    domain = world.domain("d", placement, "data", "/")
    assert ask(domain, "first") == ["data", "/"]
    domid = ask(domain, "domid")
    world.store.write("/last-words", b"")
    world.store.set_perms("/last-words", ["n0", f"b{domid}"])
    ask(domain, "write", "last-words", b"")
    ask(domain, "watch", "data")
    world.machine.shutdown("d")
    assert world.store.read("/last-words") == b"written in on_stop"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_actor_is_told_what_it_watches_and_follows(world: World, placement: str) -> None:
    world.store.write("/watched", b"")
    world.store.set_perms("/watched", ["r0"])
    world.machine.start("d", Watching, placement=placement)
    with world.store.watch("/local/domain/1/events") as events:
        at = "/local/domain/1/events/watched"
        while not world.store.exists(at):
            assert events.get(PATIENCE) is not None
        revision = world.store.snapshot("/watched").revision
        world.store.write("/watched/x", b"new")
        while not world.store.exists(f"{at}/x"):
            assert events.get(PATIENCE) is not None
    with world.store.watch("/local/domain/1/changes") as changes:
        while not (noted := _noted(world, revision)):
            assert changes.get(PATIENCE) is not None
    assert noted == [b"new"]


def _noted(world: World, revision: int) -> list[bytes]:
    path = "/local/domain/1/changes"
    names = world.store.directory(path) if world.store.exists(path) else []
    return [world.store.read(f"{path}/{name}") for name in names if int(name) > revision]


def test_a_watch_of_the_machine_ends_with_it_or_when_it_is_closed() -> None:
    with Machine(spares=0) as machine:
        kept, closed = machine.store.watch("/a"), machine.store.watch("/b")
        assert [*map(closed.get, [PATIENCE, 0])] == ["/b", None]
        heard: list[str] = []
        listener = threading.Thread(target=lambda: heard.extend(closed))
        listener.start()
        closed.close()
        listener.join()
        assert heard == []
        with pytest.raises(WatchClosed):
            closed.get()
        closed.close()
        store = machine.store
        follower = store.follow("/a")
    assert next(kept) == "/a"  # what came before the end
    for call in (kept.get, follower.get, follower.take, lambda: next(kept)):
        with pytest.raises(DomainDead):
            call()
    kept.close()
    follower.close()
    with pytest.raises(DomainDead):
        store.read("/a")
    with pytest.raises(DomainDead):
        store.watch("/a")


def test_a_thousand_watches_hear_of_one_write(world: World) -> None:
    watches = [world.store.watch("/a") for _ in range(1_000)]
    assert {watch.get(PATIENCE) for watch in watches} == {"/a"}
    world.store.write("/a/b", b"x")
    assert {watch.get(PATIENCE) for watch in watches} == {"/a/b"}


def test_a_process_that_is_slow_gets_all_its_events(world: World) -> None:
    domain = world.domain("d", "process")
    domid = ask(domain, "domid")
    watch = ask(domain, "watch", "data")
    ask(domain, "get", watch)
    pid = world.machine.pid("d")
    os.kill(pid, signal.SIGSTOP)
    try:
        paths = [
            f"data/{number}-{'x' * 100}" for number in range(3_000)
        ]  # more than a socket holds
        for path in paths:
            world.store.write(f"/local/domain/{domid}/{path}", b"")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [ask(domain, "get", watch) for _ in paths] == paths


def test_a_process_that_does_not_take_its_events_is_ended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    domain, other = world.domain("d", "process"), world.domain("other", "process")
    domid = ask(domain, "domid")
    watch = ask(domain, "watch", "data")
    ask(domain, "get", watch)
    os.kill(world.machine.pid("d"), signal.SIGSTOP)
    with world.store.watch("@releaseDomain") as released:
        assert released.get(PATIENCE) is not None
        for number in range(400):
            world.store.write(f"/local/domain/{domid}/data/{number}-{'x' * 2_900}", b"")
            if released.get(0):
                break
        else:
            assert released.get(PATIENCE) is not None
    assert not world.store.is_domain_introduced(domid)
    assert ask(other, "read", "name") == b"other"
    assert "DomainHung: it does not take its events from the store" in caplog.text


def test_a_process_that_says_it_takes_events_and_does_not_is_ended_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    liar, other = world.domain("liar", "process"), world.domain("other", "process")
    domid = ask(liar, "domid")
    ask(liar, "get", ask(liar, "watch", "data"))
    ask(liar, "deaf")
    with world.store.watch("@releaseDomain") as released:
        assert released.get(PATIENCE) is not None
        for number in range(150):  # far less than may wait, more than its socket holds
            world.store.write(f"/local/domain/{domid}/data/{number}-{'x' * 2_900}", b"")
            with suppress(ChannelClosed, OutcomeUnknown):  # it is killed in the middle of one
                ask(liar, "taken")
        assert released.get(PATIENCE) is not None
    assert ask(other, "read", "name") == b"other"
    assert "DomainHung" in caplog.text


def test_what_happens_between_two_events_is_lost_on_this_face(world: World) -> None:
    """A device is replaced: a closed one, a new one. The state is the same as before."""
    domain = world.domain("d", "process")
    world.store.write("/device/state", b"4")
    for path in ("/device", "/device/state"):
        world.store.set_perms(path, ["r0"])
    watch = ask(domain, "watch", "/device/state")
    revision = world.store.snapshot("/device").revision
    assert ask(domain, "get", watch) == "/device/state"
    os.kill(pid := world.machine.pid("d"), signal.SIGSTOP)
    world.store.write("/device/state", b"6")
    world.store.write("/device/state", b"4")
    os.kill(pid, signal.SIGCONT)
    assert ask(domain, "get", watch) == "/device/state"
    assert ask(domain, "read", "/device/state") == b"4"  # as if nothing had happened
    follower = ask(domain, "follow", "/device/state", revision)
    assert [ask(domain, "get", follower)[2:4] for _ in range(2)] == [[b"4", b"6"], [b"6", b"4"]]


# --- hostile domains ------------------------------------------------------------------------------


def test_what_is_no_message_of_the_store_is_refused_and_the_domain_goes_on(world: World) -> None:
    domain = world.domain("d", "process")
    good = Packet(Op.READ, 3, 0, b"name\0").encode()
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        good[:HEADER_SIZE],
        good + good,
        b"\xff" * 64,
    ):
        assert refused(domain, "packet", bad) == "HypercallError"
    for size in (PAYLOAD_MAX + 1, 100_000):
        head = good[:12] + size.to_bytes(4, "little")
        assert refused(domain, "large packet", head, size) == "HypercallError"
        head = good[:12] + PAYLOAD_MAX.to_bytes(4, "little")
        assert refused(domain, "large packet", head, size) == "HypercallError"
    assert parse(ask(domain, "packet", good)) == Packet(Op.READ, 3, 0, b"d")
    unknown = Packet(99, 5, 6, b"x").encode()
    assert parse(ask(domain, "packet", unknown)).payload == b"ENOSYS\0"


def test_a_domain_cannot_say_what_is_not_for_domains_to_say(world: World) -> None:
    """Neither what the machine says, nor in the name of another connection."""
    domain = world.domain("d", "process")
    assert refused(domain, "say", "machine's") == "HypercallError"
    assert refused(domain, "say", "another's") == "HypercallError"
    assert ask(domain, "read", "name") == b"d"


BYTES = st.binary(max_size=64) | st.sampled_from([b"/a\0", b"a\0t\0", b"a\0b", b"T\0", b"1\0", b""])
REQUESTS = st.builds(
    lambda kind, req, tx, payload: StoreRequest(Packet(kind, req, tx, payload).encode()),
    st.integers(0, 30) | st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 3) | st.integers(0, 2**32 - 1),
    BYTES | st.lists(BYTES, max_size=4).map(pack),
)
PATHS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["/", "a"])
CALLS: st.SearchStrategy[Message] = st.one_of(
    st.builds(StoreRequest, st.binary(max_size=200)),
    REQUESTS,
    st.builds(Follow, PATHS, st.binary(max_size=5)),
    st.builds(Unfollow, st.binary(max_size=5)),
    st.builds(Since, PATHS, st.integers(-(2**63), 2**64 - 1)),
    st.builds(TakeSnapshot, PATHS),
    st.just(MoreNodes()),
    st.just(Release(1)),
    st.just(CloseStore(1)),
)
ANSWERS = (bytes, int, type(None), Changes, Nodes, StoreRefused, Refused)


def test_whatever_bytes_a_process_says_are_answered(world: World) -> None:
    domain = world.domain("d", "process")

    @settings(max_examples=200)
    @given(st.binary(max_size=300) | REQUESTS.map(lambda request: request.packet))
    def say(data: bytes) -> None:
        try:
            assert parse(ask(domain, "packet", data)).type in (parse(data).type, Op.ERROR)
        except RemoteError as error:
            assert error.error == "HypercallError"  # noqa: PT017 - not every example raises

    say()
    assert parse(ask(domain, "packet", Packet(Op.GET_FEATURE, 1, 0, b"").encode())).req_id == 1


@given(calls=st.lists(CALLS, max_size=40))
def test_whatever_a_hostile_domain_says_is_answered_and_hurts_nobody(calls: list[Message]) -> None:
    with System() as system:
        store = system.start(StoreActor)
        store.ask(Introduce(5, {}))
        store.ask(Introduce(6, {"mine": "6"}))
        store.ask(Put({"/secret": "secret"}, []))
        door = system.start(Recorder)
        hostile, other = (store.ask(OpenStore(domid, door)) for domid in (5, 6))
        for call in calls:
            answer = store.ask(StoreCall(hostile, call))
            assert isinstance(answer, ANSWERS)
            assert b"secret\0" not in answer[HEADER_SIZE:] if isinstance(answer, bytes) else True
            if isinstance(answer, Nodes):
                assert b"secret" not in dict(answer.nodes).values()
            if isinstance(answer, Refused):
                assert answer.error == "HypercallError"
        read = StoreRequest(Packet(Op.READ, 0, 0, b"mine\0").encode())
        assert parse(store.ask(StoreCall(other, read))).payload == b"6"


def test_a_connection_that_has_ended_answers_so_and_gets_no_events() -> None:
    with System() as system:
        store = system.start(StoreActor)
        store.ask(Introduce(5, {}))
        owner, door = system.start(Recorder), system.start(Collector)
        watch = StoreRequest(Packet(Op.WATCH, 0, 0, b"/a\0t\0").encode())
        kept, closed, owned, released = (
            store.ask(OpenStore(*of)) for of in ((0, door), (0, door), (0, door, owner), (5, door))
        )
        for connection in (kept, closed, owned, released):
            store.ask(StoreCall(connection, watch))
        store.ask(CloseStore(closed))
        owner.stop()
        store.ask(Release(5))
        door.ask(Taken(0))
        store.ask(Put({"/a": "x"}, [5]))
        assert door.ask(Taken(0)) == [kept]
        for connection in (closed, owned, released, 999):
            answer = store.ask(StoreCall(connection, watch))
            assert (type(answer), answer.error) == (Refused, "DomainDead")


def test_of_a_snapshot_there_is_nothing_left_when_all_was_given() -> None:
    with System() as system:
        store = system.start(StoreActor)
        connection = store.ask(OpenStore(0, system.start(Recorder)))
        store.ask(Put({f"/{number}": "x" * 1000 for number in range(50)}, []))
        part = store.ask(StoreCall(connection, TakeSnapshot("/")))
        count = len(part.nodes)
        while part.more:
            part = store.ask(StoreCall(connection, MoreNodes()))
            count += len(part.nodes)
        assert count == 51
        again = store.ask(StoreCall(connection, MoreNodes()))
        assert (type(again), again.errno) == (StoreRefused, "EINVAL")


def test_the_door_of_processes_lets_go_of_a_socket_when_its_domain_has_ended() -> None:
    with System() as system:
        door = system.start(ProcessDoor)
        domain = system.start(Recorder)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.settimeout(PATIENCE)
            door.ask(Attach(7, Fd(ours.detach()), domain))
            door.tell(StoreEvent(7, "/a", b"t"), control=True)
            assert receive_frame(theirs) == StoreEvents([("/a", b"t")])
            domain.stop()
            assert receive_frame(theirs) is None
            for late in (StoreEvent(7, "/a", b"t"), Taken(7)):
                assert door.ask(late) is None


class Collector(Actor):
    """A door; on `Taken` it says, and forgets, which connections have had an event."""

    pooled = True

    def __init__(self) -> None:
        super().__init__()
        self._of: list[int] = []

    def on_receive(self, message: Message) -> list[int] | None:
        if isinstance(message, StoreEvent):
            self._of.append(message.connection)
            return None
        of, self._of = self._of, []
        return of
