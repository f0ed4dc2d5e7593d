"""Processes for domains, with spares standing by.

`ProcessPool` is an actor that owns the spares: fresh interpreters (exec, never a fork of a threaded
parent) which have already imported what a driver needs and wait for their `Boot` frame, so that a
restart does not pay for interpreter start-up. Whoever took one says `Refill` when it runs, and the
next one is started a moment later: until then its clients, who connect to it anew, need the
processors more. With two of them, a second death soon after a first is as cheap.

PDEATHSIG is tied to the *thread* that started the child, so the pool's thread starts every process
and outlives every domain. A spare that died while it stood by is noticed by its pidfd when it is
taken, and replaced.

What a process is given: /dev/null as its input, a pipe each for its output and error, its hypercall
socket as descriptor 3, and of the machine's environment what an interpreter and its user's habits
need (``_KEPT``). No other descriptor: the machine's own are close-on-exec, and what somebody else
left inheritable is closed by the process itself, first of all (boot.py).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from contextlib import ExitStack
from typing import Any, NamedTuple

from actors import Actor, Fd, Message

CHILD_SOCKET = 3
"""The descriptor under which a process finds its hypercall socket."""

_START_AFTER = 0.05  # seconds; a restarted back end has its channels open after a third of that
_KEPT = ("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
_KEPT_PREFIXES = ("LC_", "PYTHON")


class TakeProcess(Message):
    """Answered by a `Process`. ``preload``: modules that later spares import beforehand."""

    preload: list[str]


class Refill(Message):
    """Who took a process runs: soon there may be another."""


class _Start(Message):
    """Start a spare, and a moment later the next."""


class Process(Message):
    """A started process: its pid, a pidfd, and the machine's ends of its hypercall socket and of
    the pipes that it writes its output and its errors to (which do not wait).
    """

    pid: int
    pidfd: Fd
    socket: Fd
    stdout: Fd
    stderr: Fd


class HowEnded(NamedTuple):
    """``signal``: the name of the one that ended a process; else its ``exit_code``."""

    signal: str | None
    exit_code: int | None

    def __str__(self) -> str:
        return f"exit code {self.exit_code}" if self.signal is None else f"killed by {self.signal}"


class ProcessPool(Actor):
    """Starts processes, and keeps ``spares`` of them in reserve."""

    def __init__(self, spares: int) -> None:
        super().__init__()
        self._wanted = spares
        self._preload: list[str] = []
        self._spares: deque[Process] = deque()
        self._starts = False  # `_Start` is on its way

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
                self._start_soon()
                return None
            case _Start():
                self._starts = False
                self._spares.append(self._start())
                self._start_soon()
                return None
        raise TypeError(f"the process pool does not take {type(message).__name__}")

    def _start_soon(self) -> None:
        if len(self._spares) < self._wanted and not self._starts:
            self._starts = True
            self.after(_START_AFTER, _Start())

    def _take(self) -> Process:
        while self._spares:
            spare = self._spares.popleft()
            if not has_ended(spare.pidfd.fileno()):
                return spare
            end_process(spare)
        return self._start()

    def _start(self) -> Process:
        command = [sys.executable, "-m", "hypervisor.boot", str(os.getpid()), *self._preload]
        with ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            stack.enter_context(theirs)
            stdout, output = _pipe(stack)
            stderr, errors = _pipe(stack)
            pid = os.posix_spawn(
                sys.executable,
                command,
                _environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, _above(theirs.fileno(), stack), CHILD_SOCKET),
                    (os.POSIX_SPAWN_DUP2, _above(output, stack), 1),
                    (os.POSIX_SPAWN_DUP2, _above(errors, stack), 2),
                ],
                setpgroup=0,  # Ctrl-C is for the machine, which then ends its domains in order
            )
            return Process(
                pid, Fd(os.pidfd_open(pid)), Fd(ours.detach()), Fd(stdout.take()), Fd(stderr.take())
            )


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _pipe(stack: ExitStack) -> tuple[Fd, int]:
    """Our end of a new pipe, which does not wait, and theirs, which the stack closes."""
    ours, theirs = os.pipe()
    stack.callback(os.close, theirs)
    end = Fd(ours)
    stack.callback(end.close)  # nothing, once it has been taken
    os.set_blocking(ours, False)
    return end, theirs


def _above(number: int, stack: ExitStack) -> int:
    """A duplicate that no standard descriptor of the child lies in the way of."""
    copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, CHILD_SOCKET + 1)
    stack.callback(os.close, copy)
    return copy


def has_ended(pidfd: int, within: float = 0.0) -> bool:
    """Whether the process ends ``within`` so many seconds (it need not have been waited for)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(within * 1000))


def end_process(process: Process) -> HowEnded:
    """SIGKILL it unless it has ended; reap it; close its descriptors.

    After this no thread of it runs and none of its mappings is left, also if it was stopped
    (SIGSTOP).
    """
    pidfd = process.pidfd.fileno()
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    _close(process)
    assert result is not None  # only WNOHANG may give nothing
    if result.si_code == os.CLD_EXITED:
        return HowEnded(None, result.si_status)
    return HowEnded(_signal_name(result.si_status), None)


def stop_process(process: Process, within: float) -> bool:
    """SIGSTOP it, and wait until none of its threads runs: True. Also if it has ended.

    False: it has not stopped ``within`` so many seconds (it waits in the kernel, for a child of
    vfork(2) for instance), and was killed, which ends that wait too.
    """
    pidfd = process.pidfd.fileno()
    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
    # No wait for a stop has a deadline, and no descriptor tells of one: so a thread waits for it.
    waiter = threading.Thread(
        target=os.waitid, args=(os.P_PIDFD, pidfd, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    )
    waiter.start()
    waiter.join(within)
    stopped = not waiter.is_alive()
    if not stopped:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        waiter.join()
    return stopped


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _close(process: Process) -> None:
    for end in (process.pidfd, process.socket, process.stdout, process.stderr):
        end.close()
