"""A bank whose operations may not be done twice, and its wrong twins.

What is in a `Ledger` outlives each incarnation of the driver, as an image file does. It keeps every
effect in order, and says what is wrong as soon as it is: see `Ledger.check`.

Body of a request: (operation, id, how); the id is the caller's own, none comes twice.

    add       one effect, "credit"
    transfer  two effects, "debit" and then "credit"; who dies in between has done it in part
    refuse    raises `Overdrawn` and has no effect
    read      the ids of all that was credited; idempotent

How: "inline", "offload", or "stream": offloaded, what it needs comes and goes in data phases. An
operation stops to think before and after each effect, so that anything can happen there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypervisor import PeerState
from transport import BackEnd, BackEndActor, Request
from transport.serving import Connection

PARTS = {"add": ("credit",), "transfer": ("debit", "credit"), "refuse": (), "read": ()}
"""Operation -> its effects, in order."""

PIECE = 1000  # bytes of a data phase
PIECES = 3


class Overdrawn(Exception):
    """The bank's own error: nothing was done."""


class Effect(NamedTuple):
    """``epoch``: of the connection that asked for it."""

    id: int
    part: str
    epoch: int
    incarnation: int


@dataclass
class Ledger:
    """The platter.

    Attributes:
        think: called before and after each effect.
        is_over: whether the simulation is; what is unwound then meets nobody.
        effects: in order.
        taken: ids of the operations, not idempotent, that a back end was about to begin.
        repeatable: ids whose callers allowed that they are done twice.
        incarnation, epoch: the newest.
    """

    think: Callable[[], object]
    is_over: Callable[[], bool]

    def __post_init__(self) -> None:
        self.effects: list[Effect] = []
        self.taken: set[int] = set()
        self.repeatable: set[int] = set()
        self.incarnation = 0
        self.epoch = 0
        self._wrong: list[str] = []
        self._checked = 0
        self._seen: set[tuple[int, str]] = set()

    def write(self, effect: Effect) -> None:
        """It is done."""
        if self.is_over():
            return
        self.effects.append(effect)
        if effect.epoch < self.epoch or effect.incarnation < self.incarnation:
            self._wrong.append(f"{effect}, in epoch {self.epoch} of {self.incarnation}")

    def check(self) -> None:
        """Whether all is well so far. Raises AssertionError."""
        assert not self._wrong, f"an effect of what is over: {self._wrong}"
        for effect in self.effects[self._checked :]:
            key = (effect.id, effect.part)
            assert effect.id in self.repeatable or key not in self._seen, f"done twice: {effect}"
            self._seen.add(key)
        self._checked = len(self.effects)

    def parts_of(self, number: int) -> Counter[str]:
        """How often each part of that operation was done."""
        return Counter(effect.part for effect in self.effects if effect.id == number)

    def credited(self) -> list[int]:
        """In order of the effects."""
        return [effect.id for effect in self.effects if effect.part == "credit"]


LEDGERS: dict[str, Ledger] = {}
"""By name, since drivers begin with names."""


class Bank(BackEnd):
    """The right one."""

    runner = "tests.simulation.bank:BankActor"
    workers = 3

    def on_start(self, name: str) -> None:
        self.ledger = LEDGERS[name]
        self.ledger.incarnation += 1
        self.incarnation = self.ledger.incarnation
        self.epoch = 0  # of the connection that is served just now

    def is_idempotent(self, body: Any) -> bool:
        if body[0] == "read":
            return True
        self.ledger.taken.add(body[1])
        return False

    def on_request(self, request: Request) -> Any:
        operation, number, how = request.body
        match how:
            case "inline":
                return self.operate(operation, number, self.epoch)
            case "offload":
                return self.offload(self.operate, operation, number, self.epoch)
        return self.offload(self.stream, request, operation, number, self.epoch)

    def operate(self, operation: str, number: int, epoch: int) -> Any:
        self.ledger.think()
        if operation == "refuse":
            raise Overdrawn(str(number))
        if operation == "read":
            return self.ledger.credited()
        for part in PARTS[operation]:
            self.ledger.write(Effect(number, part, epoch, self.incarnation))
            self.ledger.think()
        return number

    def stream(self, request: Request, operation: str, number: int, epoch: int) -> Any:
        sent = b""
        while piece := request.pull(PIECE):
            sent += piece
            self.ledger.think()
        if sent != sent_with(number):
            raise ValueError("the wrong data")
        result = self.operate(operation, number, epoch)
        request.push(receipt(number))
        return result


def sent_with(number: int) -> bytes:
    """What the caller of an operation sends in data phases."""
    return bytes([number % 256]) * (PIECE * PIECES)


def receipt(number: int) -> bytes:
    """What it is sent back."""
    return b"%8d" % number


class BankActor(BackEndActor):
    """Tells the driver which epoch it serves, and the ledger when one begins."""

    def _accept(self, front: tuple[int, int], said: PeerState) -> None:
        bank = self._driver
        assert isinstance(bank, Bank)
        bank.ledger.epoch = max(bank.ledger.epoch, said.epoch)
        super()._accept(front, said)

    def _serve(self, connection: Connection) -> None:
        bank = self._driver
        assert isinstance(bank, Bank)
        bank.epoch = connection.epoch
        super()._serve(connection)


# --- wrong ----------------------------------------------------------------------------------------


class EarlyBank(Bank):
    """Answers, and does it when the next request comes."""

    def on_start(self, name: str) -> None:
        super().on_start(name)
        self.put_off: list[tuple[str, int]] = []

    def on_request(self, request: Request) -> Any:
        todo, self.put_off = self.put_off, []
        for operation, number in todo:
            super().operate(operation, number, self.epoch)
        return super().on_request(request)

    def operate(self, operation: str, number: int, epoch: int) -> Any:
        if operation not in ("add", "transfer"):
            return super().operate(operation, number, epoch)
        self.put_off.append((operation, number))
        return number


class LateJournalBank(Bank):
    """Has it in the journal that an operation began when that is over."""

    runner = "tests.simulation.bank:LateJournalActor"


class _LateJournal:
    def __init__(self, connection: Connection) -> None:
        self._journal = connection.journal
        self._late: list[int] = []

    def begin(self, number: int) -> None:
        self._late.append(number)

    def begin_late(self) -> None:
        while self._late:
            self._journal.begin(self._late.pop())


class LateJournalActor(BankActor):
    """See `LateJournalBank`."""

    def _accept(self, front: tuple[int, int], said: PeerState) -> None:
        super()._accept(front, said)
        connection = self._connections.get(front)
        if connection is None:
            return
        late = _LateJournal(connection)
        connection.journal = late  # type: ignore[assignment]
        on_request = self._on_request

        def begins_late(request: Request) -> Any:
            try:
                return on_request(request)
            finally:
                late.begin_late()

        self._on_request = begins_late


class HastyBank(Bank):
    """Serves a front end again while work for its earlier connection still runs."""

    runner = "tests.simulation.bank:HastyActor"


class HastyActor(BankActor):
    """See `HastyBank`."""

    def _on_idle(self, front: tuple[int, int]) -> None:
        self._ending.pop(front, None)
        super()._on_idle(front)
