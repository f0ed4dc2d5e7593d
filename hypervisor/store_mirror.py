"""What the bus says, as nodes of the store: its record, and what `xenstore-ls` shows of a machine.

Pure. Each end of a channel has a directory where Xen's drivers have it, in the home of its domain:
the front end's ``device/NAME/CHANNEL``, the back end's ``backend/NAME/DOMID/CHANNEL``. In it stand
the other's path and domid, the epoch, the end's own state as a number of XenbusState
(xen/include/public/io/xenbus.h), whatever it has told of itself (ring-ref, event-channel), and
``otherend``: the last word that it was told of the other end.

Rules:
1. Every word is one transaction, none is left out or joined with another, and the store is written
   before the word is told (`store_actor.Deliver`). ``otherend`` is its last change, so that the
   revision of that change is the revision of the word; its value names epoch and state together.
   The log of the store is therefore the lossless face of the bus: who follows its own directory
   reads with `words` every word after a revision, each once, in order, and each with its epoch.
2. What the two ends of an epoch have is shown in both directories, and is readable by both.
3. Nothing is written into the home of a domain that may be gone: Unknown is written into the
   directory of who hears it alone. The directories of a channel go with the channel, those of a
   domain with the domain; what they said is in the log then.

What a domain has said is not trusted: only numbers are shown of it, and a name that cannot be part
of a path is shown with ``_`` for what does not belong there. Details that are no numbers travel
with the word alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from hypervisor.bus import NOBODY, Front, Notice
from hypervisor.store_log import Seen
from hypervisor.xenbus import BACK, CLOSED, FRONT, INITIALISING, UNKNOWN, Tell, XenbusState

_FOREIGN = re.compile(r"[^-0-9A-Za-z_@]")
_KEY = re.compile(r"[-0-9a-z]{1,32}")
_RESERVED = frozenset(
    ["epoch", "state", "otherend", "peer", "backend", "backend-id", "frontend", "frontend-id"]
)
_NAME_LIMIT = 64
_NUMBERS_LIMIT = 32  # of what one word says of itself
_WORD = "/otherend"


class Picture(NamedTuple):
    """``values``: path -> text, in the order of writing, readable by domains ``readers``."""

    values: dict[str, str]
    readers: list[int]


def front_directory(device: str, front: Front) -> str:
    """Where the front end of that channel has its nodes."""
    return f"/local/domain/{front[0]}/device/{_name(device)}/{front[1]}"


def back_directory(device: str, front: Front, back: int) -> str:
    """Where domain ``back`` has its nodes about that channel."""
    return f"/local/domain/{back}/backend/{_name(device)}/{front[0]}/{front[1]}"


def directories(device: str, front: Front, back: int) -> list[str]:
    """All that there is of a channel whose last back end was ``back``."""
    here = front_directory(device, front)
    return [here] if back == NOBODY else [here, back_directory(device, front, back)]


def picture(notice: Notice) -> Picture:
    """What one word changes: ``notice.to`` hears it, ``notice.peer`` has said it."""
    told, said, other = _ends(notice)
    epoch, state = str(notice.epoch), notice.state
    numbers = _numbers(notice.details)
    values: dict[str, str] = {}
    if state is INITIALISING:
        values[f"{told}/{other}"] = said
        values[f"{told}/{other}-id"] = str(notice.peer)
        values[f"{told}/epoch"] = epoch
        values[f"{told}/state"] = str(int(INITIALISING))
    elif state is not UNKNOWN:
        values |= {f"{said}/{name}": str(value) for name, value in numbers.items()}
        values[f"{said}/state"] = str(int(state))
    if state in (CLOSED, UNKNOWN):
        values[f"{told}/state"] = str(int(CLOSED))
    word = {"epoch": epoch, "state": str(int(state)), "peer": str(notice.peer), **numbers}
    values[told + _WORD] = " ".join(f"{name}={value}" for name, value in word.items())
    return Picture(values, [notice.to, *([] if state is UNKNOWN else [notice.peer])])


def words(changes: Iterable[Seen]) -> list[tuple[int, Tell]]:
    """The words in a part of the log, each with its revision. Details are the numbers in it."""
    found = []
    for change in changes:
        if not change.path.endswith(_WORD) or change.new in (None, change.old):
            continue  # removed, or only its permissions have changed: no word follows its equal
        assert change.new is not None
        word = {
            name: int(value)
            for name, _, value in (part.partition("=") for part in change.new.decode().split(" "))
        }
        side = FRONT if change.path.split("/")[4] == "device" else BACK
        epoch, state = word.pop("epoch"), XenbusState(word.pop("state"))
        del word["peer"]
        found.append((change.revision, Tell(side, epoch, state, word or None)))
    return found


def _ends(notice: Notice) -> tuple[str, str, str]:
    """The directory of who is told, that of who said it, and what the latter is to the former."""
    here = front_directory(notice.device, notice.front)
    if notice.side is FRONT:
        return here, back_directory(notice.device, notice.front, notice.peer), "backend"
    return back_directory(notice.device, notice.front, notice.to), here, "frontend"


def _name(device: str) -> str:
    return _FOREIGN.sub("_", device)[:_NAME_LIMIT] or "_"


def _numbers(details: Any) -> dict[str, int]:
    if not isinstance(details, dict):
        return {}
    numbers = {
        name: value
        for name, value in details.items()
        if type(value) is int
        and type(name) is str
        and _KEY.fullmatch(name)
        and name not in _RESERVED
    }
    return dict(islice(numbers.items(), _NUMBERS_LIMIT))
