"""Pooled actors: they share a few threads, and whoever asks one that rests runs it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors import (
    Actor,
    ActorDead,
    AskTimeout,
    ExitReason,
    Message,
    Ref,
    RemoteActorError,
    Reply,
    Shutdown,
    StartFailed,
    StopTimeout,
    System,
    WouldBlock,
)
from actors.life import Life
from actors.mailbox import Mailbox
from actors.threads import Threads
from tests.actors.parts import (
    ERRORS,
    PATIENCE,
    Clock,
    Do,
    Doer,
    Fail,
    Gate,
    Hold,
    Leave,
    Patient,
    Pooled,
    PooledDoer,
    Recorder,
    Say,
    Seen,
    busy,
)

FOREVER = float("inf")


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns far more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class PooledPatient(Patient):
    pooled = True


def thread_name(*_: Any) -> str:
    return threading.current_thread().name


def is_worker(name: str) -> bool:
    return name.startswith("actors-") and name != "actors-alarm"


# --- one at a time, in order ----------------------------------------------------------------------


def test_messages_of_many_threads_are_handled_one_at_a_time_in_the_order_of_each_sender(
    hasty_threads: None,
) -> None:
    crowd, each = 4, 300
    inside, seen = [0], list[tuple[int, int]]()

    def take(it: PooledDoer, value: Any) -> None:
        inside[0] += 1
        assert inside[0] == 1
        seen.append(tuple(value))
        inside[0] -= 1

    def shout(ref: Ref, number: int, ready: threading.Barrier) -> None:
        ready.wait()
        for count in range(each):
            if count % 10 == number:
                ref.ask(Do([number, count]), FOREVER)
            else:
                ref.tell(Do([number, count]))

    with System() as system:
        ref = system.start(PooledDoer, take)
        ready = threading.Barrier(crowd)
        threads = [
            threading.Thread(target=shout, args=(ref, number, ready)) for number in range(crowd)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ref.stop(drain=True)
        for number in range(crowd):
            assert [count for who, count in seen if who == number] == list(range(each))
        assert len(seen) == crowd * each


def test_control_comes_before_data_for_a_pooled_actor_too() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Pooled)
        ref.tell(Say("data"))
        ref.tell(Say("control"), control=True)
        gate.open()
        assert ref.ask(Seen()) == ["control", "data"]


def test_a_thousand_of_them_share_a_few_threads_and_one_clock() -> None:
    count, done = 1000, threading.Event()
    left = set(range(count))

    class Sleepy(Actor):
        pooled = True

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def on_start(self) -> None:
            self.after(0.001 * (self.number % 50), Do())

        def on_receive(self, message: Message) -> None:
            left.discard(self.number)
            if not left:
                done.set()

    before = threading.active_count()
    with System(workers=3) as system:
        for number in range(count):
            system.start(Sleepy, number)
        assert done.wait(PATIENCE)
        assert threading.active_count() - before <= 3 + 1
    assert threading.active_count() == before


def test_one_that_has_ended_is_not_kept_for_the_timers_that_it_had() -> None:
    class Sleepy(Pooled):
        def on_start(self) -> None:
            self.after(3600, Do())

    with System() as system:
        ref = system.start(Sleepy)
        ref.stop()
        cell = weakref.ref(ref.cell)
        del ref
        gc.collect()
        assert cell() is None


def test_one_that_always_has_something_to_do_starves_nobody() -> None:
    class Endless(Pooled):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                self.ref.tell(Do())
                return None
            return super().on_receive(message)

    with System(workers=1) as system:
        endless = system.start(Endless)
        endless.tell(Do())
        for _ in range(3):
            other = system.start(Pooled)
            assert other.ask_future(Say("x"), FOREVER).result() == "x"
            assert endless.ask(Say("y"), FOREVER) == "y"


def test_whoever_asks_one_that_has_much_to_do_gets_its_thread_back() -> None:
    """The asker works for its own answer, and leaves the rest of the work to the pool."""
    names, done = list[str](), threading.Event()

    class Chain(Pooled):
        def on_receive(self, message: Message) -> Any:
            assert isinstance(message, Do)
            names.append(thread_name())
            if message.value:
                self.ref.tell(Do(message.value - 1))
            else:
                done.set()
            return "done"

    with System() as system:
        assert system.start(Chain).ask(Do(1000), FOREVER) == "done"
        assert done.wait(PATIENCE)
    assert names[0] == thread_name()
    assert is_worker(names[-1])
    assert names.count(thread_name()) < 100


def test_a_pool_has_at_least_one_thread() -> None:
    with pytest.raises(ValueError, match="at least one thread, not 0"):
        System(workers=0)


def test_a_pooled_actor_cannot_watch_descriptors() -> None:
    read, write = os.pipe()
    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.watch(read, print), name="it")
        with pytest.raises(RemoteActorError, match="it cannot wait for descriptors"):
            ref.ask(Do())
    os.close(read)
    os.close(write)


# --- whoever asks, runs it ------------------------------------------------------------------------


def test_one_that_rests_runs_in_the_thread_of_whoever_asks_and_else_in_the_pool() -> None:
    gate = Gate()

    def where(it: PooledDoer, hold: Any) -> str:
        if hold:
            gate.pass_through()
        return thread_name()

    with System() as system:
        ref = system.start(PooledDoer, where)
        assert ref.ask(Do()) == thread_name()
        asker = system.start(Doer, lambda it, _: ref.ask(Do()), name="asker")
        assert asker.ask(Do()) == "asker"
        held = ref.ask_future(Do(True), FOREVER)
        gate.wait_until_reached()
        queued = ref.ask_future(Do(), FOREVER)
        gate.open()
        assert is_worker(held.result())
        assert is_worker(queued.result())


def test_the_asker_is_the_sender_though_it_runs_the_actor_itself() -> None:
    def relay(it: PooledDoer, to: Any) -> Any:
        before = it.sender
        if to is not None:
            to.tell(Do())
        return before

    with System() as system:
        last = system.start(PooledDoer, lambda it, _: it.seen.append(it.sender.name))
        ref = system.start(PooledDoer, relay, name="relay")
        asker = system.start(Doer, lambda it, _: [ref.ask(Do(last)), it.name], name="asker")
        assert ref.ask(Do()) is None
        assert asker.ask(Do()) == [asker, "asker"]
        assert last.ask(Seen()) == ["relay"]


@pytest.mark.parametrize("error", [name for name in ERRORS if name != "KeyboardInterrupt"])
def test_an_error_while_the_asker_runs_it_is_that_actors(error: str) -> None:
    with System() as system:
        ref = system.start(Pooled, name="it")
        with pytest.raises(RemoteActorError, match=f"it failed: {error}: broken") as failed:
            ref.ask(Fail(error))
        assert isinstance(failed.value.__cause__, ERRORS[error])
        assert system.wait(ref).reason.error == error


def test_an_error_in_answering_may_leave_it_alive() -> None:
    with System() as system:
        ref = system.start(PooledPatient)
        with pytest.raises(RemoteActorError, match="ValueError"):
            ref.ask(Fail())
        assert ref.ask(Say("on")) == "on"


def test_killed_in_the_middle_by_itself_the_asker_is_told() -> None:
    log = list[str]()

    class Tired(Pooled):
        def on_receive(self, message: Message) -> str:
            self.ref.kill()
            return "too late"

    with System() as system:
        ref = system.start(Tired, log=log, name="it")
        with pytest.raises(ActorDead, match="it has ended"):
            ref.ask(Say(""), FOREVER)
        assert system.wait(ref).reason == ExitReason("killed")
        assert system.dead_letters.by_kind == {"reply": 1}
    assert log == ["it started", "it stopped (killed)"]


def test_killed_while_another_thread_runs_it_for_its_answer() -> None:
    gate, errors, log = Gate(), list[Exception](), list[str]()

    def ask() -> None:
        with pytest.raises(ActorDead) as failed:
            ref.ask(Hold(), FOREVER)
        errors.append(failed.value)

    with System() as system:
        ref = system.start(Pooled, gate, log, name="it")
        asker = threading.Thread(target=ask)
        asker.start()
        gate.wait_until_reached()
        queued = ref.ask_future(Say("queued"), FOREVER)
        ref.kill()
        with pytest.raises(ActorDead):
            queued.result()
        assert log == ["it started"]
        gate.open()
        asker.join()
        assert len(errors) == 1
        assert system.wait(ref).reason == ExitReason("killed")
    assert log == ["it started", "it stopped (killed)"]


def test_an_answer_that_the_asker_has_worked_for_is_not_too_late() -> None:
    clock = Clock()

    def dawdle(it: PooledDoer, _: Any) -> str:
        clock.now += 100
        return "done"

    with System(clock=clock) as system:
        assert system.start(PooledDoer, dawdle).ask(Do(), timeout=1) == "done"


def test_an_answer_that_is_put_off_has_the_deadline_of_the_ask() -> None:
    kept = list[Reply]()
    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: kept.append(it.reply_later()), name="it")
        with pytest.raises(AskTimeout, match="it did not answer in time"):
            ref.ask(Do(), timeout=0.01)
        assert not kept[0].wanted
        kept[0].send("late")
        assert system.dead_letters.by_kind == {"reply": 1}


def test_one_that_is_busy_has_until_the_deadline() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Pooled)
        with pytest.raises(AskTimeout, match="busy did not answer in time"):
            ref.ask(Say("x"), timeout=0.01)
        gate.open()
        assert ref.ask(Say("y"), FOREVER) == "y"


@pytest.mark.parametrize("end", ["stop", "kill", "Fail"])
def test_no_ask_that_races_the_end_of_a_pooled_actor_stays_unanswered(
    end: str, hasty_threads: None
) -> None:
    rounds, crowd = 40, 3

    def pester(ref: Ref, ready: threading.Barrier, ends: list[str]) -> None:
        ready.wait()
        while True:
            try:
                assert ref.ask(Say("x"), FOREVER) == "x"
            except ActorDead as error:
                ends.append(type(error).__name__)
                return

    with System() as system:
        for _ in range(rounds):
            ref = system.start(Pooled)
            ready, ends = threading.Barrier(crowd + 1), list[str]()
            threads = [
                threading.Thread(target=pester, args=(ref, ready, ends)) for _ in range(crowd)
            ]
            for thread in threads:
                thread.start()
            ready.wait()
            if end == "Fail":
                ref.tell(Fail())
            else:
                getattr(ref, end)()
            for thread in threads:
                thread.join()
            assert ends == ["ActorDead"] * crowd
            system.wait(ref)


# --- Ctrl-C ---------------------------------------------------------------------------------------


def test_an_interrupt_of_the_main_thread_ends_the_actor_and_goes_on_to_the_asker() -> None:
    with System() as system:
        ref = system.start(Pooled)
        other = system.start(Pooled)
        with pytest.raises(KeyboardInterrupt, match="broken"):
            ref.ask(Fail("KeyboardInterrupt"))
        assert system.wait(ref).reason.error == "KeyboardInterrupt"
        assert other.ask(Say("x")) == "x"


@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [
        (Mailbox, "put", True),
        (Threads, "lend", False),
        (Threads, "_run", False),
        (Life, "step", False),
        (Life, "step", True),
        (Life, "rest", False),
        (Life, "rest", True),
    ],
)
def test_an_interrupt_between_two_steps_loses_nothing(
    owner: type, method: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come anywhere, also where no actor is being run just then."""
    original, main, hits = getattr(owner, method), threading.main_thread(), list[str]()

    def interrupted(*args: Any) -> Any:
        if threading.current_thread() is not main or hits:
            return original(*args)
        hits.append(method)
        if after:
            original(*args)
        raise KeyboardInterrupt

    with System() as system:
        ref = system.start(Pooled)
        monkeypatch.setattr(owner, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ref.ask(Say("a"))
        assert hits == [method]
        assert ref.ask(Say("b"), FOREVER) == "b"
        assert ref.ask(Seen()) == ["a", "b"]


@pytest.mark.parametrize(("method", "after"), [("step", True), ("rest", False)])
def test_an_actor_whose_birth_was_interrupted_ends_with_its_system(
    method: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, hits = getattr(Life, method), list[str]()

    def interrupted(self: Life) -> Any:
        if hits:
            return original(self)
        hits.append(method)
        if after:
            original(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Life, method, interrupted)
    with System(stop_timeout=PATIENCE / 2) as system, pytest.raises(KeyboardInterrupt):
        system.start(Pooled)


def test_an_interrupt_of_the_end_does_not_end_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    dismiss, hits = Life._dismiss, list[str]()

    def interrupted(self: Life, child: Any) -> float:
        if not hits:
            hits.append(child.name)
            raise KeyboardInterrupt
        return dismiss(self, child)

    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.begin_child(Pooled), name="it")
        kids = [ref.ask(Do()) for _ in range(2)]
        monkeypatch.setattr(Life, "_dismiss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ref.stop()
        assert system.wait(ref, PATIENCE).reason == ExitReason("shutdown")
        assert [kid.is_alive() for kid in kids] == [False, False]


class Interrupted(Pooled):
    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def on_start(self) -> None:
        if self.when == "on_start":
            raise KeyboardInterrupt("^C")

    def on_stop(self) -> None:
        if self.when == "on_stop":
            raise KeyboardInterrupt("^C")


def test_an_interrupt_that_hits_a_birth_goes_on_to_the_one_who_starts_it() -> None:
    with System() as system:
        with pytest.raises(KeyboardInterrupt, match=r"\^C"):
            system.start(Interrupted, "on_start")
        assert system.tree() == "system main: 0 actors"


def test_an_interrupt_that_hits_an_end_goes_on_to_the_one_who_stops_it() -> None:
    with System() as system:
        ref = system.start(Interrupted, "on_stop")
        with pytest.raises(KeyboardInterrupt, match=r"\^C"):
            ref.stop()
        assert system.wait(ref).reason.error == "KeyboardInterrupt"


def test_an_interrupt_that_hits_a_child_ends_the_child_and_not_its_parent() -> None:
    with System() as system:
        ref = system.start(
            PooledDoer, lambda it, _: it.begin_child(Interrupted, "on_start", name="kid")
        )
        with pytest.raises(KeyboardInterrupt, match=r"\^C"):
            ref.ask(Do())
        assert ref.ask(Seen()) == ["Exit kid KeyboardInterrupt: ^C"]


def test_an_interrupt_that_is_raised_in_another_thread_is_an_error_of_the_actor() -> None:
    with System() as system:
        ref = system.start(Pooled)

        def ask(it: Doer, _: Any) -> str:
            with pytest.raises(RemoteActorError) as failed:
                ref.ask(Fail("KeyboardInterrupt"))
            return failed.value.error

        assert system.start(Doer, ask).ask(Do()) == "KeyboardInterrupt"
        assert system.wait(ref).reason.error == "KeyboardInterrupt"
        assert system.start(Pooled).ask(Say("x")) == "x"


def test_an_interrupt_in_a_plain_thread_is_an_error_of_the_actor_too() -> None:
    errors = list[str]()

    def ask() -> None:
        with pytest.raises(RemoteActorError) as failed:
            ref.ask(Fail("KeyboardInterrupt"))
        errors.append(failed.value.error)

    with System() as system:
        ref = system.start(Pooled)
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert errors == ["KeyboardInterrupt"]


# --- what would block -----------------------------------------------------------------------------


def _ask(it: Doer, other: Ref) -> None:
    other.ask(Say("x"))


def _result(it: Doer, other: Ref) -> None:
    other.ask_future(Hold()).result()


def _pykka_get(it: Doer, other: Ref) -> None:
    other.ask_future(Hold()).get(timeout=1)


def _start_child(it: Doer, other: Ref) -> None:
    it.start_child(Recorder)


def _start(it: Doer, other: Ref) -> None:
    it.system.start(Recorder)


def _stop(it: Doer, other: Ref) -> None:
    other.stop()


def _wait(it: Doer, other: Ref) -> None:
    it.system.wait(other)


WAITS = [_ask, _result, _pykka_get, _start_child, _start, _stop, _wait]


@pytest.mark.parametrize("waits", WAITS)
@pytest.mark.parametrize("other_class", [Recorder, Pooled])
def test_a_pooled_actor_that_would_wait_is_told_so_and_nobody_else_is_hurt(
    waits: Callable[[Doer, Ref], None], other_class: type[Recorder]
) -> None:
    gate = Gate()
    with System() as system:
        other = busy(system, gate, other_class)
        ref = system.start(PooledDoer, waits, name="it")
        before = system.tree().splitlines()[0]
        with pytest.raises(RemoteActorError, match=r"it .*, and would wait") as failed:
            ref.ask(Do(other))
        assert isinstance(failed.value.__cause__, WouldBlock)
        assert "set `pooled = False` on PooledDoer" in failed.value.text
        assert system.tree().splitlines()[0] == before  # nothing was begun that was not wanted
        assert ref.ask(Seen()) == []
        gate.open()
        assert other.ask(Say("here"), FOREVER) == "here"


@pytest.mark.parametrize("waits", [_ask, _start_child, _start, _stop])
def test_it_does_not_depend_on_whether_there_is_something_to_wait_for(
    waits: Callable[[Doer, Ref], None],
) -> None:
    with System() as system:
        other = system.start(Pooled)
        ref = system.start(PooledDoer, waits)
        with pytest.raises(RemoteActorError, match="WouldBlock"):
            ref.ask(Do(other))
        assert other.is_alive()


def test_what_is_there_already_can_be_had_without_waiting() -> None:
    with System() as system:
        gone = system.start(Recorder)
        gone.stop()
        ready = system.start(Recorder).ask_future(Say("x"))
        ready.result()
        ref = system.start(PooledDoer, lambda it, _: ready.result())
        assert ref.ask(Do()) == "x"
        ref = system.start(PooledDoer, lambda it, _: it.system.wait(gone).reason.kind)
        assert ref.ask(Do()) == "shutdown"


def test_unless_it_is_handled_it_ends_the_actor_that_would_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Naive(Pooled):
        def on_receive(self, message: Message) -> Any:
            return self.system.start(Recorder)

    with System() as system:
        ref = system.start(Naive, name="naive")
        ref.tell(Say(""))
        assert system.wait(ref).reason.error == "WouldBlock"
    assert "naive has failed: WouldBlock: naive starts " in caplog.text


def test_a_pooled_child_that_puts_its_birth_off_cannot_be_waited_for_and_is_given_up() -> None:
    class Late(Pooled):
        def on_start(self) -> None:
            self.start_later()

    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.start_child(Late, name="late"), name="it")
        with pytest.raises(RemoteActorError, match="it waits for the start of late"):
            ref.ask(Do())
        assert "late" not in system.tree()
        assert ref.ask(Seen()) == []


# --- children -------------------------------------------------------------------------------------


class Family(PooledDoer):
    """Has two pooled children and two with threads, begun in that order."""

    def __init__(self, log: list[str], gate: Gate | None = None, shutdown: float = 5.0) -> None:
        super().__init__(lambda it, _: None, gate)
        self.log = log
        self.shutdown = shutdown

    def on_start(self) -> None:
        super().on_start()
        kinds: list[type[Recorder]] = [Pooled, Recorder, Pooled, Recorder]
        for name, kind in zip("abcd", kinds, strict=True):
            self.begin_child(kind, self.gate, self.log, name=name, shutdown=self.shutdown)


def family(system: System, ref: Ref) -> list[str]:
    """The four are born when their parent has heard of it."""
    while len(seen := ref.ask(Seen())) < 4:
        pass
    return sorted(seen)


@pytest.mark.parametrize("end", ["stop", "Leave", "Fail"])
def test_the_children_of_a_pooled_actor_end_in_reverse_order_before_it(end: str) -> None:
    log = list[str]()
    with System() as system:
        ref = system.start(Family, log, name="p")
        assert family(system, ref) == [f"Started {name}" for name in "abcd"]
        if end == "stop":
            ref.stop()
        else:
            ref.tell({"Fail": Fail(), "Leave": Leave()}[end])
            system.wait(ref)
        assert [line.split()[0] for line in log[5:]] == ["d", "c", "b", "a", "p"]
        assert system.dead_letters.total == 0


@pytest.mark.parametrize("kind", [Pooled, Recorder])
def test_a_child_that_does_not_end_in_its_time_is_killed_when_the_time_has_come(
    kind: type[Recorder],
) -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        ref = system.start(
            PooledDoer,
            lambda it, _: it.begin_child(kind, gate, log, name="kid", shutdown=0.02),
            name="p",
        )
        kid: Ref = ref.ask(Do())
        kid.tell(Hold())
        gate.wait_until_reached()
        ref.stop()
        assert system.wait(ref).reason == ExitReason("shutdown")
        with pytest.raises(StopTimeout):
            system.wait(kid, 0)
        gate.open()
        assert system.wait(kid).reason == ExitReason("killed")


def test_a_child_without_time_is_killed_at_once() -> None:
    gate = Gate()
    with System() as system:
        ref = system.start(
            PooledDoer, lambda it, _: it.begin_child(Pooled, gate, name="kid", shutdown=0)
        )
        kid: Ref = ref.ask(Do())
        kid.tell(Hold())
        gate.wait_until_reached()
        ref.stop()
        gate.open()
        assert system.wait(kid).reason == ExitReason("killed")


def test_killing_a_busy_pooled_parent_ends_its_children() -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        ref = system.start(Family, log, gate, name="p")
        family(system, ref)
        ref.tell(Hold())
        gate.wait_until_reached()
        ref.kill()
        assert not ref.is_alive()
        gate.open()
        assert system.wait(ref).reason == ExitReason("killed")
    assert log[-1] == "p stopped (killed)"
    assert sorted(log[5:-1]) == [f"{name} stopped (shutdown)" for name in "abcd"]


def test_a_pooled_child_is_born_where_its_parent_runs() -> None:
    names = list[str]()

    class Kid(Pooled):
        def on_start(self) -> None:
            names.append(thread_name())

    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.start_child(Kid))
        ref.ask(Do())
        assert names == [thread_name()]
        ref.ask_future(Do()).result()
        assert is_worker(names[1])


# --- children that are begun ----------------------------------------------------------------------


class FailsToStart(Recorder):
    def on_start(self) -> None:
        raise OSError(5, "no luck")


class FailsToBeMade(Recorder):
    def __init__(self) -> None:
        super().__init__()
        raise OSError(5, "no luck")


class PooledFailsToStart(FailsToStart):
    pooled = True


class PooledFailsToBeMade(FailsToBeMade):
    pooled = True


@pytest.mark.parametrize("mother", [Doer, PooledDoer])
@pytest.mark.parametrize("kind", [Recorder, Pooled])
def test_a_child_that_is_begun_is_announced_once_and_its_end_once(
    mother: type[Doer], kind: type[Recorder]
) -> None:
    with System() as system:
        ref = system.start(mother, lambda it, _: it.begin_child(kind, name="kid"))
        kid: Ref = ref.ask(Do())
        kid.ask(Say("x"))
        kid.stop()
        assert ref.ask(Seen()) == ["Started kid", "Exit kid shutdown"]


@pytest.mark.parametrize("mother", [Doer, PooledDoer])
@pytest.mark.parametrize(
    "kind", [FailsToStart, FailsToBeMade, PooledFailsToStart, PooledFailsToBeMade]
)
def test_a_child_that_is_begun_and_cannot_start_is_one_exit(
    mother: type[Doer], kind: type[Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    with System() as system:
        ref = system.start(mother, lambda it, _: it.begin_child(kind, name="kid"))
        system.wait(ref.ask(Do()))
        assert ref.ask(Seen()) == ["Exit kid OSError: [Errno 5] no luck"]
    assert caplog.text == ""  # who is told by a message decides what to say


def test_a_child_that_is_killed_while_it_starts_is_one_exit() -> None:
    gate = Gate()

    class Slow(Recorder):
        def on_start(self) -> None:
            gate.pass_through()

    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.begin_child(Slow, name="kid"))
        kid: Ref = ref.ask(Do())
        gate.wait_until_reached()
        kid.kill()
        gate.open()
        system.wait(kid)
        assert ref.ask(Seen()) == ["Exit kid killed"]


def test_where_no_thread_can_be_had_the_start_fails_and_nothing_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "kid":
            raise RuntimeError("can't start new thread")
        start(thread)

    class Async(Recorder):
        uses_loop = True

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with System() as system:
        for kind in (Recorder, Async):
            with pytest.raises(StartFailed, match="can't start new thread"):
                system.start(kind, name="kid")
        ref = system.start(PooledDoer, lambda it, _: it.begin_child(Recorder, name="kid"))
        with pytest.raises(RemoteActorError, match="kid could not start") as failed:
            ref.ask(Do())
        assert isinstance(failed.value.__cause__, StartFailed)
        assert ref.ask(Seen()) == []


# --- born later -----------------------------------------------------------------------------------


class Late(Recorder):
    """Is born when `Do` comes by the control lane."""

    def on_start(self) -> None:
        super().on_start()
        self.start_later()

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Do):
            self.seen.append("born")
            self.has_started()
            self.has_started()
            return None
        return super().on_receive(message)


class PooledLate(Late):
    pooled = True


@pytest.mark.parametrize("kind", [Late, PooledLate])
def test_one_that_puts_its_birth_off_takes_control_but_no_data_before(kind: type[Late]) -> None:
    with System() as system:
        ref = system.start(Doer, lambda it, _: it.begin_child(kind, name="kid"))
        kid: Ref = ref.ask(Do())
        asked = kid.ask_future(Say("data"), FOREVER)
        kid.tell(Say("control"), control=True)
        kid.tell(Do(), control=True)
        assert asked.result() == "data"
        assert kid.ask(Seen()) == ["control", "born", "data"]
        assert ref.ask(Seen()) == ["Started kid"]


@pytest.mark.parametrize("pooled", [False, True])
def test_whoever_starts_it_waits_until_it_says_so(pooled: bool) -> None:
    class Timed(Late):
        def on_start(self) -> None:
            super().on_start()
            self.after(0.01, Do())

    class PooledTimed(Timed):
        pooled = True

    with System() as system:
        ref = system.start(PooledTimed if pooled else Timed)
        assert ref.ask(Seen()) == ["born"]


@pytest.mark.parametrize("kind", [Late, PooledLate])
@pytest.mark.parametrize(
    ("message", "text"),
    [(Leave(), "normal"), (Shutdown(), "shutdown"), (Fail(), "ValueError: broken")],
    ids=["exit", "stop", "error"],
)
def test_one_that_ends_before_it_was_born_has_failed_to_start(
    kind: type[Late], message: Message, text: str
) -> None:
    log = list[str]()
    with System() as system:
        ref = system.start(Doer, lambda it, _: it.begin_child(kind, None, log, name="kid"))
        kid: Ref = ref.ask(Do())
        asked = kid.ask_future(Say("data"), FOREVER)
        kid.tell(message, control=True)
        with pytest.raises(ActorDead):
            asked.result()
        system.wait(kid)
        assert ref.ask(Seen()) == [f"Exit kid {text}"]
    assert log == ["kid started"]


def test_it_may_say_so_in_on_start_already_and_is_born_once() -> None:
    class Early(Recorder):
        def on_start(self) -> None:
            self.has_started()
            self.has_started()

    with System() as system:
        ref = system.start(Doer, lambda it, _: it.begin_child(Early, name="kid"))
        kid: Ref = ref.ask(Do())
        kid.stop()
        assert ref.ask(Seen()) == ["Started kid", "Exit kid shutdown"]


def test_start_later_is_for_on_start() -> None:
    with System() as system:
        ref = system.start(Doer, lambda it, _: it.start_later())
        with pytest.raises(RemoteActorError, match="start_later is for on_start"):
            ref.ask(Do())


# --- the end of the pool --------------------------------------------------------------------------


def test_the_workers_end_with_their_system() -> None:
    before = set(threading.enumerate())
    system = System(workers=4)
    gates = [Gate() for _ in range(4)]
    for gate in gates:
        system.start(Pooled, gate).tell(Hold())
    for gate in gates:
        gate.wait_until_reached()
    mine = {thread.name for thread in set(threading.enumerate()) - before}
    assert mine == {f"actors-{number}" for number in range(4)}
    for gate in gates:
        gate.open()
    system.stop()
    assert set(threading.enumerate()) == before


def test_a_thread_that_still_runs_a_supervisor_ends_with_its_system_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing, (bequeath, close) = threading.Event(), (Threads._bequeath, Threads.close)

    def bequeath_late(self: Threads, cell: Any) -> Any:
        runs_supervisor = cell._parent_is_claimed
        try:
            return bequeath(self, cell)
        finally:
            if runs_supervisor:
                assert closing.wait(PATIENCE)
                threading.Event().wait(0.02)  # still alive when nobody else is

    def close_early(self: Threads) -> list[str]:
        closing.set()
        return close(self)

    monkeypatch.setattr(Threads, "_bequeath", bequeath_late)
    monkeypatch.setattr(Threads, "close", close_early)
    before = set(threading.enumerate())
    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.begin_child(Recorder, name="kid"))
        kid: Ref = ref.ask(Do())
        kid.ask(Say("it is born"))
        ref.ask(Say("and its parent has heard of it"))
        kid.tell(Fail())
        system.wait(kid)
    assert set(threading.enumerate()) == before


def test_a_thread_that_is_just_about_to_end_ends_with_its_system_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bequeath = Threads._bequeath

    def bequeath_late(self: Threads, cell: Any) -> Any:
        threading.Event().wait(0.02)
        return bequeath(self, cell)

    monkeypatch.setattr(Threads, "_bequeath", bequeath_late)
    before = set(threading.enumerate())
    with System() as system:
        ref, ended = system.start(Recorder), Recorder._create_future()
        ref.cell.add_stopper(ended)
        ref.tell(Leave())
        ended.result()
    assert set(threading.enumerate()) == before


def test_a_system_without_pooled_actors_has_no_pool() -> None:
    with System() as system:
        before = threading.active_count()
        system.start(Recorder).stop()
        assert threading.active_count() == before


class HangsAtItsEnd(Pooled):
    def on_stop(self) -> None:
        assert self.gate is not None
        self.gate.pass_through()


def test_a_stop_has_its_deadline_though_the_end_hangs() -> None:
    gate = Gate()
    with System() as system:
        ref = system.start(HangsAtItsEnd, gate, name="it")
        with pytest.raises(StopTimeout, match=r"it has not ended within 0\.01 s"):
            ref.stop(timeout=0.01)
        gate.open()
        assert system.wait(ref).reason == ExitReason("shutdown")


def test_one_that_hangs_at_its_end_does_not_hang_its_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("system", "threads"):
        monkeypatch.setattr(f"actors.{module}._GRACE", 0.05)
    gate = Gate()
    system = System(stop_timeout=0.05)
    system.start(HangsAtItsEnd, gate, name="it")
    with pytest.raises(StopTimeout, match=r"still running after 0\.05 s: it, actors-0$"):
        system.stop()
    gate.open()
    system.stop()


def test_a_worker_that_hangs_in_a_handler_is_named_when_the_system_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("system", "threads"):
        monkeypatch.setattr(f"actors.{module}._GRACE", 0.05)
    work = Threads._work

    def work_and_tarry(self: Threads) -> None:
        work(self)
        threading.Event().wait(0.02)

    monkeypatch.setattr(Threads, "_work", work_and_tarry)
    before, gate = set(threading.enumerate()), Gate()
    system = System(stop_timeout=0.05)
    busy(system, gate, Pooled)
    with pytest.raises(StopTimeout, match=r"still running after 0\.05 s: busy, actors-0$"):
        system.stop()
    gate.open()
    system.stop()
    assert set(threading.enumerate()) == before
