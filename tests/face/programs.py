"""What the topologies of these tests run."""

from __future__ import annotations

from typing import Any

from transport import BackEnd, FrontEnd, Request


class Echo(BackEnd):
    """Answers with the body."""

    idempotent = True

    def on_request(self, request: Request) -> Any:
        return request.body


class Forgetful(BackEnd):
    """Wrong: what it was told is in itself alone."""

    idempotent = True

    def on_start(self) -> None:
        self.told: list[Any] = []

    def on_request(self, request: Request) -> Any:
        if request.body not in self.told:
            self.told.append(request.body)
        return len(self.told)


def three(*channels: FrontEnd) -> None:
    """Three requests on each."""
    for channel in channels:
        assert [channel.call(body) for body in "abc"] == ["a", "b", "c"]


def counts(channel: FrontEnd) -> None:
    """Right only if nothing is forgotten."""
    assert [channel.call(number) for number in range(3)] == [1, 2, 3], "it has forgotten"


def fails(*_channels: FrontEnd) -> None:
    """A workload that finds something wrong."""
    raise ValueError("two and two\nare five")


def for_ever(channel: FrontEnd) -> None:
    """It ends with its channel."""
    while True:
        channel.call("again")
