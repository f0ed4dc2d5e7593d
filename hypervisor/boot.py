"""The main program of a domain's process: a spare that waits to be told what it becomes.

Three threads matter here. `_Door` owns the hypercall socket: it routes answers to the callers that
wait for them, peer states to the program's actor or a channel's endpoint, the store's events to who
watches, and answers pings, so that the domain proves its life however long the driver takes. The
program's own actor serves. The main thread starts it, and waits for its end.

Before any of them, the process closes what descriptors it was not meant to have, and when it is
told what it becomes, it takes on its affinity and hardening. Its output is written line by line:
the log of a domain that is killed is complete.

The process never outlives its machine: the kernel kills it when its parent's thread dies
(PDEATHSIG, prctl(2)), and the end of the hypercall socket ends it too.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import itertools
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from actors import Actor, Message, Ref, StartFailed, System, prepare_messages
from hypervisor import hardening
from hypervisor import hypercalls as hc
from hypervisor.cpus import confine
from hypervisor.errors import DomainDead, HypervisorError
from hypervisor.frames import receive_frame, send_frame
from hypervisor.guest import Guest, unwrap
from hypervisor.processes import CHILD_SOCKET
from hypervisor.program import load
from hypervisor.store_calls import StoreEvents, StoreTaken
from hypervisor.store_client import StoreClient

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TIMEOUT = 10.0  # seconds for a hypercall


class SocketGuest(Guest):
    """A domain that is this whole process; thread-safe."""

    def __init__(self, domid: int, name: str, sock: socket.socket) -> None:
        super().__init__(domid, name, StoreClient(self.hypercall))
        self._socket = sock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[threading.Event, list[hc.Answer]]] = {}

    def hypercall(self, call: Message) -> Any:
        number = next(self._numbers)
        arrived = threading.Event()
        answers: list[hc.Answer] = []
        self._waiting[number] = (arrived, answers)
        try:
            self.send(hc.Call(number, call))
            if not arrived.wait(_TIMEOUT):
                raise DomainDead(f"the hypervisor did not answer {type(call).__name__}")
        finally:
            del self._waiting[number]
        answer = answers[0]
        return unwrap(answer.value if answer.message is None else answer.message)

    def answered(self, answer: hc.Answer) -> None:
        """An answer for which nobody waits any more is dropped, and its descriptors with it."""
        if (waiting := self._waiting.get(answer.number)) is not None:
            arrived, answers = waiting
            answers.append(answer)
            arrived.set()

    def send(self, message: Message) -> None:
        with self._lock:
            send_frame(self._socket, message)


class _Door(Actor):
    """Reads the hypercall socket, and passes on what comes."""

    def __init__(self, guest: SocketGuest, sock: socket.socket) -> None:
        super().__init__()
        self._guest = guest
        self._socket = sock
        self._program: Ref | None = None
        self._early: list[Message] = []

    def on_start(self) -> None:
        self.watch(self._socket.fileno(), self._on_frame)

    def on_stop(self) -> None:
        self._guest.store.end("the domain ends")

    def on_receive(self, message: Message) -> None:
        match message:
            case _Program(ref):
                self._program = ref
                for early in self._early:
                    ref.tell(early, control=True)
                self._early.clear()

    def _on_frame(self) -> None:
        frame = receive_frame(self._socket)
        match frame:
            case None:
                os._exit(0)  # the machine has ended: there is nobody left to be orderly for
            case hc.Answer():
                self._guest.answered(frame)
            case hc.Ping(number):
                self._guest.send(hc.Pong(number))
            case StoreEvents(events):
                self._guest.store.deliver(events)
                self._guest.send(StoreTaken())
            case hc.News():
                if self._guest.hear(frame):
                    return
                if self._program is None:
                    self._early.append(frame)
                else:
                    self._program.tell(frame, control=True)
            case hc.Shutdown():
                threading.Thread(target=self._stop_program, name="shutdown").start()

    def _stop_program(self) -> None:
        # Not in the door's thread: the driver's on_stop may make hypercalls, whose answers come
        # here.
        if self._program is not None:
            self._program.stop()


class _Program(Message):
    ref: Ref


def main() -> int:
    """Become the domain that the first frame describes, and run it to its end."""
    parent, preload = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0  # it died before the kernel was asked to tell us
    os.closerange(CHILD_SOCKET + 1, 1 + max(map(int, os.listdir("/proc/self/fd"))))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    sock = socket.socket(fileno=CHILD_SOCKET)
    sock.set_inheritable(False)
    for module in preload:
        with suppress(Exception):  # whose program it is will be told, when it is loaded
            importlib.import_module(module)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    if not poller.poll(0):  # nobody waits for this process yet: it is a spare
        prepare_messages(hc)
    boot = receive_frame(sock)
    if not isinstance(boot, hc.Boot):
        return 0
    try:
        if boot.cpus is not None:
            confine(boot.cpus)
        if boot.harden is not None:
            hardening.apply(boot.harden)
    except (HypervisorError, OSError) as failure:
        send_frame(sock, hc.Ended(type(failure).__name__, str(failure), ""))
        return 1
    guest = SocketGuest(boot.domid, boot.name, sock)
    with System(boot.name) as system:
        door = system.start(_Door, guest, sock)
        try:
            runner, program = load(boot.program)
            running = system.start(runner, guest, program, boot.args, name=boot.name)
        except StartFailed as failure:
            guest.send(hc.Ended(failure.error, failure.text, failure.traceback))
            return 1
        except Exception as failure:  # noqa: BLE001 - an import of somebody's module may raise anything
            guest.send(hc.Ended(type(failure).__name__, str(failure), ""))
            return 1
        door.tell(_Program(running), control=True)
        guest.send(hc.Booted())
        reason = system.wait(running).reason
        guest.send(hc.Ended(reason.error or reason.kind, reason.text, reason.traceback))
    return 0 if reason.kind in ("normal", "shutdown") else 1


if __name__ == "__main__":
    sys.exit(main())
