"""Monitors tell one side of the other's end; links tie both ends together."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from actors import (
    Actor,
    Down,
    ExitReason,
    Message,
    Ref,
    RemoteActorError,
    System,
    UnknownRef,
)
from tests.actors.parts import Do, Doer, Fail, Gate, Leave, Pooled, Recorder, Say, Seen, busy

# --- monitors -------------------------------------------------------------------------------------


class Watcher(Recorder):
    """`Do("monitor", target)` and so on; remembers the numbers of the `Down`s."""

    fails_on_ask = False

    def on_receive(self, message: Message) -> Any:
        match message:
            case Do([str(what), *arguments]):
                return getattr(self, what)(*arguments)
            case Down(_, name, reason, number):
                self.seen.append(f"{name} {reason} {number}")
                return None
        return super().on_receive(message)


class PooledWatcher(Watcher):
    pooled = True


@pytest.mark.parametrize("kind", [Watcher, PooledWatcher])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_monitor_hears_once_of_the_end_and_by_its_number(kind: type[Watcher], end: str) -> None:
    with System() as system:
        watcher, ref = system.start(kind), system.start(Recorder, name="it")
        number = watcher.ask(Do(["monitor", ref]))
        assert watcher.ask(Seen()) == []
        getattr(ref, end)()
        system.wait(ref)
        reason = {"stop": "shutdown", "kill": "killed"}[end]
        assert watcher.ask(Seen()) == [f"it {reason} {number}"]


def test_monitoring_twice_is_two_reports_with_their_numbers() -> None:
    with System() as system:
        watcher, ref = system.start(Watcher), system.start(Recorder, name="it")
        one, other = (watcher.ask(Do(["monitor", ref])) for _ in range(2))
        assert one != other
        ref.stop()
        assert watcher.ask(Seen()) == [f"it shutdown {one}", f"it shutdown {other}"]


def test_one_that_has_ended_is_reported_at_once() -> None:
    with System() as system:
        watcher, ref = system.start(Watcher), system.start(Recorder, name="it")
        ref.tell(Fail())
        system.wait(ref)
        number = watcher.ask(Do(["monitor", ref]))
        assert watcher.ask(Seen()) == [f"it ValueError: broken {number}"]


def test_an_end_that_was_monitored_no_longer_is_not_reported() -> None:
    with System() as system:
        watcher, ref = system.start(Watcher), system.start(Recorder, name="it")
        one, other, third = (watcher.ask(Do(["monitor", ref])) for _ in range(3))
        watcher.ask(Do(["demonitor", ref, other]))
        watcher.ask(Do(["demonitor", ref, other]))
        watcher.ask(Do(["demonitor", ref, 10**6]))
        ref.stop()
        assert watcher.ask(Seen()) == [f"it shutdown {one}", f"it shutdown {third}"]
        watcher.ask(Do(["demonitor", ref, one]))


def test_a_number_of_one_monitor_does_not_end_that_of_another() -> None:
    with System() as system:
        ref = system.start(Recorder, name="it")
        watchers = [system.start(Watcher) for _ in range(2)]
        numbers = [watcher.ask(Do(["monitor", ref])) for watcher in watchers]
        watchers[0].ask(Do(["demonitor", ref, numbers[1]]))
        ref.stop()
        for watcher, number in zip(watchers, numbers, strict=True):
            assert watcher.ask(Seen()) == [f"it shutdown {number}"]


def test_a_report_that_is_on_its_way_still_comes() -> None:
    gate = Gate()

    def late(it: Doer, ref: Any) -> None:
        number = it.monitor(ref)
        gate.pass_through()
        it.demonitor(ref, number)

    with System() as system:
        ref = system.start(Recorder, name="it")
        watcher = system.start(Doer, late)
        done = watcher.ask_future(Do(ref))
        gate.wait_until_reached()
        ref.stop()
        gate.open()
        done.result()
        assert watcher.ask(Seen()) == ["Down it shutdown"]


def test_the_report_overtakes_what_is_queued() -> None:
    gate = Gate()
    with System() as system:
        watcher, ref = busy(system, gate), system.start(Recorder, name="it")
        system.monitor(ref, watcher)
        watcher.tell(Say("data"))
        ref.stop()
        gate.open()
        assert watcher.ask(Seen()) == ["Down it shutdown", "data"]


def test_a_monitor_hears_of_a_start_that_fails() -> None:
    gate, refs = Gate(), list[Ref]()

    class Doomed(Actor):
        def on_start(self) -> None:
            refs.append(self.ref)
            gate.pass_through()
            raise OSError(5, "after all")

    with System() as system:
        mother = system.start(Doer, lambda it, _: it.begin_child(Doomed, name="kid"))
        mother.ask(Do())
        gate.wait_until_reached()
        watcher = system.start(Recorder)
        system.monitor(refs[0], watcher)
        gate.open()
        system.wait(refs[0])
        assert watcher.ask(Seen()) == ["Down kid OSError: [Errno 5] after all"]


def test_an_end_that_races_with_its_monitor_is_always_reported_once() -> None:
    with System() as system:
        watcher = system.start(Watcher)
        for number in range(200):
            ref = system.start(Pooled, name=str(number))
            ready = threading.Barrier(2)

            def stop(ref: Ref = ref, ready: threading.Barrier = ready) -> None:
                ready.wait()
                ref.stop()

            thread = threading.Thread(target=stop)
            thread.start()
            ready.wait()
            system.monitor(ref, watcher)
            thread.join()
        assert len(watcher.ask(Seen())) == 200


# --- links ----------------------------------------------------------------------------------------


class Linker(Recorder):
    """`Do(ref)` links to it, `Do(["unlink", ref])` undoes that."""

    fails_on_ask = False

    def on_receive(self, message: Message) -> Any:
        match message:
            case Do([str(what), other]):
                getattr(self, what)(other)
                return None
            case Do(other):
                self.link(other)
                return None
        return super().on_receive(message)


class Trapper(Linker):
    traps_exits = True


class PooledLinker(Linker):
    pooled = True


def end(system: System, ref: Ref, how: str) -> None:
    match how:
        case "normal":
            ref.tell(Leave())
        case "shutdown":
            ref.stop()
        case "killed":
            ref.kill()
        case "error":
            ref.tell(Fail())
    system.wait(ref)


ENDS = {
    "normal": None,
    "shutdown": ExitReason("shutdown"),
    "killed": ExitReason("error", "LinkedExit", "linked to it, which ended: killed"),
    "error": ExitReason("error", "LinkedExit", "linked to it, which ended: ValueError: broken"),
}


@pytest.mark.parametrize("kind", [Linker, PooledLinker])
@pytest.mark.parametrize("direction", ["to", "from"])
@pytest.mark.parametrize("how", ENDS)
def test_the_end_of_one_is_that_of_the_other(
    kind: type[Linker], direction: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = list[str]()
    with System() as system:
        it, other = system.start(kind, name="it"), system.start(kind, None, log, name="other")
        if direction == "to":
            other.ask(Do(it))
        else:
            it.ask(Do(other))
        end(system, it, how)
        expected = ENDS[how]
        if expected is None:
            assert other.ask(Say("here")) == "here"
        else:
            reason = system.wait(other).reason
            assert (reason.kind, reason.error, reason.text) == (
                expected.kind,
                expected.error,
                expected.text,
            )
            assert log[1:] == [f"other stopped ({reason})"]  # in order: its on_stop has run
            if how == "error":
                assert "in on_receive" in reason.traceback
                assert "other has failed: LinkedExit: linked to it" in caplog.text


@pytest.mark.parametrize("direction", ["to", "from"])
@pytest.mark.parametrize("how", ENDS)
def test_one_that_traps_exits_is_told_instead(direction: str, how: str) -> None:
    with System() as system:
        it, other = system.start(Linker, name="it"), system.start(Trapper)
        if direction == "to":
            other.ask(Do(it))
        else:
            it.ask(Do(other))
        end(system, it, how)
        reason = {"error": "ValueError: broken"}.get(how, how)
        assert other.ask(Seen()) == [f"Exit it {reason}"]


@pytest.mark.parametrize("how", ENDS)
def test_a_link_to_one_that_has_ended_is_felt_at_once(how: str) -> None:
    with System() as system:
        it, other = system.start(Linker, name="it"), system.start(Linker)
        end(system, it, how)
        other.tell(Do(it))
        expected = ENDS[how]
        if expected is None:
            assert other.ask(Say("here")) == "here"
        else:
            assert system.wait(other).reason.kind == expected.kind


def test_a_trapper_hears_at_once_of_one_that_has_ended() -> None:
    with System() as system:
        it, other = system.start(Linker, name="it"), system.start(Trapper)
        it.stop()
        other.ask(Do(it))
        assert other.ask(Seen()) == ["Exit it shutdown"]


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("ends", [0, 1])
def test_either_side_may_undo_the_link(by: int, ends: int) -> None:
    with System() as system:
        pair = [system.start(Linker), system.start(Linker)]
        pair[0].ask(Do(pair[1]))
        pair[by].ask(Do(["unlink", pair[1 - by]]))
        pair[by].ask(Do(["unlink", pair[1 - by]]))
        end(system, pair[ends], "error")
        assert pair[1 - ends].ask(Say("here")) == "here"


def test_linking_twice_is_once() -> None:
    with System() as system:
        it, other = system.start(Linker, name="it"), system.start(Trapper)
        for _ in range(2):
            it.ask(Do(other))
            other.ask(Do(it))
        it.stop()
        assert other.ask(Seen()) == ["Exit it shutdown"]


def test_a_chain_of_links_ends_as_a_whole_and_says_where_it_began() -> None:
    with System() as system:
        chain = [system.start(Linker, name=name) for name in "abcde"]
        for one, next_one in itertools.pairwise(chain):
            one.ask(Do(next_one))
        chain[2].tell(Fail())
        reasons = [str(system.wait(ref).reason) for ref in chain]
        assert reasons[2] == "ValueError: broken"
        assert (
            reasons[1] == reasons[3] == "LinkedExit: linked to c, which ended: ValueError: broken"
        )
        assert reasons[0] == f"LinkedExit: linked to b, which ended: {reasons[1]}"


def test_a_circle_of_links_ends_too() -> None:
    with System() as system:
        circle = [system.start(PooledLinker, name=name) for name in "abc"]
        for one, next_one in zip(circle, [*circle[1:], circle[0]], strict=True):
            one.ask(Do(next_one))
        circle[0].ask(Do(circle[0]))
        circle[0].stop()
        assert {system.wait(ref).reason.kind for ref in circle} == {"shutdown"}


def test_a_busy_one_ends_when_its_handler_has_returned() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate)
        other = system.start(Linker)
        other.ask(Do(ref))
        ref.tell(Say("never read"))
        other.tell(Fail())
        system.wait(other)
        assert ref.is_alive()
        gate.open()
        assert system.wait(ref).reason.error == "LinkedExit"


def test_children_and_links_are_two_things() -> None:
    """A child's end is a message to its parent; only a link makes it the parent's end too."""

    def spawn(it: Doer, link: Any) -> Ref:
        child = it.start_child(Recorder, name="kid")
        if link:
            it.link(child)
        return child

    with System() as system:
        mother = system.start(Doer, spawn)
        mother.ask(Do(False)).tell(Fail())
        end(system, mother.ask(Do(False)), "error")
        assert mother.ask(Say("here")) == "here"
        mother.ask(Do(True)).tell(Fail())
        assert system.wait(mother).reason.error == "LinkedExit"


def test_links_and_monitors_are_of_one_system() -> None:
    with System() as one, System() as other:
        theirs = other.start(Linker, name="theirs")

        def across(it: Doer, what: Any) -> None:
            getattr(it, what)(theirs)

        ref = one.start(Doer, across)
        for what in ("link", "monitor"):
            with pytest.raises(RemoteActorError, match="theirs is of another system") as failed:
                ref.ask(Do(what))
            assert isinstance(failed.value.__cause__, UnknownRef)
        theirs.tell(Fail())
        other.wait(theirs)
        assert ref.ask(Say("here")) == "here"


def test_links_made_by_one_that_was_killed_meanwhile_bind_nobody() -> None:
    gate = Gate()

    def link_late(it: Doer, other: Any) -> None:
        gate.pass_through()
        it.link(other)

    with System() as system:
        other = system.start(Trapper)
        ref = system.start(Doer, link_late)
        ref.tell(Do(other))
        gate.wait_until_reached()
        ref.kill()
        gate.open()
        system.wait(ref)
        assert other.ask(Seen()) == []
        other.stop()
        assert system.dead_letters.by_kind == {}
