"""A HID boot keyboard: reports of which keys are down. Pure.

Input is typed text: each byte is a character of the US layout, pressed and let go. A character that
the layout does not have is a ValueError, and nothing of that text is typed. Output is the LED byte
(bit 0 Num Lock, 1 Caps Lock, 2 Scroll Lock), whenever the host sets it.

Rules: a report is sent for every change. After a reset the first report says that nothing is down,
so that a host never holds a key for a keyboard that came back. The boot protocol and the report
protocol have the same report, the one of the descriptor. The idle rate is kept and told, but a
report without a change is never sent again: the host does its own repeating.

Specification: Device Class Definition for HID 1.11, sections 7.1, 7.2, appendices B.1 and E.6; HID
Usage Tables, page 0x07.
"""

from __future__ import annotations

import errno
from struct import pack
from typing import Final

from examples.usb.chapter9 import IN, INTERRUPT, Setup
from examples.usb.descriptors import Endpoint, Interface
from examples.usb.function import Function, InPipe, Result, Stalled

GET_REPORT: Final = 0x01
GET_IDLE: Final = 0x02
GET_PROTOCOL: Final = 0x03
SET_REPORT: Final = 0x09
SET_IDLE: Final = 0x0A
SET_PROTOCOL: Final = 0x0B

HID_DESCRIPTOR: Final = 0x21
REPORT_DESCRIPTOR: Final = 0x22

LEFT_SHIFT: Final = 0x02  # bit in the first byte of a report

_REPORT: Final = bytes(8)  # modifiers, reserved, six keys
_PACKET: Final = 8  # bytes
CAPACITY: Final = 1 << 20  # bytes of reports

_INTERVAL: Final = 7  # 2**6 microframes, 8 ms
_REPORT_PROTOCOL: Final = 1

_REPORT_BYTES: Final = bytes(
    (
        *(0x05, 0x01),  # usage page: generic desktop
        *(0x09, 0x06),  # usage: keyboard
        *(0xA1, 0x01),  # collection: application
        *(0x05, 0x07),  # usage page: keys
        *(0x19, 0xE0, 0x29, 0xE7),  # usages: left control to right GUI
        *(0x15, 0x00, 0x25, 0x01),  # logical 0 to 1
        *(0x75, 0x01, 0x95, 0x08),  # eight fields of one bit
        *(0x81, 0x02),  # input: variable
        *(0x75, 0x08, 0x95, 0x01),  # one byte
        *(0x81, 0x01),  # input: constant
        *(0x05, 0x08),  # usage page: LEDs
        *(0x19, 0x01, 0x29, 0x05),  # usages: Num Lock to Kana
        *(0x75, 0x01, 0x95, 0x05),  # five bits
        *(0x91, 0x02),  # output: variable
        *(0x75, 0x03, 0x95, 0x01),  # three bits
        *(0x91, 0x01),  # output: constant
        *(0x05, 0x07),  # usage page: keys
        *(0x19, 0x00, 0x2A, 0xFF, 0x00),  # usages: all
        *(0x15, 0x00, 0x26, 0xFF, 0x00),  # logical 0 to 255
        *(0x75, 0x08, 0x95, 0x06),  # six bytes
        *(0x81, 0x00),  # input: array
        0xC0,  # end of collection
    )
)
_HID: Final = pack(
    "<BBHBBBH", 9, HID_DESCRIPTOR, 0x0111, 0, 1, REPORT_DESCRIPTOR, len(_REPORT_BYTES)
)

_SHIFTED: Final = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True))
_PLAIN: Final = {
    **{chr(ord("a") + n): 0x04 + n for n in range(26)},
    **{digit: 0x1E + n for n, digit in enumerate("1234567890")},
    **{key: 0x28 + n for n, key in enumerate("\n\x1b\x08\t -=[]\\")},
    **{key: 0x33 + n for n, key in enumerate(";'`,./")},
    "\x7f": 0x4C,
}


def key_of(character: str) -> tuple[int, int]:
    """Modifiers and usage of the key that types ``character``.

    Raises:
        ValueError: no key of the US layout does.
    """
    plain = _SHIFTED.get(character, character.lower())
    if plain not in _PLAIN:
        raise ValueError(f"no key types {character!r}")
    return (LEFT_SHIFT if plain != character else 0), _PLAIN[plain]


class Keyboard(Function):
    """A keyboard without a person."""

    def __init__(self) -> None:
        self._in = InPipe(_PACKET)
        self._lights = b""
        self.reset()

    def interfaces(self, first: int) -> list[Interface]:  # noqa: ARG002 - the shape is Function's
        ends = (Endpoint(IN, INTERRUPT, _PACKET, _INTERVAL),)
        return [Interface(3, 1, 1, ends, _HID)]  # HID, boot, keyboard

    def reset(self) -> None:
        self._in.clear()
        self._in.put(_REPORT)
        self._report = _REPORT  # what the host was told last
        self._idle = 0
        self._protocol = _REPORT_PROTOCOL

    def descriptor(self, kind: int) -> bytes | None:
        return {HID_DESCRIPTOR: _HID, REPORT_DESCRIPTOR: _REPORT_BYTES}.get(kind)

    def control(self, setup: Setup, data: bytes) -> bytes:
        match setup.request:
            case 0x01 if setup.is_in and setup.value >> 8 == 1:  # GET_REPORT of an input report
                return self._report
            case 0x02 if setup.is_in:
                return bytes((self._idle,))
            case 0x03 if setup.is_in:
                return bytes((self._protocol,))
            case 0x09 if setup.value >> 8 == 2 and len(data) == 1:  # an output report
                self._lights += data
            case 0x0A if not data:
                self._idle = setup.value >> 8
            case 0x0B if setup.value in (0, 1) and not data:
                self._protocol = setup.value
            case _:
                raise Stalled
        return b""

    def send(self, endpoint: int, view: memoryview) -> Result:  # noqa: ARG002 - the shape is Function's
        status, actual = self._in.fill(view)
        if actual == _PACKET:
            self._report = bytes(view[:_PACKET])
        return status, actual

    def ready(self, endpoint: int) -> bool:  # noqa: ARG002 - the shape is Function's
        return bool(self._in)

    def input(self, data: bytes) -> None:
        """Type the text. Raises OSError when the host fetches so little that there is no room."""
        if self._in.size + 2 * _PACKET * len(data) > CAPACITY:
            raise OSError(errno.ENOBUFS, "nobody reads what is typed")
        for modifiers, key in [key_of(chr(character)) for character in data]:
            self._in.put(bytes((modifiers, 0, key, 0, 0, 0, 0, 0)))
            self._in.put(_REPORT)

    def output(self) -> bytes:
        said, self._lights = self._lights, b""
        return said
