"""A device that is exported: its port, how clients know it, whose it is, and the world at it."""

from __future__ import annotations

import select
from dataclasses import dataclass, field

from examples.usb.connection import Connection
from examples.usb.controller import Connected, Disconnected
from examples.usb.frames import Frames
from examples.usb.host import Host
from examples.usb.usbip import Exported
from examples.usb.world import Line


class NotEnumerated(Exception):
    """The device cannot be exported; the text says why."""


@dataclass(eq=False)
class Plug:
    """A device that can be imported.

    Attributes:
        owner: the client that has it.
        gone: it will not come back.
        frames: its isochronous transfers whose time is not over.
        timed: somebody will look at these when the next one is due.
    """

    host: Host
    exported: Exported
    lines: list[Line] = field(default_factory=list)
    owner: Connection | None = None
    gone: bool = False
    frames: Frames = field(init=False)
    timed: bool = False

    def __post_init__(self) -> None:
        paced = () if self.host.controller.holds else self.exported.endpoints
        self.frames = Frames(self.exported.speed, paced)


def enumerate_device(host: Host, number: int) -> Exported:
    """Attach the device of a new host, and say how clients will know the ``number``th of them.

    Waits as long as its back end takes, and at most until that is given up.

    Raises:
        NotEnumerated: it was given up, or is no device.
    """
    host.attach()
    poller = select.poll()
    poller.register(host.fileno(), select.POLLIN)
    while True:
        poller.poll()
        for event in host.reap():
            if isinstance(event, Disconnected):
                raise NotEnumerated(event.reason)
            if isinstance(event, Connected) and not event.again:
                return _exported(event, number)


def _exported(event: Connected, number: int) -> Exported:
    device, configuration = event.device, event.configuration
    busid = f"1-{number}"
    return Exported(
        path=f"/sys/devices/xenidc/usb1/{busid}",
        busid=busid,
        busnum=1,
        devnum=number + 1,  # 1 is the root hub's
        speed=event.speed,
        vendor=device.vendor,
        product=device.product,
        release=device.release,
        device_class=device.device_class,
        subclass=device.subclass,
        protocol=device.protocol,
        configuration=configuration.value,
        configurations=device.configurations,
        interfaces=tuple(one[1:] for one in configuration.interfaces),
        endpoints=tuple(configuration.endpoints),
    )
