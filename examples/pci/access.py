"""Accesses to configuration space as calls, and what the death of the bus means for them.

An access is a polled call (`_ask` is the only place that makes one) and ends in bounded time: with
an answer, or, like on real hardware when nobody answers, with all ones for a read and nothing for a
write, and a logged reason. Whether a write that was not answered in time was done is not known.

When the back end has died, its successor's registers have their reset values, and it refuses what
was meant for the one before (protocol.py). The caller has chosen what that means for him:

    on_reset      the next access                     and the ones after it
    "retry"       is done on the new bus, a warning   go on; `incarnation` has changed
    "all-ones"    all ones, a warning                 all ones, until `attach` is called

A bus without state of its own (the host's) is the same for every incarnation: nothing is noticed.

Accesses may be made from any thread. A back end that answers what no correct one does harms nobody
but the caller, who gets `BadAnswer`.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Literal

from examples.pci import protocol as p
from examples.pci.errors import (
    BY_CODE,
    STALE,
    SUCCESS,
    BadAnswer,
    BusGone,
    DeviceNotFound,
    OperationFailed,
)
from examples.pci.scan import Found, FoundBar, FoundCapability, capabilities, scan, size_bars
from examples.pci.space import check_access
from transport import ChannelClosed, DeadlineExceeded, FrontEnd, OnLoss, RemoteError

_log = logging.getLogger("examples.pci")

_ATTEMPTS = 8  # buses in a row that may die under one access

OnReset = Literal["retry", "all-ones"]


class ConfigAccess:
    """See the module's text.

    Attributes:
        incarnation: which back end's bus this is; another one has forgotten what was written.
        roots: the (domain, bus) numbers to enumerate from.
        completion_timeout: seconds after which nobody has answered an access; may be changed.

    Raises:
        BusGone: nobody answers.
    """

    def __init__(
        self, channel: FrontEnd, *, on_reset: OnReset = "retry", completion_timeout: float = 10.0
    ) -> None:
        self._channel = channel
        self._on_reset = on_reset
        self._lost: str | None = None
        self.completion_timeout = completion_timeout
        self.incarnation = 0
        self.roots: tuple[tuple[int, int], ...] = ()
        self.attach()

    def attach(self) -> None:
        """Take the bus as it is now, also after it was lost.

        Raises:
            BusGone: there is none.
        """
        self._lost = None
        answer = self.call(p.ROOTS)
        match answer:
            case (int(incarnation), tuple(roots)) if p.are_pairs(roots):
                self.incarnation, self.roots = incarnation, roots
            case _:
                raise BadAnswer(f"the roots of the bus are {answer!r:.80}")

    def read(self, sbdf: int, offset: int, size: int) -> int:
        """Read a register of 1, 2 or 4 bytes; all ones where nobody answers.

        Raises:
            InvalidOffset: see there.
            AccessDenied: not everybody may read it.
        """
        check_access(offset, size)
        try:
            value = self.call(p.CONF_READ, sbdf, offset, size)
        except (DeviceNotFound, BusGone):
            return p.all_ones(size)
        if type(value) is not int or not 0 <= value <= p.all_ones(size):
            raise BadAnswer(f"a register of {size} bytes reads {value!r:.80}")
        return value

    def write(self, sbdf: int, offset: int, size: int, value: int) -> None:
        """Write a register of 1, 2 or 4 bytes; dropped where nobody answers.

        Raises:
            InvalidOffset: see there.
            AccessDenied: the bus is read-only.
        """
        check_access(offset, size)
        with suppress(DeviceNotFound, BusGone):
            self.call(p.CONF_WRITE, sbdf, offset, size, value & p.all_ones(size))

    def scan(self) -> list[Found]:
        """Every function of the bus."""
        return scan(self, self.roots)

    def capabilities(self, sbdf: int) -> list[FoundCapability]:
        """See `capabilities` of scan.py."""
        return capabilities(self, sbdf)

    def bars(self, sbdf: int) -> list[FoundBar]:
        """See `size_bars` of scan.py; done again if the bus was replaced meanwhile.

        Raises:
            BusGone: it was replaced again and again.
        """
        for _ in range(_ATTEMPTS):
            before = self.incarnation
            found = size_bars(self, sbdf)
            if self.incarnation == before:
                return found
        raise BusGone(f"the bus has died {_ATTEMPTS} times while it was looked at")

    def call(
        self, operation: int, sbdf: int = 0, offset: int = 0, size: int = 0, argument: Any = 0
    ) -> Any:
        """Do any operation of the protocol; returns the value of its answer.

        Raises:
            PciError: the one that the back end said, BusGone or BadAnswer.
        """
        for _ in range(_ATTEMPTS):
            if self._lost is not None:
                raise BusGone(self._lost)
            try:
                answer = self._ask((operation, self.incarnation, sbdf, offset, size, argument))
            except (ChannelClosed, DeadlineExceeded) as gone:
                self._on_silence(gone)
                raise BusGone(str(gone)) from gone
            except RemoteError as wrong:
                raise OperationFailed(str(wrong)) from wrong
            match answer:
                case (int(error), value) if error == SUCCESS:
                    return value
                case (int(error), str(text)) if error in BY_CODE:
                    if error != STALE:
                        raise BY_CODE[error](text)
                case _:
                    raise BadAnswer(f"an answer is {answer!r:.80}")
            self._on_stale()
        raise BusGone(f"{_ATTEMPTS} buses in a row have died under one access")

    def _ask(self, body: p.Body) -> Any:
        # Another incarnation refuses what was meant for this one, so nothing is done twice.
        return self._channel.call(
            body, timeout=self.completion_timeout, wait="poll", on_loss=OnLoss.REISSUE
        )

    def _on_silence(self, gone: Exception) -> None:
        _log.warning("the bus does not answer: %s", gone)
        if self._on_reset == "all-ones" or isinstance(gone, ChannelClosed):
            self._lost = str(gone)

    def _on_stale(self) -> None:
        if self._on_reset == "all-ones":
            self._lost = f"the bus of incarnation {self.incarnation} has died"
            _log.warning("%s: it reads all ones until it is attached again", self._lost)
            return
        before = self.incarnation
        self.attach()
        _log.warning(
            "the bus of incarnation %d has died: %d has its reset values", before, self.incarnation
        )
