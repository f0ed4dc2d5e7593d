"""Pykka actors that exist already, under our supervisors."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pykka
import pytest

from actors import (
    ActorDead,
    ActorError,
    ChildSpec,
    ChildStatus,
    ExitReason,
    Message,
    Ref,
    RemoteActorError,
    StartFailed,
    StartInstance,
    StopTimeout,
    Supervisor,
    System,
    TerminateChild,
    WhichChildren,
    WrongType,
)
from actors.adopted import Adopted, adopted, pykka_ref
from tests.actors.parts import PATIENCE, Gate, Hold, Recorder, Say, Seen, supervise

LOG: list[str] = []
"""What the actors of the running test did."""

START = ["__init__", "on_start"]
HERE = "tests.actors.test_adopted"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    LOG.clear()
    Mixer.trouble = {}
    Mixer.gate = Gate()
    yield
    assert pykka.ActorRegistry.get_all() == []


class Mixer(pykka.ThreadingActor):
    """Written for pykka, and knows nothing of us."""

    trouble: ClassVar[dict[str, BaseException]] = {}
    gate: ClassVar[Gate]

    def __init__(self, volume: int = 5, **options: Any) -> None:
        super().__init__()
        self.volume = volume
        self.options = options
        self.do("__init__")

    def do(self, what: str) -> None:
        LOG.append(what)
        if what in self.trouble:
            raise self.trouble[what]

    def on_start(self) -> None:
        self.do("on_start")

    def on_stop(self) -> None:
        self.do("on_stop")

    def on_failure(self, *failure: Any) -> None:
        assert failure == sys.exc_info()  # many a hook logs what is being handled
        self.do(f"on_failure {failure[1]!r}")

    def on_receive(self, message: Any) -> Any:
        match message:
            case "leave":
                self.stop()
            case "set the event":
                self.actor_stopped.set()
            case Hold() | "hold":
                self.gate.pass_through()
            case BaseException():
                raise message
            case Say("fail"):
                raise ValueError("broken")
            case Say(text):
                LOG.append(text)
                return text
            case _:
                LOG.append(str(message))
        return message

    def louder(self, by: int) -> int:
        self.volume += by
        return self.volume

    def fail(self) -> None:
        raise KeyError("volume")


class Eager(Mixer):
    """Sends to itself before it has started."""

    def __init__(self) -> None:
        super().__init__()
        self.actor_ref.tell("from __init__")

    def on_start(self) -> None:
        super().on_start()
        self.stop()


class Plain(pykka.ThreadingActor):
    """Not adopted."""

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message


@contextlib.contextmanager
def plain() -> Iterator[pykka.ActorRef[Plain]]:
    """One, whose thread is joined in the end."""
    before = set(threading.enumerate())
    ref = Plain.start()
    (thread,) = set(threading.enumerate()) - before
    yield ref
    ref.stop(block=False)
    thread.join(PATIENCE)


class OwnStart(pykka.ThreadingActor):
    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Any:
        return super().start(*args, **kwargs)


class OwnLoop(pykka.ThreadingActor):
    def _start_actor_loop(self) -> None:
        super()._start_actor_loop()


class Singleton(type(pykka.ThreadingActor)):  # type: ignore[misc]
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class OnlyOne(pykka.ThreadingActor, metaclass=Singleton):
    pass


def status(top: Ref) -> ChildStatus:
    (found,) = top.ask(WhichChildren())
    assert isinstance(found, ChildStatus)
    return found


def present(top: Ref) -> Ref:
    ref = status(top).ref
    assert ref is not None
    return ref


def child(top: Ref) -> Ref:
    """The present incarnation; it has started."""
    ref = present(top)
    ref.ask(Say("?"))
    assert LOG.pop() == "?"
    return ref


def mixer(top: Ref) -> pykka.ActorRef[Any]:
    return pykka_ref(child(top))


def supervised(system: System, *args: Any, **kwargs: Any) -> tuple[Ref, pykka.ActorRef[Any]]:
    top = supervise(system, adopted("mixer", Mixer, *args, **kwargs))
    return top, mixer(top)


# --- as in pykka ----------------------------------------------------------------------------------


def test_its_pykka_references_and_proxies_work() -> None:
    with System() as system:
        _, ref = supervised(system, 7)
        proxy = ref.proxy()
        assert proxy.louder(2).get() == 9
        proxy.volume = 1
        assert proxy.volume.get() == 1
        ref.tell("anything")
        nothing_to_pack = object()
        assert ref.ask(nothing_to_pack) is nothing_to_pack
        assert LOG[2:] == ["anything", str(nothing_to_pack)]
        assert proxy.on_stop.defer() is None


def test_its_inbox_is_the_mailbox() -> None:
    with System() as system:
        _, ref = supervised(system)
        assert ref.actor_inbox.empty()
        ref.tell("hold")
        Mixer.gate.wait_until_reached()
        ref.tell("queued")
        assert not ref.actor_inbox.empty()
        with pytest.raises(ActorError, match="only the actor's own loop"):
            ref.actor_inbox.get()
        Mixer.gate.open()


def test_it_is_of_its_own_class_and_in_the_registry() -> None:
    with System() as system:
        _, ref = supervised(system)
        assert ref.actor_class is Mixer
        assert pykka.ActorRegistry.get_by_class_name("Mixer") == [ref]
        assert type(ref.proxy()._actor) is Mixer
        assert [name for name in vars(ref.proxy()._actor) if "inbox" in name] == ["actor_inbox"]
        assert "mixer" in {thread.name for thread in threading.enumerate()}


def test_a_failing_ask_goes_to_the_asker_alone() -> None:
    with System() as system:
        top, ref = supervised(system)
        with pytest.raises(KeyError, match="volume"):
            ref.proxy().fail().get()
        broken = ValueError("broken")
        with pytest.raises(ValueError) as raised:
            ref.ask(broken)
        assert raised.value is broken
        assert mixer(top) is ref
        assert LOG == START


def test_what_it_sends_to_itself_before_it_has_started_comes_after() -> None:
    with System() as system:
        ref = system.start(Adopted, f"{HERE}:Eager")
        assert system.wait(ref).reason == ExitReason("normal")
        assert [*START, "from __init__", "on_stop"] == LOG


def test_pykkas_stop_comes_after_what_was_sent_before() -> None:
    with System() as system:
        _, ref = supervised(system, restart="temporary")
        ref.tell("hold")
        Mixer.gate.wait_until_reached()
        ref.tell("before")
        stops = [ref.stop(block=False) for _ in range(2)]
        late = ref.ask("after", block=False)
        Mixer.gate.open()
        assert [stop.get(timeout=PATIENCE) for stop in stops] == [True, True]
        assert LOG[2:] == ["before", "on_stop"]
        with pytest.raises(pykka.ActorDeadError):
            late.get(timeout=PATIENCE)
        assert ref.stop() is False
        with pytest.raises(pykka.ActorDeadError):
            ref.tell("after")


def test_an_ask_that_races_the_end_is_answered() -> None:
    with System() as system:
        for _ in range(20):
            ref = pykka_ref(system.start(Adopted, f"{HERE}:Mixer"))
            futures: list[pykka.Future[Any]] = []

            def flood(
                ref: pykka.ActorRef[Any] = ref, futures: list[pykka.Future[Any]] = futures
            ) -> None:
                while ref.is_alive():
                    futures.append(ref.ask("?", block=False))

            thread = threading.Thread(target=flood)
            thread.start()
            ref.stop()
            thread.join()
            for future in futures:
                try:
                    assert future.get(timeout=PATIENCE) == "?"
                except pykka.ActorDeadError:
                    continue


def test_an_asker_who_has_answered_himself_does_no_harm() -> None:
    with System() as system:
        top, ref = supervised(system)
        future = ref.ask("hold", block=False)
        Mixer.gate.wait_until_reached()
        future.set("mine")
        Mixer.gate.open()
        assert mixer(top) is ref
        assert future.get() == "mine"
        assert system.dead_letters.by_reason == {"late": 1}


# --- ends, and restarts ---------------------------------------------------------------------------


def test_a_failing_tell_ends_it_and_a_fresh_one_starts_with_fresh_arguments() -> None:
    with System() as system:
        top, first = supervised(system, 1, tracks=["a"])
        first.proxy().louder(8).get()
        first.proxy().options.get()["tracks"].append("b")
        old = child(top)
        first.tell(ValueError("broken"))
        system.wait(old)
        second = mixer(top)
        assert second is not first
        assert second.proxy().volume.get() == 1
        assert second.proxy().options.get() == {"tracks": ["a"]}
        assert status(top).restarts == 1
        assert [*START, "on_failure ValueError('broken')", *START] == LOG
        assert pykka.ActorRegistry.get_all() == [second]
        with pytest.raises(pykka.ActorDeadError):
            first.ask("?")


def by_failing(ref: Ref) -> None:
    pykka_ref(ref).tell(ValueError("broken"))


def by_leaving(ref: Ref) -> None:
    pykka_ref(ref).tell("leave")


def by_its_reference(ref: Ref) -> None:
    assert pykka_ref(ref).stop() is True


def by_the_registry(ref: Ref) -> None:
    assert pykka.ActorRegistry.stop_all() == [True]


def by_its_event(ref: Ref) -> None:
    pykka_ref(ref).tell("set the event")


def by_a_stop(ref: Ref) -> None:
    ref.stop()


def by_a_kill(ref: Ref) -> None:
    ref.kill()


def by_an_exit(ref: Ref) -> None:
    pykka_ref(ref).tell(SystemExit(3))


def by_a_plain_actors_exit(ref: Ref) -> None:
    with plain() as other:
        other.tell(KeyboardInterrupt())


@pytest.mark.parametrize(
    ("end", "reason", "last"),
    [
        (by_failing, "ValueError: broken", "on_failure ValueError('broken')"),
        (by_leaving, "normal", "on_stop"),
        (by_its_reference, "normal", "on_stop"),
        (by_the_registry, "normal", "on_stop"),
        (by_its_event, "normal", "on_stop"),
        (by_a_plain_actors_exit, "normal", "on_stop"),
        (by_a_stop, "shutdown", "on_stop"),
        (by_a_kill, "killed", "on_stop"),
        (by_an_exit, "SystemExit: 3", "on_stop"),
    ],
)
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_each_end_is_reported_once_with_its_reason(
    end: Callable[[Ref], None], reason: str, last: str, restart: str
) -> None:
    with System() as system:
        watcher = system.start(Recorder)
        top = supervise(system, adopted("mixer", Mixer, restart=restart))
        ref = child(top)
        system.monitor(ref, watcher)
        end(ref)
        assert str(system.wait(ref).reason) == reason
        killed = reason == "killed"  # its successor does not wait for what it still does
        assert last in LOG if killed else LOG[: len(START) + 1] == [*START, last]
        failed = reason not in ("normal", "shutdown")
        if restart == "permanent" or (restart == "transient" and failed):
            assert child(top) != ref
            whole = [*START, last, *START]
            assert sorted(LOG) == sorted(whole) if killed else whole == LOG
            assert status(top).restarts == 1
        elif restart == "transient":
            assert status(top).state == "stopped"
        else:
            assert top.ask(WhichChildren()) == []
        assert watcher.ask(Seen()) == [f"Down mixer {reason}"]


def test_the_report_of_a_failure_has_its_traceback() -> None:
    with System() as system:
        top = supervise(system, adopted("mixer", Mixer, restart="temporary"))
        ref = child(top)
        pykka_ref(ref).tell(ValueError("broken"))
        reason = system.wait(ref).reason
        assert (reason.kind, reason.error, reason.text) == ("error", "ValueError", "broken")
        assert "raise message" in reason.traceback


@pytest.mark.parametrize("where", ["__init__", "on_start"])
@pytest.mark.parametrize("error", [OSError(5, "no sound card"), SystemExit("no sound card")])
def test_a_start_that_fails_is_a_failed_start(where: str, error: BaseException) -> None:
    Mixer.trouble = {where: error}
    with System() as system:
        with pytest.raises(StartFailed, match="no sound card") as failed:
            system.start(Adopted, f"{HERE}:Mixer")
        assert failed.value.__cause__ is error
        with pytest.raises(StartFailed, match="mixer could not start"):
            supervise(system, adopted("mixer", Mixer))
        assert "on_stop" not in LOG


def test_a_restart_that_fails_is_tried_again_as_often_as_the_supervisor_may() -> None:
    with System() as system:
        top = supervise(system, adopted("mixer", Mixer), intensity=3)
        ref = mixer(top)
        Mixer.trouble = {"on_start": OSError(5, "no sound card")}
        ref.tell(ValueError("broken"))
        assert "no sound card" in system.wait(top).reason.text
        assert LOG.count("on_start") == 4


def test_what_on_stop_and_on_failure_raise_is_in_the_report() -> None:
    Mixer.trouble = {
        "on_stop": OSError(5, "cannot close"),
        "on_failure ValueError('broken')": SystemExit("cannot even fail"),
    }
    with System() as system:
        for end, expected in (
            (by_its_reference, "OSError: [Errno 5] cannot close"),
            (by_a_stop, "OSError: [Errno 5] cannot close"),
            (by_failing, "ValueError: broken; then SystemExit: cannot even fail"),
        ):
            ref = system.start(Adopted, f"{HERE}:Mixer")
            end(ref)
            assert str(system.wait(ref).reason) == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_a_base_exception_ends_it_alone_and_its_asker_hears_of_it(error: BaseException) -> None:
    with plain() as other, System() as system:
        top, ref = supervised(system)
        old = child(top)
        with pytest.raises(RemoteActorError, match=type(error).__name__):
            ref.ask(error, timeout=PATIENCE)
        system.wait(old)
        assert mixer(top) is not ref
        assert other.ask("alive?", timeout=PATIENCE) == "alive?"


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["its supervisor", "the system", "TerminateChild"])
def test_whoever_stops_it_returns_when_its_on_stop_has(who: str) -> None:
    with System() as system:
        top, ref = supervised(system)
        ref.tell("hold")
        Mixer.gate.wait_until_reached()
        ref.tell("before")
        opener = threading.Thread(target=Mixer.gate.open)
        opener.start()
        match who:
            case "its supervisor":
                top.stop()
            case "the system":
                system.stop()
            case _:
                top.ask(TerminateChild("mixer"))
        assert [*START, "before", "on_stop"] == LOG
        opener.join()
        assert not ref.is_alive()


def test_one_that_does_not_stop_in_time_is_given_up_and_its_askers_hear_of_it_at_once() -> None:
    with System() as system:
        top, ref = supervised(system, shutdown=0.01)
        asks = [ref.ask("hold", block=False), ref.ask("queued", block=False)]
        ref.tell("queued")
        Mixer.gate.wait_until_reached()
        first = present(top)
        top.ask(TerminateChild("mixer"))
        for ask in [*asks, ref.ask("late", block=False)]:
            with pytest.raises(ActorDead, match="mixer has ended"):
                ask.get(timeout=PATIENCE)
        with pytest.raises(StopTimeout):
            system.wait(first, 0)
        assert LOG == START
        Mixer.gate.open()
        assert system.wait(first).reason == ExitReason("killed")
        assert [*START, "on_stop"] == LOG
        assert system.dead_letters.by_kind["str"] == 1  # the tell


def test_one_that_is_given_up_does_not_keep_its_successor_from_starting() -> None:
    with System() as system:
        top, first = supervised(system)
        first.tell("hold")
        Mixer.gate.wait_until_reached()
        old = present(top)
        old.kill()
        assert mixer(top).ask("new") == "new"
        Mixer.gate.open()
        system.wait(old)
        assert [*START, *START, "new", "on_stop"] == LOG


def test_a_system_says_which_one_does_not_stop() -> None:
    system = System(stop_timeout=0.01)
    _, ref = supervised(system, shutdown=None)
    ref.tell("hold")
    Mixer.gate.wait_until_reached()
    with pytest.raises(StopTimeout, match="mixer"):
        system.stop()
    Mixer.gate.open()
    system.stop()


# --- by our references ----------------------------------------------------------------------------


def test_pykka_ref_has_the_present_incarnation_by_name() -> None:
    with System() as system:
        named = system.named("mixer")
        with pytest.raises(ActorDead, match="mixer does not run now"):
            pykka_ref(named)
        top = supervise(system, adopted("mixer", Mixer, registered=True))
        first = pykka_ref(named)
        old = child(top)
        first.tell(ValueError("broken"))
        system.wait(old)
        assert mixer(top) is pykka_ref(named) is not first
        with pytest.raises(ActorDead):
            pykka_ref(old)
        with pytest.raises(ActorError, match="top is a Supervisor, not an adopted"):
            pykka_ref(top)


def test_there_is_no_pykka_reference_before_there_is_an_actor() -> None:
    class Nosy(Recorder):
        def on_start(self) -> None:
            ref = self.begin_child(Slow, f"{HERE}:Mixer", {}, name="slow")
            Mixer.gate.wait_until_reached()
            with pytest.raises(ActorDead, match="slow does not run yet"):
                pykka_ref(ref)
            Mixer.gate.open()

    class Slow(Adopted):
        def on_start(self) -> None:
            Mixer.gate.pass_through()
            super().on_start()

    with System() as system:
        system.start(Nosy)


def test_messages_of_ours_reach_it_through_restarts() -> None:
    with System() as system:
        top = supervise(system, adopted("mixer", Mixer, registered=True))
        named = system.named("mixer")
        assert named.ask(Say("one")) == "one"
        with pytest.raises(RemoteActorError, match="broken"):
            named.ask(Say("fail"))
        assert named.ask(Say("two")) == "two"
        old = system.whereis("mixer")
        assert old is not None
        named.tell(Say("fail"))
        system.wait(old)
        assert status(top).restarts == 1
        assert named.ask(Say("three")) == "three"
        assert [*START, "one", "two", "on_failure ValueError('broken')", *START, "three"] == LOG


class Introduce(Message):
    to: Ref


class Sociable(Mixer):
    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Introduce):
            message.to.tell(Say("hello"))
            return None
        return super().on_receive(message)


def test_its_ref_is_the_sender_of_what_it_sends() -> None:
    senders: list[Ref | None] = []

    class Host(Recorder):
        def on_receive(self, message: Message) -> Any:
            senders.append(self.sender)
            if self.sender is not None:
                self.sender.tell(Say("welcome"))

    with System() as system:
        ref = system.start(Adopted, f"{HERE}:Sociable")
        host = system.start(Host)
        pykka_ref(ref).ask(Introduce(host))
        host.stop(drain=True)
        ref.stop(drain=True)
        assert senders == [ref]
        assert LOG[2:] == ["welcome", "on_stop"]


def test_the_tree_shows_what_it_adopts_and_what_is_in_its_inbox() -> None:
    with System() as system:
        _, ref = supervised(system)
        assert f"pykka {HERE}:Mixer" in system.tree()
        ref.tell("hold")
        Mixer.gate.wait_until_reached()
        for _ in range(3):
            ref.tell("queued")
        assert "3 in its inbox" in system.tree()
        assert "busy" in system.tree()
        Mixer.gate.open()


# --- specs ----------------------------------------------------------------------------------------


def test_keyword_arguments_may_have_any_name() -> None:
    with System() as system:
        _, ref = supervised(system, volume=2, name="main", parent="none")
        assert ref.proxy().options.get() == {"name": "main", "parent": "none"}
        spec = ChildSpec.of("other", Adopted, f"{HERE}:Mixer", {"restart": "never"}, 3)
        other = mixer(supervise_as(system, "other top", spec))
        assert other.proxy().options.get() == {"restart": "never"}
        assert other.proxy().volume.get() == 3


def supervise_as(system: System, name: str, *specs: ChildSpec, **flags: Any) -> Ref:
    return system.start(Supervisor, list(specs), name=name, **flags)


def test_instances_of_one_spec_get_arguments_of_their_own() -> None:
    with System() as system:
        top = supervise_as(
            system, "top", adopted("mixer", Mixer, tracks=2), strategy="simple_one_for_one"
        )
        refs = [pykka_ref(top.ask(StartInstance([volume]))) for volume in (3, 4)]
        assert [ref.proxy().volume.get() for ref in refs] == [3, 4]
        assert [ref.proxy().options.get() for ref in refs] == [{"tracks": 2}] * 2


def test_options_of_the_spec_are_those_of_any_spec() -> None:
    spec = adopted("mixer", Mixer, 1, restart="transient", significant=True, shutdown="infinity")
    assert (spec.restart, spec.significant, spec.shutdown) == ("transient", True, None)
    assert adopted("mixer", f"{HERE}:Mixer").args == [f"{HERE}:Mixer", {}]


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (Recorder, "is not a pykka.ThreadingActor"),
        (Gate, "is not a pykka.ThreadingActor"),
        (OwnStart, "its own start would not be called"),
        (OwnLoop, "its own _start_actor_loop would not be called"),
        (OnlyOne, "its metaclass makes the instances"),
    ],
)
def test_what_cannot_be_adopted_is_refused(theirs: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        adopted("mixer", theirs)
    with System() as system, pytest.raises(StartFailed, match=why):
        system.start(Adopted, f"{theirs.__module__}:{theirs.__qualname__}")


def test_a_local_class_and_arguments_that_no_message_holds_are_refused() -> None:
    class Local(pykka.ThreadingActor):
        pass

    with pytest.raises(ValueError, match="is local"):
        adopted("mixer", Local)
    with System() as system, pytest.raises(StartFailed) as failed:
        supervise(system, adopted("mixer", Mixer, object()))
    assert failed.value.error in (WrongType.__name__, StartFailed.__name__)


def test_it_cannot_be_simulated() -> None:
    with System(simulation=1) as system, pytest.raises(StartFailed) as failed:
        system.start(Adopted, f"{HERE}:Mixer")
    assert failed.value.error == ActorError.__name__
    assert "cannot be simulated" in failed.value.text
    assert LOG == []
