"""Wrong: two shops that ask each other for what they have not got. If both do it at the same time,
each waits for the other one. Corrected: they tell, and answer when the other one has.
"""

from __future__ import annotations

from typing import Any

from actors import Actor, Message, Options, Ref, Reply, System

OPTIONS = Options()


class Meet(Message):
    other: Ref


class Buy(Message):
    thing: str


class Order(Message):
    thing: str


class Delivery(Message):
    thing: str


class Shop(Actor):
    def __init__(self, things: list[str], asks: bool) -> None:
        super().__init__()
        self.things = things
        self.asks = asks
        self.customers: list[Reply] = []

    def on_receive(self, message: Message) -> Any:
        match message:
            case Meet(other):
                self.other = other
            case Buy(thing) if thing in self.things:
                return thing
            case Buy(thing):
                if self.asks:
                    return self.other.ask(Buy(thing))
                self.other.tell(Order(thing))
                self.customers.append(self.reply_later())
            case Order(thing):
                self.other.tell(Delivery(thing))
            case Delivery(thing):
                self.customers.pop(0).send(thing)
        return None


def run(system: System, *, asks: bool) -> None:
    baker = system.start(Shop, ["bread"], asks, name="baker")
    grocer = system.start(Shop, ["milk"], asks, name="grocer")
    baker.ask(Meet(grocer))
    grocer.ask(Meet(baker))
    milk, bread = baker.ask_future(Buy("milk")), grocer.ask_future(Buy("bread"))
    assert (milk.result(), bread.result()) == ("milk", "bread")


def test(system: System) -> None:
    run(system, asks=True)


def corrected(system: System) -> None:
    run(system, asks=False)
