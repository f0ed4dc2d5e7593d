"""Buffers as a driver and its user see them: the same pages from both sides.

A `LocalBuffer` is a span of the front end's buffer region, from `FrontEnd.buffer`. A
`RemoteBuffer` is that span as the back end sees it while it serves the request that brought it.

Whose a buffer is: its holder's until it is submitted; the channel's while a request with it is in
flight; the holder's again afterwards. Only the holder writes to it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from transport.errors import LocalProtocolError

if TYPE_CHECKING:
    from transport.frontend import FrontEnd
    from transport.remote_memory import RemoteMemory


Bytes = Any
"""Contiguous memory: bytes, a memoryview, an array of numpy..."""


def bytes_of(memory: Bytes | None, *, writable: bool = False) -> memoryview:
    """A view of its bytes; of nothing an empty one.

    Raises:
        LocalProtocolError: it is no contiguous memory, or cannot be written.
    """
    try:
        view = memoryview(b"" if memory is None else memory)
        # What has a 0 in its shape cannot be cast, and has nothing in it.
        flat = view.cast("B") if view.nbytes else memoryview(bytearray())
    except (TypeError, ValueError, BufferError) as error:
        raise LocalProtocolError(f"that is no contiguous memory: {error}") from error
    if "O" in view.format:
        raise LocalProtocolError("that is an array of objects: its memory says nothing elsewhere")
    if writable and memory is not None and view.readonly:
        raise LocalProtocolError("what is to receive cannot be written")
    return flat


class LocalBuffer:
    """Granted memory of the front end; a context manager that releases it.

    Attributes:
        channel: whose it is.
        size: bytes.
        view: the bytes themselves.
    """

    __slots__ = ("channel", "in_flight", "moved", "released", "size", "start", "view")

    def __init__(self, channel: FrontEnd, start: int, size: int, view: memoryview) -> None:
        self.channel = channel
        self.start = start
        self.size = size
        self.view = view
        self.in_flight = 0  # requests that carry it now
        self.moved = False  # its pages are still those of an epoch that is over
        self.released = False

    @property
    def owner(self) -> LocalBuffer:
        """Itself; see `BufferPart`."""
        return self

    def __getitem__(self, part: slice) -> BufferPart:
        """A part of it, as ``buffer[100:200]``, to be submitted in its place.

        Raises:
            ValueError: the slice has a step.
        """
        start, stop, step = part.indices(self.size)
        if step != 1:
            raise ValueError("a part of a buffer is in one piece")
        return BufferPart(self, start, max(0, stop - start))

    def release(self) -> None:
        """Give it back to the channel, at the latest when the requests with it have ended.

        Idempotent. The view must not be used any more: the memory will be another buffer's.
        """
        self.channel.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class BufferPart:
    """``size`` bytes from ``offset`` of a buffer, which it keeps in flight while it is.

    Attributes:
        owner: that buffer.
        size, view: as the buffer's.
    """

    __slots__ = ("owner", "size", "start", "view")

    def __init__(self, owner: LocalBuffer, offset: int, size: int) -> None:
        self.owner = owner
        self.start = owner.start + offset
        self.size = size
        self.view = owner.view[offset : offset + size]


class RemoteBuffer:
    """The front end's buffer, as the back end has it: ``length`` bytes from ``start`` of its buffer
    memory. Whether that is mapped or copied (remote_memory.py) makes no difference to a driver.
    """

    __slots__ = ("_memory", "length", "start")

    def __init__(self, memory: RemoteMemory, start: int, length: int) -> None:
        self._memory = memory
        self.start = start
        self.length = length

    def map(
        self, *, readonly: bool = False, fill: bool = True
    ) -> AbstractContextManager[memoryview]:
        """The bytes, in a ``with`` statement. Mapped memory is the front end's own pages.

        Args:
            readonly: nothing is to be written: copied memory is not copied back.
            fill: what is in the buffer is of interest; else copied memory is not copied before.

        Copied memory is copied back at the end of the statement, unless that is an exception.

        Raises:
            GrantRevoked: the connection is over.
        """
        return self._memory.map(self.start, self.length, readonly=readonly, fill=fill)

    def read(self, offset: int, length: int) -> memoryview:
        """That part of it, to be looked at while the request is served; no copy of mapped memory.

        Raises:
            GrantRevoked: the connection is over.
        """
        self._memory.fetch(self.start + offset, length)
        return self._memory.view(self.start + offset, length).toreadonly()

    def write(self, offset: int, data: memoryview) -> None:
        """Put ``data`` there. Raises GrantRevoked: the connection is over."""
        self._memory.view(self.start + offset, len(data))[:] = data
        self._memory.store(self.start + offset, len(data))

    def __getitem__(self, part: slice) -> RemoteBuffer:
        """A part of it, as ``buffer[100:200]``; nothing is copied.

        Raises:
            ValueError: the slice has a step.
        """
        start, stop, step = part.indices(self.length)
        if step != 1:
            raise ValueError("a part of a buffer is in one piece")
        return RemoteBuffer(self._memory, self.start + start, max(0, stop - start))
