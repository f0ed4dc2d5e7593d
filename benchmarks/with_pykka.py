"""Stock pykka as a contestant (trips.py): an actor on another thread, which no other one has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pykka

from benchmarks.trips import BODY, Measure, ahead, flooded, timed


class Echo(pykka.ThreadingActor):
    """Answers with the body."""

    def on_receive(self, message: Any) -> Any:
        return message


@contextmanager
def round_trip() -> Iterator[Measure]:
    """Asked one by one."""
    with _actor() as ref:
        yield timed(partial(ref.ask, BODY))


@contextmanager
def in_flight() -> Iterator[Callable[[int], float]]:
    """`DEPTH` asked ahead."""
    asked: deque[pykka.Future[Any]] = deque()
    with _actor() as ref:
        yield flooded(
            ahead(
                lambda: asked.append(ref.ask(BODY, block=False)),
                lambda: asked.popleft().get(),
            )
        )


@contextmanager
def _actor() -> Iterator[pykka.ActorRef[Echo]]:
    ref = Echo.start()
    yield ref
    ref.stop()
