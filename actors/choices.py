"""The one stream of choices that a simulated run is made of.

Every decision of a run, whoever makes it, is the next number of one stream. A seeded stream draws
it at random; a replayed one hands out numbers that were recorded. What was handed out is in
`recorded`, and a run that replays it takes the same decisions.

Rules: 0 is always the plain thing (go on with whoever waits longest, no preemption, no fault), so
that lowering and cutting a recording, which is how a failure is shrunk, makes the run plainer. For
the same reason any numbers can be replayed: one that is too high counts as the highest that is
allowed, a negative one as 0, and when they are used up the rest are 0.

What can be decided in one way only is no choice: it takes nothing from the stream, and is not
recorded. The seed alone decides what is drawn: not the platform, not PYTHONHASHSEED, and not the
version of Python, for which `Random.random` is the one method that is promised never to change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator


class Choices:
    """Made by `seeded` or `replayed`."""

    __slots__ = ("_random", "_values", "recorded")

    def __init__(self, draw: Callable[[], float] | None, values: Iterable[int]) -> None:
        self._random = draw
        self._values: Iterator[int] = iter(values)
        self.recorded: list[int] = []

    @classmethod
    def seeded(cls, seed: int) -> Choices:
        """Random ones. Raises ValueError if ``seed`` is negative: it would be the same as -seed."""
        if seed < 0:
            raise ValueError(f"a seed is 0 or more, not {seed}")
        return cls(random.Random(seed).random, ())  # noqa: S311 - repeatable is the point

    @classmethod
    def replayed(cls, values: Iterable[int]) -> Choices:
        """Those that were recorded before, then 0 for ever."""
        return cls(None, [max(0, value) for value in values])

    def pick(self, n: int, plain: float = 0.0) -> int:
        """One of range(n); of one, without a choice.

        ``plain``: with that probability 0 at once, else any of them alike. A replay has no use for
        it. Raises ValueError if there is nothing to pick from.
        """
        if n <= 1:
            if n < 1:
                raise ValueError(f"there is nothing to pick from: n is {n}")
            return 0
        draw = self._random
        if draw is None:
            value = next(self._values, 0)
            if value >= n:
                value = n - 1
        elif plain > 0 and draw() < plain:
            value = 0
        else:
            value = int(draw() * n)  # below n for every n up to 2**53: see the tests
        self.recorded.append(value)
        return value

    def chance(self, probability: float) -> bool:
        """Whether it happens. What has no chance at all is no choice; what is certain still is.

        So a shrunk run can go without something that each seeded one had.
        """
        if probability <= 0:
            return False
        draw = self._random
        happens = next(self._values, 0) > 0 if draw is None else draw() < probability
        self.recorded.append(1 if happens else 0)
        return happens

    def fraction(self, steps: int = 16) -> float:
        """0.0, 1.0, or one of the ``steps`` - 1 numbers evenly between them."""
        if steps < 1:
            raise ValueError(f"steps is 1 or more, not {steps}")
        return self.pick(steps + 1) / steps
