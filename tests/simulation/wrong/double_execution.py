"""Wrong: a client that sends a payment again when the bank did not answer in time, though the bank
may have been about to: it pays twice. Corrected: a payment has a number, and is done once.
"""

from __future__ import annotations

import contextlib
from typing import Any

from actors import Actor, AskTimeout, Faults, Message, Options, Ref, System

OPTIONS = Options(Faults(kinds=["slow"]))


class Pay(Message):
    amount: int
    number: int | None


class Paid(Message):
    pass


class Bank(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.paid = 0
        self.numbers: set[int] = set()

    def on_receive(self, message: Message) -> Any:
        match message:
            case Pay(amount, number):
                if number is None or number not in self.numbers:
                    self.paid += amount
                if number is not None:
                    self.numbers.add(number)
            case Paid():
                return self.paid
        return None


class Client(Actor):
    def __init__(self, bank: Ref) -> None:
        super().__init__()
        self.bank = bank

    def on_receive(self, message: Message) -> None:
        paid = False
        while not paid:
            with contextlib.suppress(AskTimeout):
                self.bank.ask(message, timeout=1.0)
                paid = True


def run(system: System, *, number: int | None) -> None:
    assert system.simulation is not None
    bank = system.start(Bank, name="bank")
    system.start(Client, bank, name="client").tell(Pay(10, number))
    system.simulation.advance(60)
    system.simulation.settle()
    assert bank.ask(Paid()) == 10, "it was paid more than once"


def test(system: System) -> None:
    run(system, number=None)


def corrected(system: System) -> None:
    run(system, number=1)
