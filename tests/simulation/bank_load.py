"""A load on a bank of a simulated machine (bank.py), and what must hold whatever goes wrong.

1. Every request ends once.
2. What was acknowledged has been done, and who reads afterwards sees it.
3. Nothing is done twice, unless its caller allowed that (`OnLoss.REISSUE`).
4. `OutcomeUnknown`: only of what a back end was about to begin; or of what was to be sent once at
   most (`OnLoss.FAIL`); or when its caller has cancelled what a back end was lost with.
5. `Cancelled`: nothing was done.
6. Nothing is done for an epoch, or by an incarnation, once the next one has begun.

3 and 6 are looked at after every step (`Ledger.check`), the others as the requests end, and again
when the machine has.

Callers: actors that call, some with a deadline, beside an event loop that also cancels, or a test
that holds futures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

from actors import Actor, Faults, Future, Message, Options, Scheduler, System
from hypervisor import DOMAIN_FAULTS, DomainStartError, Machine
from tests.simulation.bank import (
    LEDGERS,
    PARTS,
    Bank,
    EarlyBank,
    HastyBank,
    LateJournalBank,
    Ledger,
    receipt,
    sent_with,
)
from transport import (
    Cancelled,
    Completion,
    DeadlineExceeded,
    FrontEnd,
    OnLoss,
    OutcomeUnknown,
    RemoteError,
    connect,
)

FAULTS = Faults(DOMAIN_FAULTS, rate=0.01, limit=3)
OPTIONS = Options(FAULTS)

ROUNDS = 2
CALLERS = 3
OTHERS = 3  # requests of the event loop, or futures, in each round

Choose = Any  # Scheduler.choose


@dataclass
class Ask:
    """One request; ``before``: what had been acknowledged when it was made."""

    id: int
    operation: str
    how: str
    on_loss: OnLoss
    timeout: float | None = None
    cancelled: bool = False
    before: frozenset[int] = frozenset()
    receive: bytearray = field(default_factory=bytearray)

    @property
    def body(self) -> tuple[str, int, str]:
        return (self.operation, self.id, self.how)

    def data(self) -> dict[str, Any]:
        """What it sends, and where it receives."""
        if self.how != "stream":
            return {}
        self.receive = bytearray(len(receipt(self.id)))
        return {"send": sent_with(self.id), "receive": self.receive}


class Claims:
    """All that was asked, and what its callers were told."""

    def __init__(self, ledger: Ledger, choose: Choose, *, reissues: bool) -> None:
        self._reissues = reissues
        self._ledger = ledger
        self._choose = choose
        self.asked: dict[int, Ask] = {}
        self.ended: dict[int, str] = {}
        self._acknowledged: set[int] = set()

    def ask(self) -> Ask:
        """A new request, of any kind."""
        choose = self._choose
        ask = Ask(
            len(self.asked),
            ("add", "transfer", "add", "read", "refuse")[choose(5)],
            ("inline", "offload", "stream")[choose(3)],
            (OnLoss.SETTLE, OnLoss.SETTLE, OnLoss.REISSUE, OnLoss.FAIL)[choose(4)],
            before=frozenset(self._acknowledged),
        )
        self.asked[ask.id] = ask
        if ask.on_loss is OnLoss.REISSUE:
            self._ledger.repeatable.add(ask.id)
        return ask

    def loss_of(self, ask: Ask) -> OnLoss:
        """What it is sent with."""
        return OnLoss.REISSUE if self._reissues else ask.on_loss

    def has_ended(self, ask: Ask, result: Any, error: Exception | None) -> None:
        """Its caller was told so."""
        assert ask.id not in self.ended, f"it has ended twice: {ask}"
        match error:
            case None:
                self._acknowledge(ask, result)
                self.ended[ask.id] = "done"
            case RemoteError():
                assert (error.error, ask.operation) == ("Overdrawn", "refuse"), (ask, error)
                self.ended[ask.id] = "refused"
            case OutcomeUnknown():
                self._judge_unknown(ask)
                self.ended[ask.id] = "unknown"
            case Cancelled():
                assert ask.cancelled, f"nobody has cancelled it: {ask}"
                self.ended[ask.id] = "cancelled"
            case DeadlineExceeded():
                assert ask.timeout is not None, f"it had no deadline: {ask}"
                self.ended[ask.id] = "overdue"
            case _:
                raise error

    def _acknowledge(self, ask: Ask, result: Any) -> None:
        if ask.operation == "read":
            assert ask.before <= set(result), f"acknowledged, and not there: {ask}"
        else:
            assert result == ask.id, f"another one's answer: {ask}"
            self._acknowledged.add(ask.id)
        if ask.how == "stream":
            assert ask.receive == receipt(ask.id), f"another one's data: {ask}"

    def _judge_unknown(self, ask: Ask) -> None:
        known = (
            ask.cancelled
            or ask.on_loss is OnLoss.FAIL
            or (ask.on_loss is OnLoss.SETTLE and ask.id in self._ledger.taken)
        )
        assert known, f"it is known that it can be sent again: {ask}"

    def audit(self) -> None:
        """The machine has ended, and nothing is in flight any more."""
        self._ledger.check()
        assert self.ended.keys() == self.asked.keys(), "somebody was not answered"
        for ask in self.asked.values():
            wanted = Counter(PARTS[ask.operation])
            done, how = self._ledger.parts_of(ask.id), self.ended[ask.id]
            if how == "done":
                assert wanted <= done, f"acknowledged, and not done: {ask}"
            if how in ("cancelled", "refused"):
                assert not done, f"{how}, and done: {ask}"


class Call(Message):
    """Make the request of that number."""

    id: int


class Caller(Actor):
    """One that calls, beside others; it answers when it was answered."""

    def __init__(self, channel: FrontEnd) -> None:
        super().__init__()
        self.channel = channel

    claims: ClassVar[Claims]  # of this run; no message carries it

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, Call)
        ask = self.claims.asked[message.id]
        data = ask.data()
        result, error = None, None
        try:
            result = self.channel.call(
                ask.body, timeout=ask.timeout, on_loss=self.claims.loss_of(ask), **data
            )
        except Exception as raised:  # noqa: BLE001 - the claims judge it
            error = raised
        self.claims.has_ended(ask, result, error)


def by_event_loop(
    channel: FrontEnd, claims: Claims, asked: list[Ask], choose: Choose, called: list[Future]
) -> None:
    """One loop submits, cancels and reaps, for those that call as well."""
    made: list[Completion] = []
    for ask in asked:
        made.append(channel.submit(ask.body, None, ask, on_loss=claims.loss_of(ask), **ask.data()))
        if choose(2):
            channel.push()
    channel.push()
    left, rounds = len(asked), 1000
    while left or not all(future.settled for future in called):
        request = made[choose(len(made))]
        if not request.done and choose(4) == 1:
            request.token.cancelled = True
            channel.cancel(request)
        channel.wait(0.5)  # nothing wakes it when a caller's deadline has come
        rounds -= 1
        assert rounds, "there is no answer"
        for completion in channel.reap():
            left -= 1
            claims.has_ended(completion.token, completion.result, completion.error)


def by_futures(
    channel: FrontEnd, claims: Claims, asked: list[Ask], choose: Choose, called: list[Future]
) -> None:
    """The test waits for futures, in the order in which it made them."""
    del choose, called
    futures = [
        channel.future(each.body, on_loss=claims.loss_of(each), **each.data()) for each in asked
    ]
    for ask, future in zip(asked, futures, strict=True):
        result, error = None, None
        try:
            result = future.result(1000)
        except Exception as raised:  # noqa: BLE001 - the claims judge it
            error = raised
        claims.has_ended(ask, result, error)


def think(simulation: Scheduler) -> None:
    """Let others go first, or time pass."""
    if not simulation.is_over and (moment := simulation.choose(4)):
        simulation.pause((0.0, 0.0, 0.0, 0.2)[moment])


def run(system: System, bank: type[Bank], *, reissues: bool = False) -> Claims:
    """One machine, one bank, some rounds of requests. ``reissues``: wrong, all are sent again."""
    simulation = system.simulation
    assert simulation is not None
    choose = simulation.choose
    ledger = LEDGERS["bank"] = Ledger(lambda: think(simulation), lambda: simulation.is_over)
    simulation.invariant(ledger.check)
    claims = Caller.claims = Claims(ledger, choose, reissues=reissues)
    other = (by_event_loop, by_futures)[choose(2)]
    with Machine(system=system, intensity=1000) as machine:
        start(machine, bank)
        with connect(machine, "bank", slots=16, buffer_bytes=1 << 17, timeout=1000) as channel:
            for _ in range(ROUNDS):
                callers = [system.start(Caller, channel) for _ in range(choose(CALLERS + 1))]
                called = []
                for caller in callers:
                    ask = claims.ask()
                    ask.timeout = (None, None, 0.3)[choose(3)]
                    called.append(caller.ask_future(Call(ask.id), 1000))
                other(channel, claims, [claims.ask() for _ in range(OTHERS)], choose, called)
                for future in called:
                    future.result()
                for caller in callers:
                    caller.stop()
    claims.audit()
    return claims


def start(machine: Machine, bank: type[Bank]) -> None:
    """Whoever starts a domain that dies at once hears of it, and starts it again."""
    while True:
        try:
            machine.start("bank", bank, "bank")
        except DomainStartError:
            continue
        return


def test(system: System) -> None:
    """The right bank."""
    run(system, Bank)


def early(system: System) -> None:
    """It answers before the effect."""
    run(system, EarlyBank)


def late_journal(system: System) -> None:
    """Its journal has it after the effect."""
    run(system, LateJournalBank)


def hasty(system: System) -> None:
    """It does not wait for the work of the connection before."""
    run(system, HastyBank)


def reissuing(system: System) -> None:
    """Its front end sends everything again."""
    run(system, Bank, reissues=True)
