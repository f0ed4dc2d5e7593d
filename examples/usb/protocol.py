"""What the host (front end) and a device (back end) say to each other over the channel. Pure.

A transfer is a request, and its buffer is the URB's data. As on the bus, the device keeps no URB:
what it cannot serve now it refuses (NAK), the host keeps it, and a later answer says that the
endpoint is ready. So unlinking is the host's business alone, and one that is refused has not begun.

    request                                                  buffer         answer
    (CONNECT,)                                               none           (incarnation, speed,
                                                                            holds)
    (SUBMIT, incarnation, endpoint, kind, length, setup,     the data, of   (status, actual, packets

        packets)                                             ``length``     ready, output)
    (RESET, incarnation)                                     none           the same
    (INPUT, incarnation, function, bytes)                    none           the same
    (UNLINK, incarnation, endpoint)                          none           the same

`kind` is a transfer type of chapter9, ``setup`` the eight bytes of a control transfer or b"".
``packets``, of an isochronous transfer, are lengths in, and (status, actual) of each out; packets
lie in the buffer one behind the other, each at the sum of the lengths before it. ``actual`` is in
bytes; also a refused transfer may have moved some, and the host goes on behind them. ``ready`` are
endpoints that have refused before and would not now. ``output`` is what the device says to the
world outside, (function, bytes) each: a serial line's characters, a keyboard's LEDs. INPUT is what
the world says to it.

A device that is real hardware (``holds``) refuses nothing: it has no word for being ready later, so
its back end holds a transfer until the hardware ends it, and the times of a bus are its own. UNLINK
has it let go of all transfers of an endpoint: they are answered NAK. It is behind their SUBMITs and
before all later ones, so it can meet no others.

The channel sends requests again to the successor of a back end that died. Therefore each names the
incarnation that it is for, and another one answers (STALE,) without looking at it: nothing is done
twice. What becomes of the transfer then is the host's decision (controller.py), by `repeatable`.

Statuses are those of Xen's usbif.h, which are Linux's errnos, and go to USB/IP clients as they are.
Those below the line are Linux's alone, for what only a host can say.

Sources: xen/include/public/io/usbif.h (USBIF_STATUS_*, USBIF_SPEED_*), Linux
Documentation/driver-api/usb/error-codes.rst.
"""

from __future__ import annotations

from typing import Final

from examples.usb import chapter9 as c9

CONNECT: Final = 0
SUBMIT: Final = 1
RESET: Final = 2
INPUT: Final = 3
UNLINK: Final = 4

OK: Final = 0
NODEV: Final = -19
INVAL: Final = -22  # the URB itself makes no sense
STALL: Final = -32
IOERROR: Final = -71  # the device did not answer, or lost what it was doing
BABBLE: Final = -75  # it has more to say than the host has room for
SHUTDOWN: Final = -108
# ---
CONNRESET: Final = -104  # unlinked
REMOTEIO: Final = -121  # fewer bytes than asked, where the URB forbids that

NAK: Final = 1  # not an end: the endpoint is not ready
STALE: Final = 2  # not an end: that incarnation is gone

SPEED_LOW: Final = 1
SPEED_FULL: Final = 2
SPEED_HIGH: Final = 3

URB_LIMIT: Final = 1 << 20  # bytes of one URB's data
# These have to fit into a request, and what is answered into an answer.
PACKET_LIMIT: Final = 128  # isochronous packets of one URB
SAID_LIMIT: Final = 512  # bytes of one INPUT, and of one function's output in an answer

SETTINGS: Final = frozenset(
    {
        (c9.STANDARD, c9.SET_INTERFACE),
        (c9.CLASS, 0x0A),  # HID SET_IDLE
        (c9.CLASS, 0x0B),  # HID SET_PROTOCOL
        (c9.CLASS, 0x20),  # CDC SET_LINE_CODING
        (c9.CLASS, 0x22),  # CDC SET_CONTROL_LINE_STATE
    }
)
"""Type and request of what a host has set and a device keeps: its successor is told again."""


def repeatable(kind: int, endpoint: int, setup: bytes) -> bool:
    """A transfer that a dead back end may have begun can be done again by its successor.

    Interrupt reads can: what is lost with a device are events, and the successor begins with its
    present state. Standard requests and settings can, they say what is to be; so can every control
    read. A bulk transfer cannot: it is one step of a dialogue that the successor has not heard.
    """
    if kind == c9.INTERRUPT:
        return bool(endpoint & c9.IN)
    if kind != c9.CONTROL:
        return False
    request = c9.Setup.of(setup)
    return (
        request.is_in or request.kind == c9.STANDARD or (request.kind, request.request) in SETTINGS
    )
