"""What a process domain may do less than its user could (``harden`` of `Machine.start`).

It is applied in the domain's process when it has been told what it becomes, before the driver is
loaded and before any thread is started, so that every thread has it; spares can be used. If the
kernel refuses a part, the domain does not start: it is never weaker than asked for.

What each does, and does not:

- ``no_new_privs`` (PR_SET_NO_NEW_PRIVS, prctl(2)): no exec gives more privileges than there are
  (set-user-ID programs, file capabilities). It takes nothing away that the process has: one that
  runs as root stays root.
- ``rlimits`` (setrlimit(2)): soft and hard limit of this one process. NPROC counts all processes of
  the user and does not bind root; AS counts mappings, also those of granted memory.
- ``closed_network`` (CLONE_NEWNET, unshare(2)): no interface but a loopback that is down, so no IP
  and no abstract unix sockets of others. Unix sockets in the file system, and descriptors that it
  is given, still work. Without CAP_SYS_ADMIN it is done in a user namespace of its own, in which
  the process has its ids, and capabilities that count inside alone.

None of it keeps a domain from files that its user may open, or from signals to that user's
processes. The modules of a driver may have been imported by a spare before it is applied.
"""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import field

from actors import Message
from hypervisor.errors import HardeningFailed

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CLONE_NEWUSER = 0x10000000  # linux/sched.h, as the next
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Hardening(Message):
    """See the module's text.

    Args:
        no_new_privs: set that bit.
        rlimits: limits by their names in the `resource` module without ``RLIMIT_``, in its
            units, such as ``{"NOFILE": 64}``.
        closed_network: a network namespace of its own.

    Raises:
        ValueError: no such limit, or a negative one.
    """

    no_new_privs: bool = False
    rlimits: dict[str, int] = field(default_factory=dict)
    closed_network: bool = False

    def __post_init__(self) -> None:
        for name, value in self.rlimits.items():
            if not hasattr(resource, f"RLIMIT_{name}"):
                raise ValueError(f"there is no limit {name!r}; see setrlimit(2)")
            if value < 0:
                raise ValueError(f"the limit {name} cannot be {value}")


def apply(hardening: Hardening) -> None:
    """Do it to this process.

    Raises:
        HardeningFailed: the kernel refuses a part; what comes before it is done, so end.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1 and (hardening.closed_network or hardening.no_new_privs):
        raise HardeningFailed(
            f"the modules imported so far have started {threads - 1} threads, which it cannot reach"
        )
    if hardening.closed_network:
        _close_network()
    for name, value in hardening.rlimits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (OSError, ValueError) as error:
            raise HardeningFailed(f"rlimits: {name} cannot be {value}: {error}") from error
    if hardening.no_new_privs and _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise HardeningFailed(f"no_new_privs: {os.strerror(ctypes.get_errno())}")


def _close_network() -> None:
    if _libc.unshare(_CLONE_NEWNET) == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise HardeningFailed(f"closed_network: {os.strerror(ctypes.get_errno())}")
    try:
        for name, text in (
            ("setgroups", "deny"),  # user_namespaces(7): before gid_map
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise HardeningFailed(f"closed_network: {error}") from error
