"""Wrong: read, then write what was read and a bit more. Two clients that do it at the same time
both read the old balance, and what one of them paid in is lost. Corrected: the account adds.
"""

from __future__ import annotations

from typing import Any

from actors import Actor, Message, Options, Ref, System

OPTIONS = Options()


class Read(Message):
    pass


class Write(Message):
    balance: int


class Add(Message):
    amount: int


class PayIn(Message):
    amount: int


class Account(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.balance = 0

    def on_receive(self, message: Message) -> Any:
        match message:
            case Read():
                return self.balance
            case Write(balance):
                self.balance = balance
            case Add(amount):
                self.balance += amount
        return None


class Client(Actor):
    def __init__(self, account: Ref, adds: bool) -> None:
        super().__init__()
        self.account = account
        self.adds = adds

    def on_receive(self, message: Message) -> None:
        if isinstance(message, PayIn):
            if self.adds:
                self.account.tell(Add(message.amount))
            else:
                balance = self.account.ask(Read())
                self.account.tell(Write(balance + message.amount))


def run(system: System, *, adds: bool) -> None:
    assert system.simulation is not None
    account = system.start(Account, name="account")
    for name in ("alice", "bob"):
        system.start(Client, account, adds, name=name).tell(PayIn(10))
    system.simulation.settle()
    assert account.ask(Read()) == 20, "somebody's money is gone"


def test(system: System) -> None:
    run(system, adds=False)


def corrected(system: System) -> None:
    run(system, adds=True)
