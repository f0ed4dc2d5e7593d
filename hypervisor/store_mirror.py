"""What the bus says, as nodes of the store: so that `xenstore-ls` shows what the machine is doing.

Pure. Every word of a handshake is mirrored in the directories where Xen's drivers have it: the
front end's ``device/NAME/CHANNEL`` and the back end's ``backend/NAME/DOMID/CHANNEL``, each below
the home of its domain, with the other's path and number, the state as a number of XenbusState
(xen/include/public/io/xenbus.h), the epoch, and whatever a side has told of itself (ring-ref,
event-channel).

It is a picture: the handshake itself is delivered by the bus, and nobody reads these nodes for it.
What a domain has said is not trusted: only numbers are shown of it, and a name that cannot be part
of a path is shown with ``_`` for what does not belong there.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from hypervisor import bus

INITIALISING, INIT_WAITING, IS_INITIALISED, IS_CONNECTED, IS_CLOSED = "1", "2", "3", "4", "6"
"""XenbusState, as it is written."""


_FOREIGN = re.compile(r"[^-0-9A-Za-z_@]")
_KEY = re.compile(r"[-0-9a-z]{1,32}")
_NAME_LIMIT = 64


class Picture(NamedTuple):
    """``values``: path -> text, readable by domains ``readers``; ``removed``: paths."""

    values: dict[str, str]
    readers: list[int]
    removed: list[str]


def picture(notice: bus.Notice) -> Picture:
    """What one notification changes. ``notice.to`` hears it, ``notice.peer`` has said it."""
    front, channel = notice.front
    to_front = notice.to == front and notice.state != bus.INITIALISED
    back = notice.peer if to_front else notice.to
    device = _FOREIGN.sub("_", notice.device)[:_NAME_LIMIT] or "_"
    here = f"/local/domain/{front}/device/{device}/{channel}"
    there = f"/local/domain/{back}/backend/{device}/{front}/{channel}"
    match notice.state:
        case bus.INIT_WAIT:
            values = {
                f"{here}/backend": there,
                f"{here}/backend-id": str(back),
                f"{here}/epoch": str(notice.epoch),
                f"{here}/state": INITIALISING,
                f"{there}/frontend": here,
                f"{there}/frontend-id": str(front),
                f"{there}/epoch": str(notice.epoch),
                f"{there}/state": INIT_WAITING,
            }
        case bus.INITIALISED:
            values = {**_details(here, notice.details), f"{here}/state": IS_INITIALISED}
        case bus.CONNECTED:
            values = {
                **_details(there, notice.details),
                f"{here}/state": IS_CONNECTED,
                f"{there}/state": IS_CONNECTED,
            }
        case _ if to_front:  # the back end is gone, the front end goes on waiting for the next
            return Picture({f"{here}/state": IS_CLOSED}, [front], [there] if back >= 0 else [])
        case _:
            return Picture({}, [], [here, there])
    return Picture(values, [front, back], [])


def _details(path: str, details: Any) -> dict[str, str]:
    if not isinstance(details, dict):
        return {}
    return {
        f"{path}/{name}": str(value)
        for name, value in details.items()
        if type(value) is int and type(name) is str and _KEY.fullmatch(name)
    }
