"""What can go wrong with an access, and the numbers that say so on the channel (io/pciif.h).

A back end raises these, the channel carries their ``code``, the front end raises them again: both
ends speak of the same error. Code 0 is success. Only `STALE` is not Xen's: its one shared page
cannot outlive the back end, our channel does.
"""

from __future__ import annotations

from typing import ClassVar, Final

SUCCESS: Final = 0
STALE: Final = -100


class PciError(Exception):
    """Base of what this package raises."""

    code: ClassVar[int] = -5


class DeviceNotFound(PciError):
    """No function answers at that address. For a read this is no error, but all ones."""

    code = -1


class InvalidOffset(PciError):
    """The access is not 1, 2 or 4 bytes, not aligned to its size, or outside of 4096 bytes."""

    code = -2


class AccessDenied(PciError):
    """The back end does not let anybody do that. Nothing was changed."""

    code = -3


class NotImplementedOperation(PciError):
    """The back end, or the function, has no such operation or capability."""

    code = -4


class OperationFailed(PciError):
    """The operation is known, but could not be done now. Nothing was changed."""

    code = -5


class StaleIncarnation(PciError):
    """The request was meant for a bus that has died since; it was not executed.

    Every register of the bus that answered has its reset value.
    """

    code = STALE


class BusGone(PciError):
    """There is no bus behind the channel, or none that answers in time.

    Only operations that have no "all ones" raise it: interrupts and error recovery.
    """


class BadAnswer(PciError):
    """The back end answered what no correct one does. What was done is not known."""


class BadConfiguration(PciError):
    """A configuration space contradicts itself: a capability list that loops or points nowhere."""


BY_CODE: Final[dict[int, type[PciError]]] = {
    kind.code: kind
    for kind in (
        DeviceNotFound,
        InvalidOffset,
        AccessDenied,
        NotImplementedOperation,
        OperationFailed,
        StaleIncarnation,
    )
}
