"""An actor from start to end: every way to end gives one exit report, and `on_stop` runs."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import pytest

from actors import (
    Actor,
    ActorDead,
    ActorError,
    Down,
    ExitReason,
    Fd,
    Message,
    Ref,
    RemoteActorError,
    StartFailed,
    StopTimeout,
    System,
)
from tests.actors.parts import (
    ERRORS,
    PATIENCE,
    Fail,
    Gate,
    Hold,
    Leave,
    Patient,
    Pooled,
    Recorder,
    Say,
    Seen,
    WhoAreYou,
    busy,
)


def test_start_returns_when_on_start_has_ended() -> None:
    log: list[str] = []
    with System() as system:
        system.start(Recorder, log=log, name="a")
        assert log == ["a started"]
    assert log == ["a started", "a stopped (shutdown)"]


def test_everything_of_an_actor_runs_in_its_own_thread_which_has_its_name() -> None:
    names: list[str] = []

    class Observer(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.on_anything()

        def on_anything(self) -> None:
            names.append(threading.current_thread().name)

        on_start = on_stop = on_anything

        def on_receive(self, message: Message) -> None:
            self.on_anything()

    with System() as system:
        system.start(Observer, name="watcher").ask(Say(""))
    assert names == ["watcher"] * 4


def test_an_actor_knows_itself_already_in_its_constructor() -> None:
    found: list[Any] = []

    class Curious(Actor):
        def __init__(self) -> None:
            found.extend([self.name, self.ref, self.system, self.parent])
            super().__init__()

    with System() as system:
        ref = system.start(Curious, name="c")
        assert found == ["c", ref, system, None]


class BadInit(Actor):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        raise error


class BadStart(Actor):
    stopped = False

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def on_start(self) -> None:
        raise self.error

    def on_stop(self) -> None:
        type(self).stopped = True


@pytest.mark.parametrize("actor_class", [BadInit, BadStart])
@pytest.mark.parametrize("error", [OSError(2, "no image"), KeyboardInterrupt("x"), SystemExit(3)])
def test_a_start_that_fails_says_why_and_leaves_nothing(
    actor_class: type[Actor], error: BaseException
) -> None:
    with System() as system:
        before = threading.active_count()
        with pytest.raises(StartFailed, match="sick could not start") as failed:
            system.start(actor_class, error, name="sick")
        assert threading.active_count() == before
        assert (failed.value.error, failed.value.text) == (type(error).__name__, str(error))
        assert "raise" in failed.value.traceback
        assert failed.value.__cause__ is error
        assert not BadStart.stopped


def test_an_actor_need_not_call_the_constructor_of_its_base() -> None:
    class Forgetful(Recorder):
        def __init__(self) -> None:
            self.seen = []
            self.log = []

    with System() as system:
        assert system.start(Forgetful).ask(Say("x")) == "x"


def test_an_actor_cannot_be_made_without_a_system() -> None:
    with pytest.raises(ActorError, match=r"System\.start\(Recorder"):
        Recorder()


class StopsBadly(Recorder):
    def on_stop(self) -> None:
        super().on_stop()
        raise LookupError("while stopping")


WAYS: list[tuple[str, type[Recorder], Any, ExitReason]] = [
    ("stop", Recorder, "stop", ExitReason("shutdown")),
    ("exit", Recorder, Leave(), ExitReason("normal")),
    ("kill", Recorder, "kill", ExitReason("killed")),
    ("stop and a bad on_stop", StopsBadly, "stop", ExitReason("error", "LookupError")),
    *(
        (f"{how} {error}", Recorder, (how, Fail(error)), ExitReason("error", error))
        for how in ("tell", "ask")
        for error in ERRORS
    ),
    ("ask and a bad on_stop", StopsBadly, ("ask", Fail()), ExitReason("error", "ValueError")),
]


@pytest.mark.parametrize(
    ("actor_class", "how", "reason"), [w[1:] for w in WAYS], ids=[w[0] for w in WAYS]
)
def test_every_end_gives_one_report_and_runs_on_stop_once(
    actor_class: type[Recorder], how: Any, reason: ExitReason
) -> None:
    log: list[str] = []
    with System() as system:
        witness = system.start(Recorder)
        bystander = system.start(Recorder)
        ref = system.start(actor_class, log=log, name="it")
        system.monitor(ref, witness)
        match how:
            case "stop":
                ref.stop()
            case "kill":
                ref.kill()
            case "ask", message:
                with pytest.raises(RemoteActorError, match=r"it failed: \w+: broken"):
                    ref.ask(message)
            case "tell", message:
                ref.tell(message)
            case message:
                ref.tell(message)
        report = system.wait(ref)
        assert (report.ref, report.name) == (ref, "it")
        assert (report.reason.kind, report.reason.error) == (reason.kind, reason.error)
        assert witness.ask(Seen()) == [f"Down it {report.reason}"]
        assert [line for line in log if "stopped" in line] == log[1:]
        assert len(log) == 2
        assert not ref.is_alive()
        assert bystander.ask(Say("here")) == "here"


def test_an_error_in_on_stop_is_added_to_the_report() -> None:
    with System() as system:
        ref = system.start(StopsBadly)
        ref.tell(Fail("ValueError", "first"))
        reason = system.wait(ref).reason
        assert reason.text == "first; then LookupError: while stopping"
        assert "in on_receive" in reason.traceback
        assert "in on_stop" in reason.traceback


def test_a_failing_actor_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with System() as system:
        ref = system.start(Recorder, name="sick")
        ref.tell(Fail("ValueError", "oops"))
        system.wait(ref)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("actors", logging.ERROR)
    assert record.getMessage().startswith("sick has failed: ValueError: oops\nTraceback")


def test_a_failing_ask_may_leave_the_actor_alive_if_its_class_says_so() -> None:
    with System() as system:
        ref = system.start(Patient)
        with pytest.raises(RemoteActorError, match="ValueError: broken") as failed:
            ref.ask(Fail())
        assert isinstance(failed.value.__cause__, ValueError)
        assert ref.ask(Say("on")) == "on"
        with pytest.raises(RemoteActorError):
            ref.ask(Fail("SystemExit"))
        assert system.wait(ref).reason.error == "SystemExit"


def test_an_unexpected_message_is_a_failure() -> None:
    with System() as system:
        ref = system.start(Actor)
        ref.tell(Say(""))
        assert system.wait(ref).reason.text == "Actor does not take Say"


def test_on_failure_runs_before_on_stop() -> None:
    calls: list[Any] = []

    class Sick(Recorder):
        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            assert self.exit_reason is not None
            calls.append((exception_type, self.exit_reason.text))

        def on_stop(self) -> None:
            calls.append("on_stop")

    with System() as system:
        ref = system.start(Sick)
        ref.tell(Fail())
        system.wait(ref)
    assert calls == [(ValueError, "broken"), "on_stop"]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [Unprintable(), ValueError("\ud800" * 10), ValueError("x" * 5_000_000)], ids=type
)
def test_a_report_can_always_be_sent(error: Exception) -> None:
    class Sick(Actor):
        def on_receive(self, message: Message) -> None:
            raise error

    with System() as system:
        witness = system.start(Recorder)
        ref = system.start(Sick)
        system.monitor(ref, witness)
        ref.tell(Say(""))
        assert system.wait(ref).reason.error == type(error).__name__
        assert len(witness.ask(Seen())) == 1


def test_a_reason_of_ones_own_is_cut_to_what_can_be_sent() -> None:
    reason = ExitReason("error", "Mine", "\ud800" * 100_000, "y" * 3_000_000)
    assert len(reason.text) == 4096
    assert len(reason.traceback) == 32768
    with pytest.raises(ValueError, match="no kind of exit"):
        ExitReason("bored")


def test_exit_ends_after_the_current_message_and_takes_a_reason() -> None:
    class Leaver(Recorder):
        def on_receive(self, message: Message) -> Any:
            self.exit(ExitReason("error", "Bored", "nothing to do"))
            return "still here"

    with System() as system:
        ref = system.start(Leaver)
        assert ref.ask(Say("")) == "still here"
        assert system.wait(ref).reason == ExitReason("error", "Bored", "nothing to do")


def test_exit_in_on_start_ends_a_started_actor() -> None:
    class Brief(Recorder):
        def on_start(self) -> None:
            self.exit()

    with System() as system:
        ref = system.start(Brief)
        assert system.wait(ref).reason == ExitReason("normal")


def test_an_actor_that_stops_itself_by_its_ref_does_not_wait_for_itself() -> None:
    class Suicidal(Recorder):
        def on_receive(self, message: Message) -> Any:
            self.ref.stop()
            return "asked for it"

    with System() as system:
        ref = system.start(Suicidal)
        assert ref.ask(Say("")) == "asked for it"
        assert system.wait(ref).reason == ExitReason("shutdown")


def test_stopping_twice_is_nothing() -> None:
    with System() as system:
        ref = system.start(Recorder)
        ref.stop()
        ref.stop()
        assert system.dead_letters.total == 0


def test_descriptors_that_a_dead_handler_held_are_closed_at_once() -> None:
    read, write = os.pipe()

    class Holder(Actor):
        def on_receive(self, message: Message) -> None:
            held = Fd(write)
            raise ValueError(held)

    with System() as system:
        ref = system.start(Holder)
        ref.tell(Say(""))
        system.wait(ref)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""  # the write end is gone
    os.close(read)


# --- drain ----------------------------------------------------------------------------------------


@pytest.fixture(params=[Recorder, Pooled])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def drain(ref: Ref) -> None:
    """Ask for it, and do not wait."""
    with pytest.raises(StopTimeout):
        ref.stop(timeout=0, drain=True)


def test_a_drain_handles_what_is_queued_and_refuses_what_comes_later(kind: type[Recorder]) -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        ref = busy(system, gate, kind, log)
        ref.tell(Say("a"))
        asked = ref.ask_future(Seen(), PATIENCE)
        drain(ref)
        ref.tell(Say("late"))
        with pytest.raises(ActorDead, match="busy has ended"):
            ref.ask(Say("late"))
        assert ref.is_alive()
        gate.open()
        assert asked.result() == ["a"]
        assert system.wait(ref).reason == ExitReason("shutdown")
        assert system.dead_letters.by_kind == {Say.__kind__: 1}
    assert log[1:] == ["busy stopped (shutdown)"]


def test_a_drain_of_one_that_has_nothing_to_do_is_a_stop(kind: type[Recorder]) -> None:
    with System() as system:
        ref = system.start(kind)
        ref.stop(drain=True)
        ref.stop(drain=True)
        assert system.wait(ref).reason == ExitReason("shutdown")


def test_control_comes_first_while_it_drains(kind: type[Recorder]) -> None:
    gates = [Gate(), Gate()]

    class Held(kind):  # type: ignore[valid-type,misc]
        def on_receive(self, message: Message) -> Any:
            if message == Say("second gate"):
                gates[1].pass_through()
            return super().on_receive(message)

    with System() as system:
        ref = busy(system, gates[0], Held)
        ref.tell(Say("second gate"))
        asked = ref.ask_future(Seen(), PATIENCE)
        drain(ref)
        gates[0].open()
        gates[1].wait_until_reached()
        ref.tell(Say("control"), control=True)
        gates[1].open()
        assert asked.result() == ["second gate", "control"]


def test_a_stop_or_a_kill_cuts_a_drain_short(kind: type[Recorder]) -> None:
    for how, reason in (("stop", "shutdown"), ("kill", "killed")):
        gates = [Gate(), Gate()]

        class Held(kind):  # type: ignore[valid-type,misc]
            gate_two = gates[1]

            def on_receive(self, message: Message) -> Any:
                if message == Say("second gate"):
                    self.gate_two.pass_through()
                return super().on_receive(message)

        with System() as system:
            ref = busy(system, gates[0], Held)
            ref.tell(Say("second gate"))
            never = ref.ask_future(Say("never"), PATIENCE)
            drain(ref)
            gates[0].open()
            gates[1].wait_until_reached()
            if how == "stop":
                with pytest.raises(StopTimeout):
                    ref.stop(timeout=0)
            else:
                ref.kill()
            gates[1].open()
            with pytest.raises(ActorDead):
                never.result()
            assert system.wait(ref).reason == ExitReason(reason)


def test_what_fails_while_it_drains_ends_it(kind: type[Recorder]) -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, kind)
        ref.tell(Fail())
        ref.tell(Say("never"))
        drain(ref)
        gate.open()
        assert system.wait(ref).reason.error == "ValueError"
        assert system.dead_letters.total == 1


def test_one_that_leaves_while_it_drains_has_left(kind: type[Recorder]) -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, kind)
        ref.tell(Leave())
        ref.tell(Say("never"))
        drain(ref)
        gate.open()
        assert system.wait(ref).reason == ExitReason("normal")


def test_what_was_put_aside_is_handled_in_a_drain_and_once_only(kind: type[Recorder]) -> None:
    tries = list[str]()

    class Shy(kind):  # type: ignore[valid-type,misc]
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                tries.append(message.text)
                if len(tries) < 3 or message.text == "never ready":
                    self.stash()
                return message.text
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Shy)
        asked = ref.ask_future(Say("ready"), PATIENCE)
        told = ref.ask_future(Say("never ready"), PATIENCE)
        assert ref.ask(Seen()) == []
        ref.stop(drain=True)
        assert tries == ["ready", "never ready"] * 2
        assert asked.result() == "ready"
        with pytest.raises(ActorDead):
            told.result()


def test_what_it_tells_itself_while_it_drains_is_refused() -> None:
    class Endless(Recorder):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                self.ref.tell(Say(""))
                return None
            return super().on_receive(message)

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Endless)
        for _ in range(3):
            ref.tell(Say(""))
        drain(ref)
        gate.open()
        system.wait(ref)
        assert system.dead_letters.by_kind == {Say.__kind__: 3}


def test_a_long_drain_of_a_pooled_actor_does_not_starve_others() -> None:
    order, gate = list[str](), Gate()

    class Slow(Pooled):
        def on_receive(self, message: Message) -> Any:
            order.append("it")
            return super().on_receive(message)

    class Other(Pooled):
        def on_receive(self, message: Message) -> Any:
            order.append("other")
            return super().on_receive(message)

    with System(workers=1) as system:
        ref, other = busy(system, gate, Slow), system.start(Other)
        for _ in range(5000):
            ref.tell(Say(""))
        asked = other.ask_future(Say("x"), PATIENCE)
        drain(ref)
        gate.open()
        assert asked.result() == "x"
        system.wait(ref)
    assert 0 < order.index("other") < 4000


def test_children_end_after_the_drain_of_their_parent() -> None:
    log = list[str]()

    class Mother(Recorder):
        def on_start(self) -> None:
            self.kid = self.start_child(Recorder, None, self.log, name="kid")

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                self.log.append(self.kid.ask(message))
                return None
            return super().on_receive(message)

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Mother, log)
        ref.tell(Say("still here"))
        drain(ref)
        gate.open()
        system.wait(ref)
    assert log == [
        "kid started",
        "still here",
        "kid stopped (shutdown)",
        "busy stopped (shutdown)",
    ]


def test_a_subclass_that_orders_its_children_leaves_out_none() -> None:
    log = list[str]()

    class Mother(Recorder):
        def on_start(self) -> None:
            for name in "abc":
                self.start_child(Recorder, None, self.log, name=name)

        def stop_order(self) -> list[list[Any]]:
            return [[child] for child in self._life.cell.children if child.name == "a"]

    with System() as system:
        system.start(Mother, None, log, name="p").stop()
        assert system.tree() == "system main: 0 actors"
    assert [line.split()[0] for line in log[3:]] == ["c", "b", "a", "p"]


# --- kill -----------------------------------------------------------------------------------------


def test_a_killed_actor_is_reported_at_once_and_only_once_though_it_is_busy() -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        witness = system.start(Recorder)
        ref = system.start(Recorder, gate, log, name="stuck")
        system.monitor(ref, witness)
        asked = ref.ask_future(Hold(), PATIENCE)
        gate.wait_until_reached()
        queued = ref.ask_future(Say("later"), PATIENCE)
        ref.kill()
        for future in (asked, queued):
            with pytest.raises(ActorDead, match="stuck has ended"):
                future.result()
        assert witness.ask(Seen()) == ["Down stuck killed"]
        assert not ref.is_alive()
        assert log == ["stuck started"]
        gate.open()
        assert system.wait(ref).reason == ExitReason("killed")
        assert log == ["stuck started", "stuck stopped (killed)"]
        assert witness.ask(Seen()) == ["Down stuck killed"]


def test_what_a_killed_actor_still_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, StopsBadly)
        ref.kill()
        gate.open()
        assert system.wait(ref).reason.kind == "killed"
    (record,) = caplog.records
    assert record.getMessage().startswith("busy, after it was killed: LookupError")


def test_an_actor_that_is_killed_while_it_starts_has_not_started() -> None:
    gate, log, refs = Gate(), list[str](), list[Any]()

    class Slow(Recorder):
        def on_start(self) -> None:
            refs.append(self.ref)
            gate.pass_through()

    with System() as system:
        failures: list[StartFailed] = []

        def start() -> None:
            try:
                system.start(Slow, log=log, name="slow")
            except StartFailed as failure:
                failures.append(failure)

        starter = threading.Thread(target=start)
        starter.start()
        gate.wait_until_reached()
        refs[0].kill()
        starter.join()
        assert failures[0].reason == ExitReason("killed")
        gate.open()
    assert log == ["slow stopped (killed)"]  # its on_start has ended well, so there is what to free


# --- the system -----------------------------------------------------------------------------------


def test_the_system_stops_its_actors_in_reverse_order_and_can_be_stopped_twice() -> None:
    log: list[str] = []
    system = System()
    for name in "abc":
        system.start(Recorder, log=log, name=name)
    system.stop()
    system.stop()
    assert log[3:] == [f"{name} stopped (shutdown)" for name in "cba"]


def test_nothing_can_be_started_in_a_system_that_stops() -> None:
    system = System("done")
    system.stop()
    with pytest.raises(ActorError, match="done is stopping"):
        system.start(Actor)


def test_a_system_that_cannot_stop_in_time_names_who_is_stuck() -> None:
    gate, log = Gate(), list[str]()
    system = System(stop_timeout=0.05)
    system.start(Recorder, log=log, name="fine")
    busy(system, gate)
    with pytest.raises(StopTimeout, match=r"still running after 0\.05 s: busy$"):
        system.stop()
    assert log[1].startswith("fine stopped")
    gate.open()
    system.stop()


def test_an_actor_cannot_stop_the_system_that_it_runs_in() -> None:
    class Rebel(Patient):
        def on_receive(self, message: Message) -> Any:
            self.system.stop()

    with System() as system, pytest.raises(RemoteActorError, match="cannot stop the system"):
        system.start(Rebel).ask(Say(""))


def test_wait_has_a_deadline_and_cannot_be_used_from_inside() -> None:
    class Waiter(Patient):
        def on_receive(self, message: Message) -> Any:
            self.system.wait(self.ref)

    with System() as system:
        ref = system.start(Waiter)
        with pytest.raises(StopTimeout):
            system.wait(ref, 0.01)
        with pytest.raises(RemoteActorError, match="waited for from inside"):
            ref.ask(Say(""))


def test_a_monitor_of_an_actor_that_has_ended_hears_of_it_at_once() -> None:
    with System() as system:
        witness = system.start(Recorder)
        ref = system.start(Recorder, name="gone")
        ref.stop()
        system.monitor(ref, witness)
        assert witness.ask(Seen()) == ["Down gone shutdown"]


def test_monitors_belong_to_one_system() -> None:
    with System() as one, System() as other, pytest.raises(ActorError, match="another system"):
        one.monitor(one.start(Actor), other.start(Actor))


def test_a_report_that_nobody_can_read_any_more_is_a_dead_letter() -> None:
    with System() as system:
        witness, ref = system.start(Recorder), system.start(Recorder)
        system.monitor(ref, witness)
        witness.stop()
        ref.stop()
        assert system.dead_letters.by_kind == {Down.__kind__: 1}


def test_references_are_equal_if_they_mean_the_same_actor() -> None:
    with System() as system:
        one, other = system.start(Recorder, name="x"), system.start(Recorder, name="x")
        assert one == one.ask(WhoAreYou())
        assert len({one, one.ask(WhoAreYou()), other}) == 2
        assert one != "x"
        assert (one.name, repr(one)) == ("x", "<Ref x>")


def test_the_clock_is_the_systems() -> None:
    with System(clock=lambda: 42.0) as system:
        assert system.now() == 42.0
