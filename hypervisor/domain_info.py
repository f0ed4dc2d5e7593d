"""What a machine says of a domain: values, and the words in them.

Messages, because they are told between actors; `DomainInfo` is put together for the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from actors import Message
from hypervisor.vitals import Usage


class ShutdownReason(IntEnum):
    """Why a domain ended: SHUTDOWN_* of xen/include/public/sched.h, those that exist here."""

    POWEROFF = 0
    REBOOT = 1
    CRASH = 3
    WATCHDOG = 4


STARTING, RUNNING, PAUSED, DYING = "starting", "running", "paused", "dying"
CRASHED, SHUTDOWN, DESTROYED = "crashed", "shutdown", "destroyed"


class CrashReport(Message):
    """How one incarnation of a domain failed.

    Attributes:
        error: name of the error's type.
        text: what it said; of a process always how that ended, too.
        traceback: of the domain's program, empty where there is none.
        signal: the name of the signal that ended its process, such as "SIGKILL", or None.
        exit_code: of its process, or None.
        time: seconds since the Epoch.
        log: the last lines that it wrote, before the end.
    """

    error: str
    text: str
    traceback: str
    signal: str | None
    exit_code: int | None
    time: float
    log: list[str]


class DomainChanged(Message):
    """To who hears of the domains (`Machine.hear_domains`): one of them is in another state."""

    name: str
    state: str


class Record(Message):
    """What is kept of a domain over its incarnations; see `DomainInfo` for the attributes."""

    name: str
    domid: int
    placement: str
    state: str
    pid: int | None
    restarts: int
    refused: int
    shutdown: int | None
    crash: CrashReport | None


@dataclass(frozen=True)
class DomainInfo:
    """A domain at the moment of the question, or what was known of it at its end.

    Attributes:
        domid: of its present or last incarnation.
        state: "starting", "running", "paused", "dying" (it is being ended), "crashed" (it failed;
            its supervisor may be about to start it again), "shutdown" (it ended in order) or
            "destroyed".
        placement: "process" or "thread".
        pid: of its process, while it has one.
        restarts: how often it was started again, after failures and for reboots.
        refused: hypercalls and frames of its process that were refused, of all incarnations.
        shutdown: how its last incarnation ended; None while it is the first.
        crash: its last failure, kept over restarts and after its end; None: there was none.
        usage: memory, processor time and affinity of its process, while it has one.
    """

    name: str
    domid: int
    placement: str
    state: str
    pid: int | None
    restarts: int
    refused: int
    shutdown: ShutdownReason | None
    crash: CrashReport | None
    usage: Usage | None
