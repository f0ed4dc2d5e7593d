"""Processes for domains, with spares standing by.

`ProcessPool` is an actor that owns the spares: fresh interpreters (exec, never a fork of a threaded
parent) which have already imported what a driver needs and wait for their `Boot` frame, so that a
restart does not pay for interpreter start-up. Whoever took one says `Refill` when it needs the
processor less than the next spare does; with two of them, a second death soon after a first is as
cheap.

PDEATHSIG is tied to the *thread* that started the child, so the pool's thread starts every process
and outlives every domain. A spare that died while it stood by is noticed by its pidfd when it is
taken, and replaced.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Any

from actors import Actor, Fd, Message

_CHILD_SOCKET = 3  # the descriptor under which a process finds its hypercall socket


class TakeProcess(Message):
    """Answered by a `Process`. ``preload``: modules that later spares import beforehand."""

    preload: list[str]


class Refill(Message):
    """Have spares started until there are as many as there should be."""


class Process(Message):
    """A started process: its pid, a pidfd, and the machine's end of its hypercall socket."""

    pid: int
    pidfd: Fd
    socket: Fd


class ProcessPool(Actor):
    """Starts processes, and keeps ``spares`` of them in reserve."""

    def __init__(self, spares: int) -> None:
        super().__init__()
        self._wanted = spares
        self._preload: list[str] = []
        self._spares: deque[Process] = deque()

    def on_stop(self) -> None:
        for spare in self._spares:
            end_process(spare)

    def on_receive(self, message: Message) -> Any:
        match message:
            case TakeProcess(preload):
                self._preload = sorted({*self._preload, *preload})
                taken = self._take()
                reply = self.reply_later()
                reply.send(taken)
                _close(taken)
                return None
            case Refill():
                while len(self._spares) < self._wanted:
                    self._spares.append(self._start())
                return None
        raise TypeError(f"the process pool does not take {type(message).__name__}")

    def _take(self) -> Process:
        while self._spares:
            spare = self._spares.popleft()
            if not has_ended(spare.pidfd.fileno()):
                return spare
            end_process(spare)
        return self._start()

    def _start(self) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
            command = [sys.executable, "-m", "hypervisor.boot", str(os.getpid()), *self._preload]
            pid = os.posix_spawn(
                sys.executable,
                command,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHILD_SOCKET)],
                setpgroup=0,  # Ctrl-C is for the machine, which then ends its domains in order
            )
            return Process(pid, Fd(os.pidfd_open(pid)), Fd(ours.detach()))


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended (it need not have been waited for)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def end_process(process: Process) -> str:
    """SIGKILL it unless it has ended; reap it; close its descriptors.

    Returns how it ended: ``exit code N`` or the signal's name. After this no thread of it runs and
    none of its mappings is left, also if it was stopped (SIGSTOP).
    """
    pidfd = process.pidfd.fileno()
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    _close(process)
    if result is None:
        return "reaped elsewhere"
    if result.si_code == os.CLD_EXITED:
        return f"exit code {result.si_status}"
    return signal.Signals(result.si_status).name


def _close(process: Process) -> None:
    process.pidfd.close()
    process.socket.close()
