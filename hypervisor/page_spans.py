"""Sets of pages, as spans: which pages are gone, and whose spans touch which pages.

Pure. A `Span` is (first page, page after the last), never empty. `SpanSet` is a set of pages.
`SpanIndex` holds overlapping spans, each with a number, and finds those on given pages, and the
*island* of given pages: what one reaches from them by going from span to span over shared pages.

Cost: what is around the pages asked for, not what there is (both are sorted lists). Corner case:
one very wide span in an index makes every search walk further to the left; never further than once
through the list.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import itemgetter

Span = tuple[int, int]

_stop = itemgetter(1)


def span_of(offset: int, length: int, page: int) -> Span:
    """The pages that ``length`` bytes from ``offset`` touch."""
    return offset // page, -(-(offset + length) // page)


class SpanSet:
    """A set of pages, as few spans as possible, in order."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._pages = 0

    def __len__(self) -> int:
        """How many pages."""
        return self._pages

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def overlaps(self, span: Span) -> bool:
        before = bisect_left(self._spans, (span[1],))  # so many start before it stops
        return before > 0 and self._spans[before - 1][1] > span[0]

    def add(self, span: Span) -> list[Span]:
        """Put the pages in; returns those that were not there."""
        start, stop = span
        low = bisect_left(self._spans, start, key=_stop)  # the first that overlaps or adjoins it
        high = bisect_left(self._spans, (stop + 1,))
        touched = self._spans[low:high]
        new, at = [], start
        for first, last in touched:
            if first > at:
                new.append((at, first))
            at = last
        if at < stop:
            new.append((at, stop))
        if touched:
            start, stop = min(start, touched[0][0]), max(stop, touched[-1][1])
        self._spans[low:high] = [(start, stop)]
        self._pages += sum(last - first for first, last in new)
        return new


class SpanIndex:
    """Numbered spans, which may overlap."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int]] = []
        self._widest = 0

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: Span, number: int) -> None:
        insort(self._spans, (*span, number))
        self._widest = max(self._widest, span[1] - span[0])

    def remove(self, span: Span, number: int) -> None:
        del self._spans[bisect_left(self._spans, (*span, number))]
        if not self._spans:
            self._widest = 0

    def overlapping(self, span: Span) -> list[int]:
        """The numbers of the spans that have a page in common with this one."""
        found = []
        for at in range(self._from(span[0]), len(self._spans)):
            first, last, number = self._spans[at]
            if first >= span[1]:
                break
            if last > span[0]:
                found.append(number)
        return found

    def island(self, span: Span) -> Span:
        """``span``, with every span that overlaps it, and every one that overlaps those..."""
        start, stop = span
        at = middle = bisect_left(self._spans, (start,))
        while at > 0 and self._spans[at - 1][0] > start - self._widest:
            at -= 1
            first, last, _ = self._spans[at]
            if last > start:
                start, stop = first, max(stop, last)
        for at in range(middle, len(self._spans)):
            first, last, _ = self._spans[at]
            if first >= stop:
                break
            stop = max(stop, last)
        return start, stop

    def _from(self, start: int) -> int:
        """Nothing before this place in the list reaches the page ``start``."""
        return bisect_left(self._spans, (start - self._widest + 1,))
