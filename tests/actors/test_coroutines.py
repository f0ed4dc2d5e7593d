"""Coroutines: they ask actors from any event loop, and handlers may be coroutines themselves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from actors import (
    Actor,
    ActorDead,
    AskTimeout,
    ChildSpec,
    ExitReason,
    MailboxFull,
    Message,
    Ref,
    RemoteActorError,
    Reply,
    StartFailed,
    StopTimeout,
    System,
    WrongType,
)
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
    Recorder,
    Say,
    Seen,
    busy,
    supervise,
)

FOREVER = float("inf")


# --- asking from a program of coroutines ----------------------------------------------------------


@pytest.mark.parametrize("kind", [Recorder, Pooled])
def test_a_coroutine_asks_and_its_loop_goes_on_meanwhile(kind: type[Recorder]) -> None:
    gate, ticks = Gate(), list[int]()

    async def tick() -> None:
        for number in range(3):
            ticks.append(number)
            await asyncio.sleep(0)
        gate.open()

    async def main() -> Any:
        ticking = asyncio.create_task(tick())
        answer = await ref.ask_async(Hold())
        await ticking
        return answer

    with System() as system:
        ref = system.start(kind, gate)
        assert asyncio.run(main()) is None
        assert ticks == [0, 1, 2]
        assert asyncio.run(ref.ask_async(Say("x"))) == "x"


def test_many_asks_of_one_loop_are_answered_each() -> None:
    async def main() -> list[Any]:
        return await asyncio.gather(
            *(refs[number % 2].ask_async(Say(str(number))) for number in range(50))
        )

    with System() as system:
        refs = [system.start(Recorder), system.start(Pooled)]
        assert asyncio.run(main()) == [str(number) for number in range(50)]


def test_an_ask_of_a_coroutine_has_a_deadline() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate)
        with pytest.raises(AskTimeout, match="busy did not answer in time"):
            asyncio.run(ref.ask_async(Say("x"), timeout=0.01))
        gate.open()
        ref.stop(drain=True)
        assert system.dead_letters.by_kind == {"reply": 1}


def test_a_deadline_may_never_come() -> None:
    with System() as system:
        ref = system.start(Recorder)
        assert asyncio.run(ref.ask_async(Say("x"), timeout=FOREVER)) == "x"


def test_the_errors_are_those_of_any_ask() -> None:
    with System() as system:
        ref = system.start(Recorder, name="it")
        with pytest.raises(RemoteActorError, match="it failed: ValueError: broken"):
            asyncio.run(ref.ask_async(Fail()))
        with pytest.raises(ActorDead):
            asyncio.run(ref.ask_async(Say("x"), timeout=FOREVER))
        with pytest.raises(WrongType):
            asyncio.run(ref.ask_async(Say(3)))  # type: ignore[arg-type]

        class Full(Recorder):
            mailbox_count = 0

        with pytest.raises(MailboxFull):
            asyncio.run(system.start(Full).ask_async(Say("x")))


def test_killing_the_actor_wakes_the_coroutine() -> None:
    gate = Gate()

    async def main() -> None:
        asking = asyncio.create_task(ref.ask_async(Hold(), timeout=FOREVER))
        await asyncio.to_thread(gate.wait_until_reached)
        ref.kill()
        with pytest.raises(ActorDead):
            await asking

    with System() as system:
        ref = system.start(Recorder, gate)
        asyncio.run(main())
        gate.open()


def test_an_answer_to_a_cancelled_task_is_wanted_no_more() -> None:
    kept = list[Reply]()

    class Keeper(Recorder):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                kept.append(self.reply_later())
                return None
            return super().on_receive(message)

    async def main() -> None:
        asking = asyncio.create_task(ref.ask_async(Do(), timeout=FOREVER))
        await asyncio.sleep(0)
        assert await ref.ask_async(Say("after")) == "after"
        wanted = [kept[0].wanted]
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        wanted.append(kept[0].wanted)
        assert wanted == [True, False]
        kept[0].send("nobody hears")

    with System() as system:
        ref = system.start(Keeper)
        asyncio.run(main())
        assert system.dead_letters.by_kind == {"reply": 1}
        assert ref.ask(Say("x")) == "x"


def test_two_coroutines_may_wait_for_one_answer_in_two_loops() -> None:
    gate, answers = Gate(), list[Any]()
    waiting = threading.Barrier(3)

    async def main() -> None:
        waits = [asyncio.create_task(future.result_async()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.to_thread(waiting.wait)
        answers.extend(await asyncio.gather(*waits))

    with System() as system:
        ref = system.start(Recorder, gate)
        ref.tell(Hold())
        future = ref.ask_future(Say("x"), PATIENCE)
        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
        for thread in threads:
            thread.start()
        waiting.wait()
        gate.open()
        for thread in threads:
            thread.join()
    assert answers == ["x"] * 4


def test_one_of_two_who_wait_for_one_answer_may_give_up() -> None:
    gate = Gate()

    async def main() -> None:
        future = ref.ask_future(Say("x"), PATIENCE)
        waits = [asyncio.create_task(future.result_async()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[1].cancel()
        await asyncio.sleep(0)
        gate.open()
        assert list(await asyncio.gather(waits[0], waits[2])) == ["x", "x"]
        assert await future.result_async() == "x"

    with System() as system:
        ref = system.start(Recorder, gate)
        ref.tell(Hold())
        asyncio.run(main())


def test_a_loop_that_was_closed_without_a_word_does_no_harm_to_the_actor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    with System() as system:
        ref = system.start(Recorder, gate)
        ref.tell(Hold())
        loop = asyncio.new_event_loop()
        asking = loop.create_task(ref.ask_async(Say("x"), timeout=FOREVER))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        gate.open()
        assert ref.ask(Say("y")) == "y"
        assert "has failed" not in caplog.text
        asking.get_coro().close()
        asking._log_destroy_pending = False  # type: ignore[attr-defined]


def test_what_is_to_be_called_with_an_answer_does_no_harm_to_the_actor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ValueError("not the actor's fault")

    gate, called = Gate(), list[str]()
    with System() as system:
        ref = system.start(Recorder, gate)
        ref.tell(Hold())
        future = ref.ask_future(Say("x"))
        future.on_settled(fail)
        future.on_settled(lambda: called.append("x"))
        gate.open()
        assert future.result() == "x"
        assert ref.ask(Say("y")) == "y"
        future.on_settled(lambda: called.append("late"))
    assert called == ["x", "late"]
    assert "not the actor's fault" in caplog.text


# --- actors whose handlers are coroutines ---------------------------------------------------------


class Start(Message):
    """Answered when a background task is running."""


class Go(Message):
    """Lets the next waiting coroutine go on."""


class Async(Recorder):
    """Everything that a `Recorder` does, in coroutines."""

    fails_on_ask = False

    async def on_start(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().on_start()

    async def on_receive(self, message: Message) -> Any:
        await asyncio.sleep(0)
        return super().on_receive(message)

    async def on_stop(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().on_stop()


def test_handlers_may_be_coroutines() -> None:
    log = list[str]()
    with System() as system:
        ref = system.start(Async, log=log, name="it")
        assert log == ["it started"]
        ref.tell(Say("a"))
        assert ref.ask(Say("b")) == "b"
        assert ref.ask(Seen()) == ["a", "b"]
        with pytest.raises(RemoteActorError, match="it failed: ValueError: broken") as failed:
            ref.ask(Fail())
        assert "in on_receive" in failed.value.traceback
        ref.stop()
        assert log == ["it started", "it stopped (shutdown)"]


@pytest.mark.parametrize("handler", ["on_start", "on_receive", "on_stop"])
def test_one_handler_that_is_a_coroutine_is_enough(handler: str) -> None:
    done = list[str]()

    async def handle(self: Actor, *_: Any) -> None:
        await asyncio.sleep(0)
        done.append(handler)

    kind: type[Recorder] = type("Some", (Recorder,), {handler: handle})
    with System() as system:
        system.start(kind).ask(Say("x"))
    assert done == [handler]


def test_what_returns_a_coroutine_in_another_way_says_so_itself() -> None:
    async def answer() -> str:
        await asyncio.sleep(0)
        return "x"

    class Indirect(Actor):
        uses_loop = True

        def on_receive(self, message: Message) -> Any:
            return answer()

    class Forgetful(Patient):
        def on_receive(self, message: Message) -> Any:
            return answer()

    with System() as system:
        assert system.start(Indirect).ask(Say("")) == "x"
        with pytest.raises(RemoteActorError, match="handlers that are coroutines need"):
            system.start(Forgetful).ask(Say(""))


def test_a_pooled_actor_cannot_have_coroutines_as_handlers() -> None:
    with pytest.raises(TypeError, match="Wrong is pooled: its handlers cannot be coroutines"):

        class Wrong(Actor):
            pooled = True

            async def on_receive(self, message: Message) -> None:
                pass

    with pytest.raises(TypeError, match="Wrong is pooled"):
        type("Wrong", (Async,), {"pooled": True})
    with pytest.raises(TypeError, match="Wrong is pooled"):
        type("Wrong", (Pooled,), {"uses_loop": True})


def test_messages_are_handled_one_at_a_time_though_a_handler_awaits() -> None:
    inside, seen = [0], list[str]()

    class Slow(Actor):
        async def on_receive(self, message: Message) -> None:
            assert isinstance(message, Say)
            inside[0] += 1
            assert inside[0] == 1
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append(message.text)
            inside[0] -= 1

    with System() as system:
        ref = system.start(Slow)
        for text in "abcde":
            ref.tell(Say(text), control=text == "c")
        ref.stop(drain=True)
    assert sorted(seen) == list("abcde")
    assert [text for text in seen if text != "c"] == list("abde")


@pytest.mark.parametrize("error", [name for name in ERRORS if name != "GeneratorExit"])
@pytest.mark.parametrize("how", ["tell", "ask"])
def test_whatever_a_coroutine_raises_ends_its_actor_in_order(error: str, how: str) -> None:
    log = list[str]()

    class Brittle(Async):
        fails_on_ask = True

    with System() as system:
        ref = system.start(Brittle, log=log, name="it")
        if how == "tell":
            ref.tell(Fail(error))
        else:
            with pytest.raises(RemoteActorError, match=f"it failed: {error}: broken"):
                ref.ask(Fail(error))
        assert system.wait(ref).reason.error == error
        assert system.start(Async).ask(Say("x")) == "x"
    assert log[1] == f"it stopped ({error}: broken)"


def test_a_start_that_is_a_coroutine_may_fail_and_its_loop_is_gone() -> None:
    class Broken(Async):
        async def on_start(self) -> None:  # type: ignore[override]
            self.task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
            await asyncio.sleep(0)
            raise OSError(5, "no luck")

    with System() as system, pytest.raises(StartFailed, match="no luck"):
        system.start(Broken)


class Background(Async):
    """Has a task of its own, which says what happens to it."""

    def __init__(self, log: list[str], ticked: threading.Event) -> None:
        super().__init__(log=log)
        self.ticked = ticked
        self.go = asyncio.Event()

    async def on_receive(self, message: Message) -> Any:
        if isinstance(message, Start):
            self.task = asyncio.create_task(self.tick())
            return None
        return await super().on_receive(message)

    async def tick(self) -> None:
        try:
            for _ in range(3):
                self.log.append("tick")
                await asyncio.sleep(0.001)
            self.ticked.set()
            await asyncio.Event().wait()
        finally:
            self.log.append("cancelled")


def test_tasks_of_its_own_go_on_while_it_is_idle_and_end_with_it() -> None:
    log, ticked = list[str](), threading.Event()
    with System() as system:
        ref = system.start(Background, log, ticked, name="it")
        ref.ask(Start())
        assert ticked.wait(PATIENCE)
        ref.stop()
        assert log == ["it started", *["tick"] * 3, "it stopped (shutdown)", "cancelled"]


def test_tasks_of_its_own_are_cancelled_when_it_fails_or_is_killed() -> None:
    for how in ("fail", "kill"):
        log, ticked = list[str](), threading.Event()
        with System() as system:
            ref = system.start(Background, log, ticked)
            ref.ask(Start())
            assert ticked.wait(PATIENCE)
            if how == "fail":
                ref.tell(Fail())
            else:
                ref.kill()
            system.wait(ref)
            assert log[-1] == "cancelled"


def test_a_task_of_its_own_is_a_part_of_it() -> None:
    """What it sends has the actor as sender, and it may set timers and end it."""

    class Busy(Async):
        def __init__(self, to: Ref) -> None:
            super().__init__()
            self.to = to

        async def on_receive(self, message: Message) -> Any:
            if isinstance(message, Start):
                self.task = asyncio.create_task(self.work())
                return None
            return await super().on_receive(message)

        async def work(self) -> None:
            self.seen.append(await self.to.ask_async(Do()))
            self.after(0, Leave())
            self.ref.tell(Say("wake up"))

    with System() as system:
        to = system.start(Doer, lambda it, _: it.sender)
        ref = system.start(Busy, to, name="it")
        ref.ask(Start())
        assert system.wait(ref).reason == ExitReason("normal")
        assert to.ask(Seen()) == []


def test_a_task_of_its_own_wakes_it_by_a_timer_though_it_is_idle() -> None:
    class Sleepy(Async):
        async def on_receive(self, message: Message) -> Any:
            if isinstance(message, Start):
                self.task = asyncio.create_task(self.work())
                return None
            return await super().on_receive(message)

        async def work(self) -> None:
            await asyncio.sleep(0.01)  # the actor is idle by then
            self.after(0.001, Leave())

    with System() as system:
        ref = system.start(Sleepy)
        ref.ask(Start())
        assert system.wait(ref, PATIENCE).reason == ExitReason("normal")


def test_a_task_of_its_own_may_end_it_though_it_is_idle() -> None:
    class Sleepy(Async):
        async def on_receive(self, message: Message) -> Any:
            if isinstance(message, Start):
                self.task = asyncio.create_task(self.work())
                return None
            return await super().on_receive(message)

        async def work(self) -> None:
            await asyncio.sleep(0.01)
            self.exit()

    with System() as system:
        ref = system.start(Sleepy)
        ref.ask(Start())
        assert system.wait(ref, PATIENCE).reason == ExitReason("normal")


def test_two_of_them_ask_each_other_and_all_kinds_of_actors() -> None:
    class Relay(Async):
        def __init__(self, *to: Ref) -> None:
            super().__init__()
            self.to = to

        async def on_receive(self, message: Message) -> Any:
            return await asyncio.gather(*(ref.ask_async(message) for ref in self.to))

    with System() as system:
        leaves = [system.start(kind) for kind in (Recorder, Pooled, Async)]
        inner = system.start(Relay, *leaves)
        outer = system.start(Relay, inner, inner, leaves[0])
        assert outer.ask(Say("x")) == [["x"] * 3, ["x"] * 3, "x"]


def test_timers_reach_it_between_its_messages() -> None:
    fired = threading.Event()

    class Timed(Async):
        async def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                self.seen.append(str(message.value))
                if message.value == 2:
                    fired.set()
                return None
            return await super().on_receive(message)

        async def on_start(self) -> None:  # type: ignore[override]
            self.after(0.005, Do(1))
            self.after(0.010, Do(2))

    with System() as system:
        ref = system.start(Timed)
        assert fired.wait(PATIENCE)
        assert ref.ask(Seen()) == ["1", "2"]


def test_timers_of_it_are_on_the_clock_of_the_system() -> None:
    clock = Clock()

    class Timed(Async):
        async def on_start(self) -> None:  # type: ignore[override]
            self.after(100, Say("due"))

    with System(clock=clock) as system:
        ref = system.start(Timed)
        assert ref.ask(Seen()) == []
        clock.now += 100
        for _ in range(2):
            ref.ask(Say("turn"))
        assert "due" in ref.ask(Seen())


class Hanging(Async):
    """Awaits for ever on `Hold`, until `release` is called from any thread."""

    def __init__(self, gate: Gate, log: list[str]) -> None:
        super().__init__(gate, log)

    async def on_receive(self, message: Message) -> Any:
        if isinstance(message, Hold):
            assert self.gate is not None
            await asyncio.to_thread(self.gate.pass_through)
            self.log.append("went on")
            return None
        return await super().on_receive(message)


def test_one_that_awaits_for_ever_does_not_stop_in_time_and_may_be_killed() -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        ref = system.start(Hanging, gate, log, name="it")
        asked = ref.ask_future(Hold(), FOREVER)
        gate.wait_until_reached()
        with pytest.raises(StopTimeout, match=r"it has not ended within 0\.01 s"):
            ref.stop(timeout=0.01)
        ref.kill()
        with pytest.raises(ActorDead):
            asked.result()
        gate.open()
        assert system.wait(ref).reason == ExitReason("killed")
    assert log == ["it started", "went on", "it stopped (killed)"]


def test_one_that_awaits_takes_a_stop_when_it_has_finished() -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        ref = system.start(Hanging, gate, log, name="it")
        asked = ref.ask_future(Hold(), FOREVER)
        gate.wait_until_reached()
        never = ref.ask_future(Say("never"), FOREVER)
        stopper = threading.Thread(target=ref.stop)
        stopper.start()
        gate.open()
        stopper.join()
        assert asked.result() is None
        with pytest.raises(ActorDead):
            never.result()


def test_it_may_be_supervised() -> None:
    with System() as system:
        supervise(system, ChildSpec.of("it", Async, registered=True))
        it = system.named("it")
        assert it.ask(Say("x")) == "x"
        first = system.whereis("it")
        assert first is not None
        it.tell(Fail())
        system.wait(first)


def test_its_children_end_before_it() -> None:
    log = list[str]()

    class Mother(Async):
        async def on_start(self) -> None:  # type: ignore[override]
            self.start_child(Async, None, self.log, name="a")
            self.start_child(Pooled, None, self.log, name="b")
            await super().on_start()

    with System() as system:
        system.start(Mother, None, log, name="p").stop()
    assert [line.split()[0] for line in log] == ["a", "b", "p", "b", "a", "p"]


def test_an_error_of_a_background_task_at_the_end_does_not_stop_the_end() -> None:
    class Stubborn(Async):
        async def on_receive(self, message: Message) -> Any:
            self.task = asyncio.create_task(self.work())
            await asyncio.sleep(0)

        async def work(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("while being cancelled") from None

    with System() as system:
        ref = system.start(Stubborn)
        ref.ask(Start())
        ref.stop()
        assert not ref.is_alive()
