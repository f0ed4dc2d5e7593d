"""A USB device in 40 lines: dice. Every read of its interrupt endpoint is one throw."""

import random
import select
from typing import Any

from examples.usb.backend import UsbDevice
from examples.usb.chapter9 import IN, INTERRUPT
from examples.usb.controller import Giveback
from examples.usb.descriptors import Endpoint, Interface
from examples.usb.function import Function, Result
from examples.usb.host import Host
from examples.usb.plug import enumerate_device
from examples.usb.protocol import OK
from examples.usb.urb import Urb
from hypervisor import Machine
from transport import connect


class Dice(Function):
    """One interface of the vendor's own class, with one endpoint."""

    def interfaces(self, first: int) -> list[Interface]:
        return [Interface(0xFF, 0, 0, (Endpoint(IN, INTERRUPT, 1, 4),))]

    def send(self, endpoint: int, view: memoryview) -> Result:
        view[0] = random.randint(1, 6)
        return OK, 1


class DiceDevice(UsbDevice):
    """The back end: it may be killed at any time."""

    def function(self, serial_number: str, kind: str, *arguments: Any) -> Function:
        return Dice()


if __name__ == "__main__":
    with Machine() as machine:
        machine.start("dice", DiceDevice, "dice", 0x1209, 5, "000000000001", [["dice"]])
        with connect(machine, "dice") as channel:
            host = Host(channel)
            print(enumerate_device(host, 1).interfaces)
            host.submit(Urb("throw", 0x81, INTERRUPT, 1))
            thrown: list[Urb] = []
            while not thrown:
                select.select([host], [], [])
                thrown += [each.urb for each in host.reap() if isinstance(each, Giveback)]
            print(thrown[0].received[0])
