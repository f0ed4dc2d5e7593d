"""Which stretch of a channel's buffer memory is free: a pure allocator of page-aligned spans.

Spans are powers of two of pages. A freed span goes to the front of its size's list, so that the
next request of that size gets warm pages in constant time; neighbours are joined only when an
allocation finds nothing, because a load that repeats its sizes never needs it.
"""

from __future__ import annotations

from transport.errors import BuffersExhausted

PAGE = 4096


class Pool:
    """Spans of ``size`` bytes, which is a power of two and at least a page."""

    def __init__(self, size: int) -> None:
        if size < PAGE or size & (size - 1):
            raise ValueError(f"a pool is a power of two of at least {PAGE} bytes, not {size}")
        self.size = size
        self._free: dict[int, list[int]] = {}
        span = PAGE
        while span <= size:
            self._free[span] = []
            span *= 2
        self._free[size].append(0)

    def span_of(self, length: int) -> int:
        """How many bytes a buffer of ``length`` bytes occupies."""
        return PAGE if length <= PAGE else 1 << (length - 1).bit_length()

    def take(self, length: int) -> int:
        """The start of a free span for ``length`` bytes.

        Raises:
            ValueError: no pool of this size could ever hold that.
            BuffersExhausted: none is free.
        """
        span = self.span_of(length)
        free = self._free.get(span)
        if free is None:
            raise ValueError(f"a buffer of {length} bytes does not fit into {self.size}")
        if free:
            return free.pop()
        start = self._split(span)
        if start is None:
            self._join()
            start = free.pop() if free else self._split(span)
        if start is None:
            raise BuffersExhausted(f"no {span} bytes of {self.size} are free in one piece")
        return start

    def give(self, start: int, length: int) -> None:
        """Free what `take` gave for ``length`` bytes."""
        self._free[self.span_of(length)].append(start)

    def free_bytes(self) -> int:
        """How much is free, in whatever pieces."""
        return sum(span * len(starts) for span, starts in self._free.items())

    def _split(self, span: int) -> int | None:
        larger = span * 2
        while larger <= self.size and not self._free[larger]:
            larger *= 2
        if larger > self.size:
            return None
        start = self._free[larger].pop()
        while larger > span:
            larger //= 2
            self._free[larger].append(start + larger)
        return start

    def _join(self) -> None:
        for span in sorted(self._free)[:-1]:
            starts = set(self._free[span])
            pairs = [start for start in starts if not start & span and start + span in starts]
            for start in pairs:
                starts -= {start, start + span}
            self._free[span][:] = sorted(starts, reverse=True)
            self._free[span * 2].extend(pairs)
