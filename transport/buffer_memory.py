"""The buffer memory of a channel: which buffers there are, and which pages they have.

The region outlives every back end. When one goes its pages are taken back (`renew`): a buffer that
is in flight gets its contents copied to new ones at once, because the next back end is to see them.
One in its holder's hands keeps its pages, because the holder may be writing to it now; it is marked
``moved``, and gets new ones when it is handed over, or given back.

All of it is called under the channel's lock, but for `reserve`, which takes long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypervisor import Region
from transport.buffers import LocalBuffer
from transport.pool import Pool

if TYPE_CHECKING:
    from transport.frontend import FrontEnd


class BufferMemory:
    """``size`` bytes, a power of two.

    Attributes:
        region: the memory itself.

    Raises:
        ValueError: no channel has so many bytes.
    """

    def __init__(self, size: int) -> None:
        self._pool = Pool(size)
        self._reserved = True
        self.region = Region(size, name="xenidc-buffers")
        self._buffers: dict[int, LocalBuffer] = {}  # by where they start

    def take(self, channel: FrontEnd, size: int) -> LocalBuffer:
        """A buffer of that size.

        Raises:
            BuffersExhausted: nothing is free.
        """
        start = self._pool.take(size)
        buffer = LocalBuffer(channel, start, size, self.region.view[start : start + size])
        self._buffers[start] = buffer
        return buffer

    def release(self, buffer: LocalBuffer) -> None:
        """Its holder has no use for it any more; idempotent."""
        if not buffer.released:
            buffer.released = True
            if buffer.in_flight == 0:
                self.free(buffer)

    def hand_over(self, buffer: LocalBuffer) -> None:
        """A request carries it."""
        if buffer.moved:
            self._settle(buffer)
            buffer.moved = False
        buffer.in_flight += 1

    def hand_back(self, buffer: LocalBuffer) -> None:
        """A request with it has ended."""
        buffer.in_flight -= 1
        if buffer.released and buffer.in_flight == 0:
            self.free(buffer)

    def free(self, buffer: LocalBuffer) -> None:
        """It is no buffer any more, if it still was one."""
        if self._buffers.pop(buffer.start, None) is not None:
            if buffer.moved:
                self._settle(buffer)
            self._pool.give(buffer.start, buffer.size)

    def free_bytes(self) -> int:
        """What is in no buffer."""
        return self._pool.free_bytes()

    def renew(self, spans: list[tuple[int, int]]) -> None:
        """Take these spans (start and bytes) back from who has mapped them; see `reserve`."""
        keep, held = [], []
        for buffer in self._buffers.values() if spans else ():
            span = (buffer.start, max(1, buffer.size))
            if buffer.in_flight and not buffer.moved:
                keep.append(span)
            else:
                held.append(span)
                buffer.moved = True
        self._reserved = False
        self.region.renew(spans, keep, held)

    def reserve(self) -> None:
        """Have all pages allocated; not while `renew` or `close` runs.

        Raises:
            OSError: there is no memory for them.
        """
        if not self._reserved:
            self._reserved = True
            self.region.reserve()

    def close(self) -> None:
        """Give it back; buffers read zeros from now on."""
        self.region.close()

    def _settle(self, buffer: LocalBuffer) -> None:
        self.region.settle(buffer.start, max(1, buffer.size))
