"""A filter that keeps all changes of a disk in an overlay, and leaves the disk itself as it is.

Changed blocks are in the overlay (overlay.py), whose data is served by a `Disk` of its own; all
others are read from what is below. Start argument: the overlay's path; it is made if need be.

1. READ is split into runs of changed and of unchanged blocks: each is read where it is, straight
   into the front end's pages.
2. WRITE, TRIM and WRITE_ZEROES (to which TRIM is the same) write to the overlay, then put the
   blocks into its map. Of a block that is changed in part for the first time, the rest is copied
   from below before that. What is below does not change: it can be read at any time before.
3. One change at a time, by a lock: else two that change parts of one block would both copy its
   rest, over each other's. The endpoint's thread never waits for it: a change that would, or that
   has to wait for what is below, is offloaded.
4. FLUSH, and FUA on anything: data, then map, then the answer; see overlay.py. The disk below is
   not flushed: nothing of it was changed.
5. BLOCK_STATUS answers for the first run only, which the protocol allows.

All is idempotent if what is below is. Killed anywhere, a change is there in whole blocks or not at
all as far as blocks enter the map; it was not answered, and is sent again.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from actors import Lock
from examples.block import protocol as p
from examples.block.disk import Disk
from examples.block.overlay import BLOCK, OverlayMaps
from transport import Filter, LocalMemory, Offloaded, RemoteBuffer, Request

_WITH_BUFFER: Final = {p.READ, p.WRITE, p.BLOCK_STATUS}
_CHANGES: Final = {p.WRITE, p.TRIM, p.WRITE_ZEROES}


class _Edge:
    """A block that is changed in part, and was not before: what it is below.

    ``reading``: the work that will say so, None when it is known.
    """

    def __init__(self, block: int, old: RemoteBuffer, reading: Offloaded | None) -> None:
        self.block = block
        self.old = old
        self.reading = reading


class CopyOnWriteFilter(Filter):
    """See the top of the module. Raises `OverlayError` when the overlay cannot be used."""

    def on_attach(self, path: str) -> None:
        info = self._below(p.INFO, 0, 0)
        self._size = (info.run() if type(info) is Offloaded else info)[0]
        self._maps = OverlayMaps(path, self._size)
        self._data = Disk()
        try:
            self._data.on_start(path)
        except BaseException:
            self._maps.close()
            raise
        self._changing: Lock = self.runtime.lock(f"a change of {path}")
        self._flushing: Lock = self.runtime.lock(f"a flush of {path}")

    def on_detach(self) -> None:
        self._data.on_stop()
        self._maps.close()

    def on_request(self, request: Request) -> Any:
        operation, offset, length, flags = request.body
        buffer = request.buffer
        if operation == p.INFO:
            return [self._size, 0]
        if offset < 0 or length < 0 or offset + length > self._size:
            raise OSError(errno.EINVAL, f"{length} bytes at {offset} are not all on the disk")
        if (operation in _WITH_BUFFER) != (buffer is not None):
            raise OSError(errno.EINVAL, f"no operation {operation} has this shape")
        if buffer is not None and operation != p.BLOCK_STATUS and buffer.length != length:
            raise OSError(errno.EINVAL, f"{length} bytes in a buffer of {buffer.length}")
        if operation == p.READ and buffer is not None:
            return self._read(offset, buffer)
        if operation in _CHANGES:
            return self._begin(operation, offset, length, flags, buffer)
        if operation == p.BLOCK_STATUS and buffer is not None and length:
            return self._block_status(offset, length, flags, buffer)
        if operation == p.FLUSH:
            return self.offload(self._sync)
        if operation == p.CACHE:
            return self._below(p.CACHE, offset, length)
        raise OSError(errno.EINVAL, f"no operation {operation} has this shape")

    def _below(
        self, operation: int, offset: int, length: int, flags: int = 0, *buffers: RemoteBuffer
    ) -> Any:
        return self.below.on_request(Request((operation, offset, length, flags), buffers))

    # --- what changes nothing ---

    def _read(self, offset: int, buffer: RemoteBuffer) -> Any:
        waiting = []
        for start, stop, changed in self._runs(offset, buffer.length):
            part = buffer[start - offset : stop - offset]
            if changed:
                result = self._data.read(part, start)
            else:
                result = self._below(p.READ, start, part.length, 0, part)
            if type(result) is Offloaded:
                waiting.append(result)
        return self.offload(_run_all, waiting) if waiting else None

    def _block_status(self, offset: int, length: int, flags: int, buffer: RemoteBuffer) -> Any:
        start, stop, changed = self._runs(offset, length)[0]
        if changed:
            return self.offload(self._data.block_status, buffer, start, stop - start, flags)
        return self._below(p.BLOCK_STATUS, start, stop - start, flags, buffer)

    def _runs(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """The pieces of the range, in bytes: start, stop, whether they are in the overlay."""
        end = offset + length
        return [
            (max(offset, first * BLOCK), min(end, stop * BLOCK), changed)
            for first, stop, changed in self._maps.changed.runs(offset // BLOCK, -(-end // BLOCK))
        ]

    # --- what does ---

    def _begin(
        self, operation: int, offset: int, length: int, flags: int, buffer: RemoteBuffer | None
    ) -> Any:
        """Change the range: at once if nothing has to be waited for."""
        if not length:
            return None
        edges = self._edges(offset, offset + length)
        at_once = operation == p.WRITE and not flags & p.FUA
        if (
            not at_once
            or any(edge.reading for edge in edges)
            or not self._changing.acquire(blocking=False)
        ):
            return self.offload(self._wait_and_change, edges, offset, length, flags, buffer)
        try:
            self._change(edges, offset, length, flags, buffer)
        finally:
            self._changing.release()
        return None

    def _wait_and_change(
        self,
        edges: list[_Edge],
        offset: int,
        length: int,
        flags: int,
        buffer: RemoteBuffer | None,
    ) -> None:
        _run_all([edge.reading for edge in edges if edge.reading is not None])
        self._changing.acquire()
        try:
            self._change(edges, offset, length, flags, buffer)
        finally:
            self._changing.release()
        if flags & p.FUA:
            self._sync()

    def _edges(self, offset: int, end: int) -> list[_Edge]:
        """The first and the last block, if they must be completed from below."""
        partly = {offset // BLOCK} if offset % BLOCK else set()
        if end % BLOCK:
            partly.add(end // BLOCK)
        edges = []
        for block in sorted(partly):
            if block not in self._maps.changed:
                start = block * BLOCK
                size = min(BLOCK, self._size - start)
                old = RemoteBuffer(LocalMemory(size), 0, size)
                edges.append(_Edge(block, old, self._below(p.READ, start, size, 0, old)))
        return edges

    def _change(
        self,
        edges: list[_Edge],
        offset: int,
        length: int,
        flags: int,
        buffer: RemoteBuffer | None,
    ) -> None:
        """Under the lock: the data, then the map. No buffer: zeros."""
        end = offset + length
        for edge in edges:
            if edge.block not in self._maps.changed:  # else another change was first
                start = edge.block * BLOCK
                if start < offset:
                    self._data.write(edge.old[: offset - start], start, 0)
                if end < start + edge.old.length:
                    self._data.write(edge.old[end - start :], end, 0)
        if buffer is not None:
            self._data.write(buffer, offset, 0)
        else:
            self._data.write_zeroes(offset, length, flags & ~p.FUA)
        self._maps.mark(offset // BLOCK, -(-end // BLOCK))

    def _sync(self) -> None:
        """Everything that was answered before is on the disk when this returns."""
        self._flushing.acquire()
        try:
            snapshot = self._maps.snapshot()
            self._data.sync()
            if snapshot is not None:
                self._maps.stabilise(snapshot)
                self._data.sync()
        finally:
            self._flushing.release()


def _run_all(works: list[Offloaded]) -> None:
    for work in works:
        work.run()
