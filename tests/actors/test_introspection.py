"""What people see of a system that runs: its tree, the figures of an actor, everybody's stack."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors import (
    Actor,
    AwaitChildren,
    ChildSpec,
    Message,
    Ref,
    Reply,
    Supervisor,
    System,
    dump,
    dump_on_signal,
    encode,
)
from tests.actors.parts import (
    Clock,
    Do,
    Doer,
    Fail,
    Gate,
    Hold,
    Pooled,
    PooledDoer,
    Recorder,
    Say,
    Seen,
    busy,
    supervise,
)

FOREVER = float("inf")


class Talkative(Recorder):
    def describe(self) -> str:
        return f"has seen {len(self.seen)}"


# --- the tree -------------------------------------------------------------------------------------


def test_an_empty_system_has_a_tree_too() -> None:
    with System("home") as system:
        assert system.tree() == "system home: 0 actors"
        system.start(Recorder, name="it")
        assert system.tree().splitlines()[0] == "system home: 1 actor"


def test_the_tree_shows_who_there_is_and_how_they_are() -> None:
    clock, gates = Clock(), [Gate(), Gate()]
    with System("home", clock=clock) as system:
        top = system.start(
            Supervisor, [ChildSpec.of(name, Recorder, registered=True) for name in "ab"], name="top"
        )
        clock.now += 10
        first = system.whereis("b")
        assert first is not None
        first.tell(Fail())
        system.wait(first)
        top.ask(AwaitChildren())
        thread = system.start(Talkative, gates[0], name="a thread")
        pooled = system.start(Pooled, gates[1], name="pooled")
        for ref, gate in zip((thread, pooled), gates, strict=True):
            ref.tell(Hold())
            gate.wait_until_reached()
            ref.tell(Say("queued"))
        clock.now += 2.5
        supervises = "one_for_one, intensity 1 in 5 s"
        assert system.tree().splitlines() == [
            "system home: 5 actors",
            f"top       idle        0 restarts       0 queued       12.5 s  {supervises}",
            "  a       idle        0 restarts       0 queued       12.5 s",
            "  b       idle        1 restart        0 queued        2.5 s",
            "a thread  busy        0 restarts       1 queued        2.5 s  has seen 0",
            "pooled    busy        0 restarts       1 queued        2.5 s",
        ]
        for gate in gates:
            gate.open()


def test_an_actor_that_starts_or_stops_is_shown_as_such() -> None:
    starting, stopping = Gate(), Gate()

    class Slow(Recorder):
        def on_start(self) -> None:
            starting.pass_through()

        def on_stop(self) -> None:
            stopping.pass_through()

    with System() as system:
        mother = system.start(PooledDoer, lambda it, _: it.begin_child(Slow, name="kid"))
        kid: Ref = mother.ask(Do())
        starting.wait_until_reached()
        assert "  kid         starting" in system.tree()
        starting.open()
        stopper = threading.Thread(target=kid.stop)
        stopper.start()
        stopping.wait_until_reached()
        assert "  kid         stopping" in system.tree()
        assert kid.statistics().state == "stopping"
        stopping.open()
        stopper.join()
        assert "kid" not in system.tree()
        assert kid.statistics().state == "ended"


@pytest.mark.parametrize(
    ("intensities", "warnings"),
    [
        ((10,), []),
        ((1, 4), []),
        ((1, 5), ["2 s 12"]),
        ((3, 3, 3), ["2 m 16", "3 s 64"]),
        ((0, 0, 30), ["3 s 31"]),
    ],
)
def test_intensities_that_multiply_are_warned_of(
    intensities: tuple[int, ...], warnings: list[str]
) -> None:
    """The innermost supervisor is called s, the one above it m."""
    spec = ChildSpec.of("leaf", Recorder)
    for name, intensity in zip("sm", intensities[:0:-1], strict=False):
        spec = ChildSpec.of(name, Supervisor, [spec], intensity)
    with System() as system:
        supervise(system, spec, intensity=intensities[0])
        lines = [line for line in system.tree().splitlines() if line.startswith("warning:")]
        expected = []
        for warning in warnings:
            levels, name, starts = warning.split()
            expected.append(
                f"warning: nested intensities multiply: a child of {name} that fails for ever is "
                f"started {starts} times before the topmost of {levels} supervisors gives up"
            )
        assert lines == expected


class Between(Recorder):
    """Is no supervisor, but ends with the one under it, and so it is started again with it."""

    def on_start(self) -> None:
        self.link(self.start_child(Supervisor, [], 9, name="inner"))


def test_a_plain_actor_between_two_supervisors_does_not_hide_that_they_multiply() -> None:
    with System() as system:
        supervise(system, ChildSpec.of("between", Between), intensity=9)
        assert "a child of inner that fails for ever is started 100 times" in system.tree()


def test_one_that_cannot_describe_itself_hides_nobody() -> None:
    class Mute(Recorder):
        def describe(self) -> str:
            raise ValueError("no words")

    with System() as system:
        system.start(Mute, name="mute")
        system.start(Recorder, name="other")
        tree = system.tree()
        assert "(its describe: ValueError: no words)" in tree
        assert "other" in tree


def test_the_tree_may_be_looked_at_while_everything_changes() -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            system.start(Pooled, name="brief").stop()

    with System() as system:
        mother = system.start(Doer, lambda it, _: it.start_child(Pooled).stop())
        thread = threading.Thread(target=churn)
        thread.start()
        for _ in range(100):
            mother.tell(Do())
            assert system.tree().startswith("system main: ")
            dump(io.StringIO())
        done.set()
        thread.join()


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Recorder, Pooled])
def test_the_figures_of_an_actor(kind: type[Recorder]) -> None:
    clock, gate = Clock(), Gate()
    with System(clock=clock) as system:
        ref = busy(system, gate, kind)
        clock.now += 3
        ref.tell(Say("a"))
        ref.ask_future(Say("b"), FOREVER)
        ref.tell(Say("c"), control=True)
        of = ref.statistics()
        assert (of.name, of.state, of.handled, of.restarts) == ("busy", "busy", 1, 0)
        assert (of.queued, of.most_queued) == (2, 2)
        assert of.queued_bytes == 2 * len(encode(Say("a")).payload)
        assert (of.unanswered, of.uptime) == (0, 3)
        gate.open()
        ref.ask_future(Say("d"), FOREVER).result()
        ref.stop()
        of = ref.statistics()
        assert (of.state, of.handled, of.queued, of.queued_bytes) == ("ended", 5, 0, 0)


def test_asks_that_will_be_answered_later_are_counted() -> None:
    kept = list[Reply]()
    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: kept.append(it.reply_later()))
        futures = [ref.ask_future(Do(), FOREVER) for _ in range(3)]
        ref.ask(Seen())
        ref.tell(Do())
        ref.ask(Seen())
        assert ref.statistics().unanswered == 3
        kept[0].send(None)
        kept[1].fail(ValueError())
        assert ref.statistics().unanswered == 1
        ref.kill()
        assert ref.statistics().unanswered == 0
        assert all(future.settled for future in futures)


def test_what_was_queued_when_it_was_killed_is_not_queued_any_more() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate)
        ref.tell(Say("x"))
        ref.kill()
        of = ref.statistics()
        assert (of.state, of.queued, of.queued_bytes, of.most_queued) == ("ended", 0, 0, 1)
        gate.open()


# --- everybody's stack ----------------------------------------------------------------------------


def dumped() -> str:
    text = io.StringIO()
    dump(text)
    return text.getvalue()


def stacks(text: str) -> dict[str, str]:
    """What was printed of each actor that has a stack."""
    parts = text.split("\n\n")[1:]
    return {part.split(" (")[0]: part for part in parts}


class Deep(Recorder):
    def on_receive(self, message: Message) -> Any:
        return self.deep_inside(message)

    def deep_inside(self, message: Message) -> Any:
        return super().on_receive(message)


class PooledDeep(Deep):
    pooled = True


def test_a_dump_shows_the_stack_of_each_that_has_one() -> None:
    gates = [Gate(), Gate()]
    with System("home") as system:
        system.start(Recorder, name="idle thread")
        system.start(Pooled, name="idle pooled")
        for name, kind, gate in (
            ("busy thread", Deep, gates[0]),
            ("busy pooled", PooledDeep, gates[1]),
        ):
            ref = system.start(kind, gate, name=name)
            ref.tell(Hold())
            gate.wait_until_reached()
        text = dumped()
        assert system.tree().splitlines()[0] in text
        found = stacks(text)
        assert set(found) == {"idle thread", "busy thread", "busy pooled"}
        for name in ("busy thread", "busy pooled"):
            assert found[name].startswith(f"{name} (busy):\n")
            assert "in deep_inside" in found[name]
            assert "in pass_through" in found[name]
        assert found["idle thread"].startswith("idle thread (idle):\n")
        assert "in sleep" in found["idle thread"]
        for gate in gates:
            gate.open()


def test_an_actor_that_is_run_by_its_asker_has_the_stack_of_that() -> None:
    gate = Gate()
    with System() as system:
        ref = system.start(PooledDeep, gate, name="asked")
        asker = system.start(Doer, lambda it, _: ref.ask(Hold(), FOREVER), name="asker")
        done = asker.ask_future(Do(), FOREVER)
        gate.wait_until_reached()
        found = stacks(dumped())
        assert "in deep_inside" in found["asked"]
        assert "in deep_inside" in found["asker"]
        gate.open()
        done.result()
        assert set(stacks(dumped())) == {"asker"}


def test_a_parent_that_has_just_begun_a_pooled_child_still_has_its_stack() -> None:
    gate = Gate()

    def give_birth_and_wait(it: Doer, _: Any) -> None:
        it.begin_child(Pooled, name="kid")
        gate.pass_through()

    with System() as system:
        ref = system.start(PooledDoer, give_birth_and_wait, name="mother")
        ref.tell(Do())
        gate.wait_until_reached()
        assert "in give_birth_and_wait" in stacks(dumped())["mother"]
        gate.open()


def test_all_systems_are_dumped_until_they_are_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    with System("b") as one:
        one.start(Recorder, name="of b")
        with System("a") as other:
            other.start(Recorder, name="of a")
            dump()
            text = capsys.readouterr().err
            assert text.index("system a: 1 actor") < text.index("system b: 1 actor")
        dump()
        text = capsys.readouterr().err
        assert "system a" not in text
        assert "system b" in text


@pytest.fixture
def on_usr1() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    undo = dump_on_signal()
    yield
    undo()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_dumps_to_standard_error(on_usr1: None, capfd: pytest.CaptureFixture[str]) -> None:
    gate = Gate()
    with System("home") as system:
        busy(system, gate, PooledDeep)
        os.kill(os.getpid(), signal.SIGUSR1)
        text = capfd.readouterr().err
        assert text.startswith("system home: 1 actor\nbusy  busy ")
        assert "in deep_inside" in stacks(text)["busy"]
        gate.open()


def test_another_signal_may_be_chosen_and_what_it_did_comes_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    hits = list[int]()

    def note(number: int, _: object) -> None:
        hits.append(number)

    before = signal.signal(signal.SIGUSR2, note)
    try:
        undo = dump_on_signal(signal.SIGUSR2)
        with System("home"):
            os.kill(os.getpid(), signal.SIGUSR2)
        undo()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert hits == [signal.SIGUSR2]
        assert capfd.readouterr().err == "system home: 0 actors\n"
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_that_hits_the_system_in_the_middle_of_something_is_answered(
    on_usr1: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """The clock is read while the system holds its lock: to start an actor, for one."""
    hits, inside = [0], [False]

    def clock() -> float:
        if threading.current_thread() is threading.main_thread() and not inside[0]:
            hits[0] += 1
            inside[0] = True  # the tree reads the clock as well
            os.kill(os.getpid(), signal.SIGUSR1)
            inside[0] = False
        return 0.0

    with System("home", clock=clock) as system:
        system.start(Pooled, name="it").ask(Say("x"))
    assert hits[0] > 2
    assert capfd.readouterr().err.count("system home:") == hits[0]


def test_a_signal_that_hits_a_pooled_actor_in_the_main_thread_shows_it(
    on_usr1: None, capfd: pytest.CaptureFixture[str]
) -> None:
    class Suicidal(Actor):
        pooled = True

        def on_receive(self, message: Message) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    with System("home") as system:
        system.start(Suicidal, name="it").ask(Do())
        found = stacks(capfd.readouterr().err)
        assert "in on_receive" in found["it"]


def test_a_handler_for_a_signal_can_be_set_in_the_main_thread_only() -> None:
    errors = list[ValueError]()

    def try_it() -> None:
        with pytest.raises(ValueError, match="main thread") as failed:
            dump_on_signal()
        errors.append(failed.value)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    assert len(errors) == 1
