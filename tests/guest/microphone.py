"""A microphone that hears a ramp: the smallest device with isochronous transfers for a driver of
Linux (snd-usb-audio).

Its samples are 16 bits, 8000 a second. The upper byte goes up by one from sample to sample, the
lower one is 0; each packet is `SAMPLES` of them, one packet each millisecond.

Specification: USB Device Class Definition for Audio Devices 1.0, sections 4.3 and 4.5; Data Formats
1.0, section 2.2.5 (format type I).
"""

from __future__ import annotations

from struct import pack
from typing import Any, Final

from examples.usb import protocol as p
from examples.usb.backend import UsbDevice
from examples.usb.chapter9 import IN, ISOCHRONOUS
from examples.usb.descriptors import Endpoint, Interface
from examples.usb.function import Function, Result

SAMPLES: Final = 8  # of a packet
_RATE: Final = 8000
_INTERVAL: Final = 4  # 2**3 microframes, 1 ms
_INTERFACE: Final = 0x24  # descriptor type: CS_INTERFACE
_TERMINALS: Final = pack(
    "<BBBBHBBHBB" + "BBBBHBBB",
    *(12, _INTERFACE, 2, 1, 0x0201, 0, 1, 0, 0, 0),  # input terminal 1: a microphone, mono
    *(9, _INTERFACE, 3, 2, 0x0101, 0, 1, 0),  # output terminal 2: the host, from 1
)
_FORMAT: Final = pack(
    "<BBBBBH" + "BBBBBBBB",
    *(7, _INTERFACE, 1, 2, 0, 1),  # what comes from terminal 2 is PCM
    *(11, _INTERFACE, 2, 1, 1, 2, 16, 1),  # type I, mono, two bytes of 16 bits, one rate
) + _RATE.to_bytes(3, "little")


class Microphone(Function):
    """An audio function of two interfaces: control, and a stream to the host."""

    def interfaces(self, first: int) -> list[Interface]:
        size = 9 + len(_TERMINALS)
        head = pack("<BBBHHBB", 9, _INTERFACE, 1, 0x0100, size, 1, first + 1)
        end = Endpoint(IN, ISOCHRONOUS, 2 * SAMPLES, _INTERVAL)
        return [
            Interface(1, 1, 0, (), head + _TERMINALS),
            Interface(1, 2, 0, (end,), _FORMAT),
        ]

    def reset(self) -> None:
        self._next = 0

    def send(self, endpoint: int, view: memoryview) -> Result:
        for at in range(self._next, self._next + SAMPLES):
            view[2 * (at - self._next)] = 0
            view[2 * (at - self._next) + 1] = at % 256
        self._next = (self._next + SAMPLES) % 256
        return p.OK, 2 * SAMPLES


class MicrophoneDevice(UsbDevice):
    """The back end of one."""

    def function(self, serial_number: str, kind: str, *arguments: Any) -> Function:
        return Microphone()
