"""The simulated runtime: what runs under it, what time is there, and what ends a run."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
from typing import Any, ClassVar

import pytest

from actors import (
    Actor,
    ActorDead,
    ActorError,
    AskTimeout,
    Backoff,
    ChildSpec,
    Choices,
    Deadlock,
    MailboxFull,
    Message,
    NotSettled,
    Ref,
    RemoteActorError,
    Scheduler,
    StopTimeout,
    Supervisor,
    System,
)
from tests.simulation.programs import (
    Coroutine,
    Fail,
    Hide,
    Leave,
    Pass,
    Pooled,
    Recorder,
    Say,
    Seen,
    Ticker,
)

KINDS = [Recorder, Pooled, Coroutine]


def simulation(system: System) -> Scheduler:
    assert system.simulation is not None
    return system.simulation


def chatter(seed: int) -> Scheduler:
    """Two actors tell a third one something; which run it was."""
    with System(simulation=seed) as system:
        ear = system.start(Recorder, name="ear")
        for name in "ab":
            system.start(Ticker, 1.0, ear, name=name)
        simulation(system).advance(3.0)
        assert sorted(ear.ask(Seen())) == ["tick"] * 6
        return simulation(system)


# --- a run is its choices -------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_trace_and_the_same_choices() -> None:
    first, second = chatter(7), chatter(7)
    assert first.trace.text() == second.trace.text()
    assert first.choices.recorded == second.choices.recorded


def test_other_seeds_give_other_runs() -> None:
    assert len({chatter(seed).trace.text() for seed in range(20)}) > 15


def test_what_the_test_chooses_is_of_the_same_stream() -> None:
    def run(choices: Choices) -> list[int]:
        with System(simulation=Scheduler(choices)) as system:
            return [simulation(system).choose(1000) for _ in range(3)]

    first = Choices.seeded(3)
    chosen = run(first)
    assert first.recorded[:3] == chosen
    assert run(Choices.replayed(first.recorded)) == chosen


def test_a_simulation_is_of_one_system() -> None:
    scheduler = Scheduler(1)
    with System(simulation=scheduler), pytest.raises(ActorError, match="one system"):
        System(simulation=scheduler)


# --- what runs there ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_actors_of_every_kind_are_told_and_asked(kind: type[Recorder]) -> None:
    with System(simulation=0) as system:
        ref = system.start(kind)
        for text in "abc":
            ref.tell(Say(text))
        assert ref.ask(Say("d")) == "d"
        assert ref.ask(Seen()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("last", KINDS)
@pytest.mark.parametrize("middle", [Recorder, Coroutine])
@pytest.mark.parametrize("seed", range(3))
def test_actors_ask_actors(middle: type[Recorder], last: type[Recorder], seed: int) -> None:
    with System(simulation=seed) as system:
        a = system.start(middle, name="a")
        b = system.start(middle, name="b")
        c = system.start(last, name="c")
        askers = [a.ask_future(Pass([b, c])) for _ in range(3)]
        assert [asker.result() for asker in askers] == [["a", "b", "c"]] * 3


def test_a_pooled_actor_does_not_ask() -> None:
    with System(simulation=0) as system:
        a, b = system.start(Pooled), system.start(Pooled)
        with pytest.raises(RemoteActorError, match="WouldBlock"):
            a.ask(Pass([b]))


class Sleepers(Actor):
    """Answers which of three coroutines was the first to end, and when."""

    async def on_receive(self, message: Message) -> list[Any]:
        async def sleep(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        waits = [asyncio.create_task(sleep(seconds)) for seconds in (3600.0, 60.0, 1800.0)]
        done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        return [*(task.result() for task in done), self.system.now()]


def test_coroutines_sleep_in_virtual_time() -> None:
    with System(simulation=0) as system:
        assert system.start(Sleepers).ask(Seen(), timeout=100) == [60.0, 60.0]


class Outside(Actor):
    """Waits for something that is in no simulation."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    async def on_receive(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        match self.what:
            case "a thread":
                await asyncio.to_thread(int)
            case "a descriptor":
                loop.add_reader(0, int)
            case _:
                await asyncio.open_connection("localhost", 1)


@pytest.mark.parametrize("what", ["a thread", "a descriptor", "a connection"])
def test_coroutines_wait_for_nothing_outside(what: str) -> None:
    with System(simulation=0) as system:
        outside = system.start(Outside, what)
        with pytest.raises(RemoteActorError, match="a simulation has no threads or descriptors"):
            outside.ask(Seen())


class Crowd(Actor):
    """Its tasks say goodbye when it ends."""

    def __init__(self, to: Ref) -> None:
        super().__init__()
        self.to = to
        self.tasks: list[asyncio.Task[None]] = []

    async def on_start(self) -> None:  # type: ignore[override]
        async def stay(name: str) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                self.to.tell(Say(name))

        self.tasks = [asyncio.create_task(stay(name)) for name in "abcdefgh"]


def test_the_tasks_of_a_loop_that_ends_are_cancelled_in_their_order() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder)
        system.start(Crowd, ear).stop()
        assert ear.ask(Seen()) == list("abcdefgh")


class Keeper(Recorder):
    """Watches over others in all ways that there are."""

    traps_exits = True

    def on_receive(self, message: Message) -> Any:
        match message:
            case Pass([linked, monitored]):
                self.link(linked)
                self.monitor(monitored)
            case Say() if "open" not in self.seen and message.text != "open":
                self.stash()
            case Say("open"):
                self.unstash()
                return super().on_receive(message)
            case _:
                return super().on_receive(message)
        return None


@pytest.mark.parametrize("seed", range(5))
def test_links_and_monitors_tell_of_each_end_once(seed: int) -> None:
    with System(simulation=seed) as system:
        keeper = system.start(Keeper)
        linked, monitored = system.start(Coroutine, name="a"), system.start(Pooled, name="b")
        keeper.ask(Pass([linked, monitored]))
        linked.tell(Fail())
        monitored.tell(Leave())
        simulation(system).settle()
        ends = ["Down b normal", "Exit a ValueError: broken"]
        assert sorted(keeper.ask(Seen())) == ends


def test_what_is_put_aside_comes_back_in_its_order() -> None:
    with System(simulation=0) as system:
        keeper = system.start(Keeper)
        for text in ("a", "b", "open", "c"):
            keeper.tell(Say(text))
        assert keeper.ask(Seen()) == ["open", "a", "b", "c"]


def test_a_name_means_whoever_has_it() -> None:
    with System(simulation=0) as system:
        ear = system.named("ear")
        with pytest.raises(ActorDead):
            ear.ask(Say("a"))
        first = system.start(Recorder, name="ear", registered=True)
        assert ear.ask(Say("b")) == "b"
        first.stop()
        system.start(Pooled, name="ear", registered=True)
        assert ear.ask(Seen()) == []


class Narrow(Ticker):
    mailbox_count = 2
    mailbox_policy = "block"


class Eager(Recorder):
    """Sends more than fits."""

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Pass):
            for number in range(8):
                message.path[0].tell(Say(str(number)))
                self.seen.append(f"{number}")
            return None
        return super().on_receive(message)


@pytest.mark.parametrize("seed", range(5))
def test_a_sender_waits_for_room_in_virtual_time(seed: int) -> None:
    with System(simulation=seed) as system:
        narrow, eager = system.start(Narrow, 3600.0), system.start(Eager)
        eager.tell(Pass([narrow]))
        simulation(system).advance(1.0)
        assert narrow.ask(Seen()) == [str(number) for number in range(8)]


class Clogged(Actor):
    """Waits for ever in its first message."""

    mailbox_count = 2
    mailbox_policy = "block"
    mailbox_patience = 3.0

    def on_receive(self, message: Message) -> None:
        if isinstance(message, Pass):
            message.path[0].ask(Hide(), math.inf)


def test_a_sender_that_waits_in_vain_for_room_gets_mailbox_full_after_its_patience() -> None:
    with System(simulation=0) as system:
        clogged = system.start(Clogged)
        clogged.tell(Pass([system.start(Recorder)]))
        simulation(system).advance(0)
        clogged.tell(Say("a"))
        clogged.tell(Say("b"))
        before = simulation(system).now()
        with pytest.raises(MailboxFull):
            clogged.tell(Say("c"))
        assert simulation(system).now() == before + 3.0


# --- time -----------------------------------------------------------------------------------------


def test_an_hour_of_timers_is_as_many_steps_as_things_happen() -> None:
    with System(simulation=0) as system:
        ticker = system.start(Ticker, 1.0)
        before = simulation(system).steps
        simulation(system).advance(3600)
        assert simulation(system).now() == 3600.0
        assert ticker.ask(Seen()) == ["tick"] * 3600
        assert simulation(system).steps - before < 2 * 3600 + 10


@pytest.mark.parametrize("seed", range(10))
def test_what_is_due_has_happened_when_the_time_has_passed_and_what_came_of_it(seed: int) -> None:
    with System(simulation=seed) as system:
        ear = system.start(Coroutine)
        system.start(Ticker, 10.0, system.start(Ticker, 3600.0, ear))
        for ticks in range(1, 4):
            simulation(system).advance(10.0)
            assert ear.ask(Seen()) == ["tick"] * ticks


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_time_moves_forward_by_some_seconds(seconds: float) -> None:
    with System(simulation=0) as system, pytest.raises(ValueError, match="time cannot move"):
        simulation(system).advance(seconds)


class Once(Recorder):
    """Its timers are due after 1, 2 and 3 hours; it cancels the last one at the first."""

    def on_start(self) -> None:
        self.after(3600, Say("first"))
        self.after(7200, Say("second"))
        self.last = self.after(10800, Say("last"))

    def on_receive(self, message: Message) -> Any:
        if message == Say("first"):
            self.last.cancel()
        return super().on_receive(message)


def test_it_settles_when_nothing_is_left_to_happen() -> None:
    with System(simulation=0) as system:
        once = system.start(Once)
        simulation(system).settle(within=7200)
        assert once.ask(Seen()) == ["first", "second"]
        assert system.now() == 7200


def test_what_is_cancelled_is_not_waited_for() -> None:
    with System(simulation=0) as system:
        system.start(Once)
        simulation(system).settle(within=10000)
        assert system.now() == 7200


def test_what_never_settles_is_named() -> None:
    with System(simulation=0) as system:
        system.start(Ticker, 10.0, name="heart")
        with pytest.raises(NotSettled, match="60 virtual seconds: heart is due at 70 s"):
            simulation(system).settle(within=60)


def test_a_condition_counts_the_first_time_that_it_holds() -> None:
    seen: list[str] = []

    class Flicker(Recorder):
        def on_receive(self, message: Message) -> None:
            seen.append("on")
            self.after(0, Seen()) if len(seen) < 9 else None

    with System(simulation=0) as system:
        system.start(Flicker).tell(Seen())
        simulation(system).eventually(lambda: len(seen) == 4)
        assert len(seen) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_condition_may_ask(kind: type[Recorder], seed: int) -> None:
    with System(simulation=seed) as system:
        ear = system.start(kind)
        system.start(Ticker, 10.0, ear)
        simulation(system).eventually(lambda: len(ear.ask(Seen())) == 3)
        assert system.now() == 30


def test_what_does_not_come_true_in_its_time_is_an_error() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder)
        system.start(Ticker, 10.0, ear)
        with pytest.raises(NotSettled, match=r"within 60 virtual seconds$"):
            simulation(system).eventually(lambda: len(ear.ask(Seen())) > 6, within=60)


def test_what_cannot_come_true_any_more_is_an_error_at_once() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder)
        with pytest.raises(NotSettled, match="nothing is left to happen"):
            simulation(system).eventually(lambda: ear.ask(Seen()) == ["a"])
        assert system.now() == 0


def test_an_ask_has_its_deadline_in_virtual_time() -> None:
    with System(simulation=0) as system:
        with pytest.raises(AskTimeout):
            system.start(Recorder).ask(Hide(), timeout=1000)
        assert system.now() == 1000


def test_who_only_looks_for_an_answer_may_find_it_or_not() -> None:
    found: set[bool] = set()
    for seed in range(50):
        with System(simulation=seed) as system:
            future = system.start(Recorder).ask_future(Say("a"))
            try:
                assert future.result(timeout=0) == "a"
                found.add(True)
            except AskTimeout:
                found.add(False)
            assert system.now() == 0
    assert found == {True, False}


class Child(Recorder):
    starts: ClassVar[list[float]] = []

    def on_start(self) -> None:
        self.starts.append(self.system.now())


def test_a_supervisor_restarts_and_backs_off_in_virtual_time() -> None:
    Child.starts.clear()
    with System(simulation=0) as system:
        backoff = Backoff(initial=1.0, factor=10.0, maximum=50.0)
        spec = ChildSpec.of("child", Child, registered=True, backoff=backoff)
        system.start(Supervisor, [spec], intensity=9)
        for _ in range(4):
            system.named("child").tell(Fail())
            simulation(system).settle()
        assert Child.starts == [0.0, 1.0, 11.0, 61.0, 111.0]


# --- orders ---------------------------------------------------------------------------------------


class First(Recorder):
    """Tells ``near`` something, and then ``far``; ``near`` tells ``far``, too."""

    def on_receive(self, message: Message) -> Any:
        match message:
            case Pass([near, far]):
                near.tell(Pass([far]))
                far.tell(Say("from the first"))
            case Pass([far]):
                far.tell(Say("from the second"))


def orders(preemption: float) -> set[tuple[str, ...]]:
    found = set()
    for seed in range(100):
        with System(simulation=Scheduler(seed, preemption=preemption)) as system:
            first, near, far = (system.start(kind) for kind in (First, First, Recorder))
            first.tell(Pass([near, far]))
            simulation(system).settle()
            found.add(tuple(far.ask(Seen())))
    return found


def test_an_actor_is_preempted_between_two_tells() -> None:
    whole_steps_only = ("from the first", "from the second")
    assert orders(preemption=0.0) == {whole_steps_only}
    assert orders(preemption=0.1) == {whole_steps_only, whole_steps_only[::-1]}


# --- deadlocks ------------------------------------------------------------------------------------


def circle(system: System, length: int) -> None:
    """Actors of which each asks the next one, and the last one the first."""
    refs = [system.start(Recorder, name="abcd"[number]) for number in range(length)]
    refs[0].ask(Pass([*refs[1:], refs[0]]))


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_a_circle_of_asks_is_a_deadlock_that_names_all(names: str) -> None:
    with System(simulation=0) as system:
        with pytest.raises(Deadlock) as caught:
            circle(system, len(names))
        waits = [
            f"{one} waits for an answer of {other}"
            for one, other in zip(names, names[1:] + names[0], strict=True)
        ]
        assert str(caught.value) == ", and ".join(waits)
        assert system.now() == 0


def test_a_circle_is_found_though_time_goes_on() -> None:
    with System(simulation=0) as system:
        system.start(Ticker, 0.1)
        with pytest.raises(Deadlock):
            circle(system, 2)


def test_who_has_put_an_answer_off_is_in_no_circle() -> None:
    class Asker(Recorder):
        """Takes a request, asks its sender, and answers then."""

        def on_receive(self, message: Message) -> Any:
            match message:
                case Say("ask"):
                    reply = self.reply_later()
                    self.hidden.append(reply)
                    assert self.sender is not None
                    self.sender.tell(Say("?"))
                case Say("!"):
                    self.hidden.pop().send("at last")

    class Other(Recorder):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Pass):
                return message.path[0].ask(Say("ask"), 7.0)
            return None

    with System(simulation=0) as system:
        asker, other = system.start(Asker), system.start(Other)
        future = other.ask_future(Pass([asker]), 10.0)
        simulation(system).advance(3.0)  # nobody can go on, and yet somebody may
        asker.tell(Say("!"))
        assert future.result() == "at last"


def test_an_answer_that_never_comes_to_the_test_is_a_deadlock() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder, name="ear")
        with pytest.raises(Deadlock, match=r"^the test waits for an answer of ear$"):
            ear.ask(Hide(), timeout=math.inf)


def test_a_wait_for_ever_is_a_deadlock_that_says_who_waits_for_what() -> None:
    class Patient(Recorder):
        def on_receive(self, message: Message) -> Any:
            assert isinstance(message, Pass)
            self.system.wait(message.path[0])

    with System(simulation=0) as system:
        patient, ear = system.start(Patient, name="patient"), system.start(Recorder, name="ear")
        with pytest.raises(Deadlock) as caught:
            patient.ask(Pass([ear]), timeout=math.inf)
        assert str(caught.value) == (
            "the test waits for an answer of patient; patient waits for the end of ear"
        )


# --- invariants -----------------------------------------------------------------------------------


def test_an_invariant_is_looked_at_after_every_step_and_ends_the_run() -> None:
    seen: list[int] = []
    with System(simulation=0) as system:
        it = simulation(system)

        def not_more_than_twenty_steps() -> bool:
            seen.append(it.steps)
            return it.steps <= 20

        it.invariant(not_more_than_twenty_steps)
        system.start(Ticker, 1.0)
        with pytest.raises(AssertionError, match="not_more_than_twenty_steps does not hold"):
            it.advance(100)
        assert seen == list(range(1, 22))
        assert it.trace.events[-1].step == 20  # the events of a step are counted from 0


@pytest.mark.parametrize("error", [ValueError, KeyError, pytest.fail.Exception, SystemExit])
def test_what_an_invariant_raises_reaches_the_test(error: type[BaseException]) -> None:
    def check() -> None:
        if simulation(system).now() > 5:
            raise error("wrong")

    with System(simulation=0) as system:
        simulation(system).invariant(check)
        system.start(Ticker, 1.0, system.start(Coroutine))
        with pytest.raises(error, match="wrong"):
            simulation(system).advance(100)


@pytest.mark.parametrize("seed", range(10))
def test_the_test_hears_of_a_broken_invariant_before_anything_else_happens(seed: int) -> None:
    class Counter(Recorder):
        count: ClassVar[int] = 0

        def on_receive(self, message: Message) -> Any:
            Counter.count += 1

    with System(simulation=seed) as system:
        refs = [system.start(Counter) for _ in range(3)]
        simulation(system).invariant(lambda: Counter.count < 4)
        Counter.count = 0
        with pytest.raises(AssertionError):  # noqa: PT012 - at any of them
            for ref in refs * 3:
                ref.ask(Seen())
        assert Counter.count == 4


def test_an_invariant_cannot_ask() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder)
        simulation(system).invariant(lambda: ear.ask(Seen()) == [])
        with pytest.raises(ActorError, match="an invariant must not wait"):
            ear.ask(Say("a"))


def test_an_invariant_may_be_broken_while_the_system_stops() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder)
        simulation(system).invariant(ear.is_alive)


def test_a_run_without_end_is_given_up() -> None:
    with System(simulation=Scheduler(0, max_steps=1000)) as system:
        system.start(Ticker, 1.0)
        with pytest.raises(NotSettled, match="no end after 1000 steps"):
            simulation(system).advance(1e9)


def test_after_a_failure_the_trace_is_over_and_everything_still_works() -> None:
    with System(simulation=0) as system:
        ear = system.start(Recorder, name="ear")
        with pytest.raises(Deadlock):
            circle(system, 2)
        before, choices = len(simulation(system).trace), len(simulation(system).choices.recorded)
        assert ear.ask(Say("a")) == "a"
        system.start(Ticker, 1.0, ear)
        simulation(system).advance(2.0)
        assert ear.ask(Seen()) == ["a", "tick", "tick"]
        assert len(simulation(system).trace) == before
        assert len(simulation(system).choices.recorded) == choices


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_is_stopped_and_waited_for(kind: type[Recorder]) -> None:
    with System(simulation=0) as system:
        ref = system.start(kind)
        ref.stop()
        assert not ref.is_alive()
        assert system.wait(ref).reason.kind == "shutdown"


def test_an_actor_stops_another() -> None:
    class Stopper(Recorder):
        def on_receive(self, message: Message) -> Any:
            assert isinstance(message, Pass)
            message.path[0].stop()
            return message.path[0].is_alive()

    with System(simulation=0) as system:
        assert system.start(Stopper).ask(Pass([system.start(Recorder)])) is False


def test_an_actor_does_not_stop_its_system() -> None:
    class Presumptuous(Recorder):
        def on_receive(self, message: Message) -> Any:
            self.system.stop()

    with System(simulation=0) as system:
        presumptuous = system.start(Presumptuous)
        with pytest.raises(RemoteActorError, match="cannot stop the system"):
            presumptuous.ask(Seen())


@pytest.mark.parametrize("seed", range(3))
def test_a_circle_that_waits_for_ever_ends_with_its_system(seed: int) -> None:
    with System(simulation=seed) as system:
        a, b = (system.start(Recorder) for _ in range(2))
        a.tell(Pass([b, a], math.inf))
        with pytest.raises(Deadlock):
            simulation(system).settle()
    assert system.now() <= 31


class Stuck(Actor):
    """Waits for what never happens; says so when it is unwound."""

    unwound: ClassVar[list[str]] = []

    async def on_receive(self, message: Message) -> None:
        try:
            await self.wait()
        except Exception:  # noqa: BLE001 - it is none
            self.unwound.append("by an exception")
        finally:
            self.unwound.append(self.name)

    async def wait(self) -> None:
        await asyncio.Event().wait()


class Waiter(Actor):
    """Waits for the end of a `Stuck`, and waits again while it is unwound."""

    def on_receive(self, message: Message) -> None:
        stuck = self.start_child(Stuck, shutdown=None)
        stuck.tell(message)
        try:
            self.system.wait(stuck)
        finally:
            try:
                self.system.wait(stuck)
            finally:
                Stuck.unwound.append(self.name)


class StuckAtTheEnd(Stuck):
    async def on_stop(self) -> None:  # type: ignore[override]
        await self.on_receive(Seen())


@pytest.mark.parametrize("kind", [Stuck, StuckAtTheEnd, Waiter])
@pytest.mark.parametrize("seed", range(3))
def test_a_stack_that_waits_for_ever_is_unwound_in_the_end(kind: type[Actor], seed: int) -> None:
    Stuck.unwound.clear()
    system = System(simulation=seed, stop_timeout=10.0)
    for name in "ab":
        system.start(kind, name=name).tell(Seen())
    simulation(system).advance(1.0)
    with pytest.raises(StopTimeout, match=r"after 10\.0 s: a, .*b"):
        system.stop()
    assert {"a", "b"} <= set(Stuck.unwound)
    assert "by an exception" not in Stuck.unwound
    assert 10 < system.now() < 13


class Hang(Recorder):
    """Waits for what is in no simulation."""

    way: ClassVar[threading.Event] = threading.Event()
    interrupted: ClassVar[threading.Event] = threading.Event()

    def on_receive(self, message: Message) -> Any:
        # The interpreter misses a signal that comes just before it waits for a lock.
        while not self.interrupted.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            self.interrupted.wait(0.1)
        self.way.wait(10)


class Interrupt(BaseException):
    pass


@pytest.fixture
def signals() -> Any:
    def interrupt(_signal: int, _frame: object) -> None:
        if not Hang.interrupted.is_set():
            Hang.interrupted.set()
            raise Interrupt

    Hang.interrupted.clear()
    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("at", range(1, 30, 3))
def test_a_signal_may_end_a_run_at_any_time(signals: None, at: int) -> None:
    def check() -> None:
        if simulation(system).steps == at:
            os.kill(os.getpid(), signal.SIGUSR1)

    with System(simulation=at) as system:
        simulation(system).invariant(check)
        with pytest.raises(Interrupt):  # noqa: PT012 - anywhere in it
            system.start(Ticker, 1.0)
            simulation(system).advance(1e9)
        assert system.start(Recorder).ask(Say("a")) == "a"


def test_an_actor_that_waits_for_the_world_outside_has_the_baton_for_ever(signals: None) -> None:
    Hang.way.clear()
    system = System(simulation=0)
    hang = system.start(Hang, name="hang")
    with pytest.raises(Interrupt):
        hang.ask(Seen())
    (thread,) = (each for each in threading.enumerate() if each.name.startswith("simulation"))
    with pytest.raises(StopTimeout, match=f"hang, {thread.name}"):
        system.stop()
    Hang.way.set()
    thread.join(10)


def test_a_simulation_is_for_the_thread_that_made_it() -> None:
    errors: list[BaseException] = []

    def ask(ref: Ref) -> None:
        try:
            ref.ask(Seen())
        except ActorError as error:
            errors.append(error)

    with System(simulation=0) as system:
        thread = threading.Thread(target=ask, args=(system.start(Recorder),))
        thread.start()
        thread.join()
    assert ["for the thread that made it" in str(error) for error in errors] == [True]
