"""What the front and the back end of a PCI bus say to each other over the channel.

A request's body is always ``(operation, incarnation, sbdf, offset, size, value)``; an answer is
``(error, value)`` with an error number of errors.py; where it is not 0 the value is its text. The
numbers of the operations are those of Xen's io/pciif.h, from 16 on they are ours: what Xen says by
its store, and how the front end, which alone makes requests here, fetches what the back end has to
ask of it.

    operation      offset, size       value               answer            idempotent
    CONF_READ      of the register    0                   the value         yes
    CONF_WRITE     of the register    what to write       None              no
    ENABLE_MSI     0, vectors         domid of the front  PORTS             no
    DISABLE_MSI    0, 0               0                   None              no
    ENABLE_MSIX    0, 0               [domid, *entries]   PORTS             no
    DISABLE_MSIX   0, 0               0                   None              no
    ROOTS          0, 0               0                   (incarnation, ((domain, bus)...))   yes
    AER_LISTEN     0, 0               domid of the front  PORTS             no
    AER_NEXT       0, 0               0                   None or (operation, sbdf)           yes
    AER_RESULT     operation, 0       an ERS_ number      None              no

``sbdf`` is domain << 16 | bus << 8 | device << 3 | function. PORTS is (domid, ((port, epoch)...)),
event channels that the named domain, and no other, may bind: one for each vector, in their order.
What a domid claims is not believed: the hypervisor lets only that domain bind, so a lie costs the
liar his interrupts.

Incarnation: the state of an emulated bus dies with its back end. So every request names the
incarnation that it was meant for (from ROOTS, whose own is ignored), and another one refuses it
with STALE: what was in flight when the back end died is never done to a device that has forgotten
all that went before. A back end whose state is elsewhere (the host's devices) is always 0.

Error recovery (the AER operations) goes from the back end to the front end in Xen. Here the port of
AER_LISTEN becomes readable, AER_NEXT fetches what is asked, AER_RESULT answers it.
"""

from __future__ import annotations

from typing import Any, Final

from examples.pci.errors import PciError

Body = tuple[int, int, int, int, int, Any]
Answer = tuple[int, Any]
Ports = tuple[int, tuple[tuple[int, int], ...]]

CONF_READ: Final = 0
CONF_WRITE: Final = 1
ENABLE_MSI: Final = 2
DISABLE_MSI: Final = 3
ENABLE_MSIX: Final = 4
DISABLE_MSIX: Final = 5
AER_DETECTED: Final = 6
AER_RESUME: Final = 7
AER_MMIO: Final = 8
AER_SLOT_RESET: Final = 9
ROOTS: Final = 16
AER_LISTEN: Final = 17
AER_NEXT: Final = 18
AER_RESULT: Final = 19

MSIX_LIMIT: Final = 128  # entries of one ENABLE_MSIX; SH_INFO_MAX_VEC

# pci_ers_result: what a driver says to a step of the recovery
ERS_NONE: Final = 1
ERS_CAN_RECOVER: Final = 2
ERS_NEED_RESET: Final = 3
ERS_DISCONNECT: Final = 4
ERS_RECOVERED: Final = 5
ERS_NO_AER_DRIVER: Final = 6

_TEXT_LIMIT: Final = 200  # characters, so that an answer fits into a record
_IDEMPOTENT: Final = frozenset({CONF_READ, ROOTS, AER_NEXT})


def is_idempotent(body: Body) -> bool:
    """Whether doing it twice is the same as doing it once. No read here has a side effect."""
    return body[0] in _IDEMPOTENT


def refusal(error: PciError) -> Answer:
    """The answer that says this error."""
    return error.code, str(error)[:_TEXT_LIMIT]


def are_pairs(values: tuple[Any, ...]) -> bool:
    """Whether these are pairs of ints, as ROOTS and PORTS have them."""
    return all(type(pair) is tuple and [*map(type, pair)] == [int, int] for pair in values)


def sbdf_of(domain: int, bus: int, device: int, function: int) -> int:
    """The address of a function as one number."""
    return domain << 16 | bus << 8 | device << 3 | function


def slot_name(sbdf: int) -> str:
    """``dddd:bb:dd.f``, as Linux and lspci write an address."""
    return f"{sbdf >> 16:04x}:{sbdf >> 8 & 0xFF:02x}:{sbdf >> 3 & 0x1F:02x}.{sbdf & 7:x}"


def all_ones(size: int) -> int:
    """What a read of ``size`` bytes returns when nobody answers it."""
    return (1 << 8 * size) - 1
