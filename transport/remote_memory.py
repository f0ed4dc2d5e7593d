"""The front end's buffer memory as the back end has it: mapped, or copied.

Both are the same to who uses them: `view` is the bytes of a stretch, `fetch` makes the view show
what the front end has in it, and `store` gives the front end what the view shows. In mapped memory
the last two have nothing to do: there is only one set of pages.

Copied memory is a shadow: memory of the back end's own, as large as the buffer memory, in which
each stretch lies at the same place. It is reserved when the connection opens, like everything else;
then nothing can run out. The hypervisor copies (`Guest.grant_copy`), and the front end's pages are
never mapped, so a driver can neither see them change while it looks nor harm them but by `store`.

Corner case: copying from a connection that is over is refused by the hypervisor, and is
`GrantRevoked` here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from hypervisor import BadGrant, GrantRef, GrantRevoked, Guest, Mapping, Region


class RemoteMemory(Protocol):
    """See the top of the module."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def usable(self) -> bool:
        """Whether the connection is not over."""

    @property
    def handle(self) -> int | None:
        """What the hypervisor calls the mapping, if it is one."""

    def view(self, start: int, length: int) -> memoryview:
        """That stretch. Raises GrantRevoked: the connection is over; so for all."""

    def map(
        self, start: int, length: int, *, readonly: bool, fill: bool
    ) -> AbstractContextManager[memoryview]:
        """See `RemoteBuffer.map`."""

    def fetch(self, start: int, length: int) -> None:
        """Have the view show what the front end has there."""

    def store(self, start: int, length: int) -> None:
        """Let the front end have what the view shows."""

    def close(self) -> None:
        """The connection is over, and nothing of its memory is kept. Once."""


class MappedMemory:
    """The front end's own pages."""

    def __init__(self, guest: Guest, mapping: Mapping) -> None:
        self._guest = guest
        self._mapping = mapping
        self.handle: int | None = mapping.handle
        self.size = len(mapping.view)

    @property
    def usable(self) -> bool:
        return self._mapping.usable

    def view(self, start: int, length: int) -> memoryview:
        return self._mapping.view[start : start + length]

    def map(
        self,
        start: int,
        length: int,
        *,
        readonly: bool,
        fill: bool,  # noqa: ARG002 - it is full
    ) -> AbstractContextManager[memoryview]:
        view = self._mapping.view[start : start + length]
        return view.toreadonly() if readonly else view

    def fetch(self, start: int, length: int) -> None:
        """There is nothing to be done: `view` is it."""

    def store(self, start: int, length: int) -> None:
        """As `fetch`."""

    def close(self) -> None:
        self._guest.unmap_grant_ref(self._mapping)


class LocalMemory:
    """Memory of a back end's own, ``size`` bytes of zeros, for a driver below it to work on."""

    handle: int | None = None
    usable = True

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = memoryview(bytearray(size))

    def view(self, start: int, length: int) -> memoryview:
        """That stretch."""
        return self._bytes[start : start + length]

    def map(
        self,
        start: int,
        length: int,
        *,
        readonly: bool,
        fill: bool,  # noqa: ARG002 - it is full
    ) -> AbstractContextManager[memoryview]:
        """See `RemoteBuffer.map`."""
        view = self.view(start, length)
        return view.toreadonly() if readonly else view

    def fetch(self, start: int, length: int) -> None:
        """There is nothing to be done: `view` is it."""

    def store(self, start: int, length: int) -> None:
        """As `fetch`."""

    def close(self) -> None:
        """It goes when nobody refers to it."""


class CopiedMemory:
    """A shadow of ``size`` bytes of what domain ``granter`` granted."""

    handle: int | None = None

    def __init__(self, guest: Guest, granter: int, gref: int, size: int) -> None:
        self.size = size
        self.usable = True
        self._guest = guest
        self._granter = granter
        self._gref = gref
        self._shadow = Region(size, name="xenidc-shadow")

    def view(self, start: int, length: int) -> memoryview:
        if not self.usable:
            raise GrantRevoked("the connection is over")
        return self._shadow.view[start : start + length]

    @contextmanager
    def map(self, start: int, length: int, *, readonly: bool, fill: bool) -> Iterator[memoryview]:
        if fill:
            self.fetch(start, length)
        view = self.view(start, length)
        with view.toreadonly() if readonly else view as pages:
            yield pages
        if not readonly:
            self.store(start, length)

    def fetch(self, start: int, length: int) -> None:
        self._copy(start, length, out=False)

    def store(self, start: int, length: int) -> None:
        self._copy(start, length, out=True)

    def close(self) -> None:
        self.usable = False
        self._guest.release(self._shadow)

    def _copy(self, start: int, length: int, *, out: bool) -> None:
        if not self.usable:
            raise GrantRevoked("the connection is over")
        if not length:
            return
        ours, theirs = (self._shadow, start), GrantRef(self._granter, self._gref, start)
        try:
            if out:
                self._guest.grant_copy(ours, theirs, length)
            else:
                self._guest.grant_copy(theirs, ours, length)
        except BadGrant as error:
            self.usable = False
            raise GrantRevoked(f"the connection is over: {error}") from error
        except ValueError as error:  # closed under a worker's hands
            raise GrantRevoked("the connection is over") from error
