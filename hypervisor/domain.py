"""The actors that stand for domains: one supervised actor is one incarnation of a domain.

Its start is the domain's start, its end is the domain's end, so that a plain supervisor restarts
domains. `ThreadDomain` runs its program as a child actor in this process. `ProcessDomain` runs it
in an OS process, whose hypercall socket and pidfd its one thread waits on beside its mailbox.

Order of an end, whatever caused it: stop or kill the program -> wait until it is really gone ->
`DestroyDomain` (grants withdrawn, ports closed, peers told) -> exit report -> the supervisor starts
the next incarnation, which gets a new domid and whose connections get new epochs.

A process is ended by what it does (its pidfd becomes readable), by `Kill`, or by failing a `Probe`:
a ping that it must answer within `watchdog` seconds. Its answering thread is not the one that runs
the driver, so slow work is not mistaken for death. A thread cannot be killed, nor be told from a
slow one; thread placement has no watchdog.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from typing import Any

from actors import Actor, Exit, ExitReason, Message, MessageError, Ref, StartFailed
from hypervisor import hypercalls as hc
from hypervisor.errors import DomainStartError
from hypervisor.frames import receive_frame, send_frame
from hypervisor.guest import LocalGuest
from hypervisor.processes import Process, Refill, TakeProcess, end_process, has_ended
from hypervisor.program import load, modules_of
from hypervisor.store_calls import STORE_CALLS, StoreTaken
from hypervisor.store_door import DoesNotRead, ProcessStore, open_here

_LAST_WORDS = 0.1  # seconds to read what a dead process has said, if somebody goes on saying it
_BOOT_TIMEOUT = 20.0  # seconds for an interpreter and a driver's on_start


class DomainActor(Actor):
    """What all placements share: a domid from the hypervisor, and giving it back."""

    def __init__(
        self, hypervisor: Ref, store: Ref, name: str, program: str, args: list[Any], restart: str
    ) -> None:
        super().__init__()
        self._hypervisor = hypervisor
        self._store = store
        self._name = name  # the domain's, which is also the device that it serves
        self._program = program
        self._args = args
        self._restart = restart
        self._domid = -1

    def _create(self) -> None:
        self._domid = self._hypervisor.ask(hc.CreateDomain(self._name, self.ref))

    def _destroy(self) -> None:
        reason = self.exit_reason
        failed = reason.kind in ("error", "killed")
        returns = reason.kind != "shutdown" and (
            self._restart == "permanent" or (self._restart == "transient" and failed)
        )
        self._hypervisor.ask(hc.DestroyDomain(self._domid, str(reason), returns, failed))


class ThreadDomain(DomainActor):
    """A domain whose program is an actor on a thread of this process."""

    def on_start(self) -> None:
        self._create()
        store = open_here(self._store, self._domid, self.start_child)
        self._guest = guest = LocalGuest(self._domid, self._name, store, self._hypervisor)
        try:
            runner, program = load(self._program)
            self._child = self.start_child(runner, guest, program, self._args, name=self._name)
        except StartFailed as failure:
            self._hypervisor.ask(hc.DestroyDomain(self._domid, "it could not start", True, True))
            raise DomainStartError(
                self._name, failure.error, failure.text, failure.traceback
            ) from failure

    def on_stop(self) -> None:
        self._destroy()

    def on_receive(self, message: Message) -> Any:
        match message:
            case hc.News():
                self._guest.hear(message)
                self._child.tell(message, control=True)
            case hc.Kill(text):
                self.exit(ExitReason("error", "DomainKilled", text, ""))
            case WhichPid():
                return None
            case Crash():
                self.exit(ExitReason("error", "DomainKilled", "it was told to crash", ""))
            case hc.Probe():
                return None
            case Exit(reason=reason):
                self.exit(reason)
            case _:
                raise TypeError(f"a domain does not take {type(message).__name__}")
        return None


class ProcessDomain(DomainActor):
    """A domain whose program runs in an OS process of its own."""

    def __init__(
        self,
        hypervisor: Ref,
        store: Ref,
        name: str,
        program: str,
        args: list[Any],
        restart: str,
        pool: Ref,
        store_door: Ref,
        watchdog: float,
        grace: float,
    ) -> None:
        super().__init__(hypervisor, store, name, program, args, restart)
        self._pool = pool
        self._store_door = store_door
        self._watchdog = watchdog
        self._grace = grace
        self._process: Process | None = None
        self._ended: hc.Ended | None = None
        self._pings = 0
        self._ping: Any = None

    def on_start(self) -> None:
        self._create()
        try:
            self._boot()
            self._pool.tell(Refill())
        except BaseException:
            self._end_process()
            self._hypervisor.ask(hc.DestroyDomain(self._domid, "it could not start", True, True))
            raise
        assert self._process is not None
        self.watch(self._socket.fileno(), self._on_frame)
        self.watch(self._process.pidfd.fileno(), self._on_death)

    def _boot(self) -> None:
        self._process = self._pool.ask(
            TakeProcess(modules_of(self._program)), timeout=_BOOT_TIMEOUT
        )
        self._socket = socket.socket(fileno=self._process.socket.take())
        self._socket.setblocking(False)
        self._process_store = ProcessStore(
            self._store, self._store_door, self._domid, self.ref, self._socket
        )
        self._send(hc.Boot(self._name, self._domid, self._program, self._args))
        self._serve_until_booted()

    def on_stop(self) -> None:
        if self.exit_reason.kind in ("shutdown", "normal"):
            self._send(hc.Shutdown())
            self._serve(self._grace, (hc.Ended,))
        self._end_process()
        self._destroy()

    def _end_process(self) -> None:
        if self._process is not None:
            end_process(self._process)
            self._socket.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def on_receive(self, message: Message) -> Any:
        match message:
            case hc.News():
                self._send(message)
            case hc.Kill(text):
                self.exit(ExitReason("error", "DomainKilled", text, ""))
            case hc.Probe():
                self._probe()
            case DoesNotRead():
                text = "it does not take its events from the store"
                self.exit(ExitReason("error", "DomainHung", text, ""))
            case _PingExpired(number):
                if number == self._pings and self._ping is not None:
                    text = f"no sign of life within {self._watchdog} s of being asked"
                    self.exit(ExitReason("error", "DomainHung", text, ""))
            case WhichPid():
                return self.pid
            case Crash():
                assert self._process is not None
                signal.pidfd_send_signal(self._process.pidfd.fileno(), signal.SIGKILL)
            case _:
                raise TypeError(f"a domain does not take {type(message).__name__}")
        return None

    def _probe(self) -> None:
        if self._ping is None:
            self._pings += 1
            self._ping = self.after(self._watchdog, _PingExpired(self._pings))
            self._send(hc.Ping(self._pings))

    def _serve_until_booted(self) -> None:
        """Answer the program's hypercalls while it starts; nothing else happens in its life yet."""
        assert self._process is not None
        if not self._serve(_BOOT_TIMEOUT, (hc.Booted, hc.Ended)):
            how = "no answer" if not has_ended(self._process.pidfd.fileno()) else "its process died"
            raise DomainStartError(self._name, "DomainDied", f"{how} while it started")
        if self._ended is not None:
            ended = self._ended
            raise DomainStartError(self._name, ended.error, ended.text, ended.traceback)

    def _serve(self, seconds: float, until: tuple[type[Message], ...]) -> bool:
        """Handle frames until one of ``until`` came: True. False: it died, or time is over."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._process.pidfd.fileno(), select.POLLIN)
        while (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
            try:
                frame = receive_frame(self._socket)
            except BlockingIOError:  # its process has ended, though somebody keeps its socket open
                return False
            if frame is None:
                return False
            self._handle(frame)
            if isinstance(frame, until):
                return True
        return False

    def _on_frame(self) -> None:
        try:
            frame = receive_frame(self._socket)
        except (MessageError, OSError) as error:  # the domain's fault, not ours: it ends for it
            self.exit(ExitReason("error", type(error).__name__, f"bad hypercall: {error}", ""))
            return
        if frame is None:
            self.unwatch(self._socket.fileno())  # its death follows by the pidfd
        else:
            self._handle(frame)

    def _on_death(self) -> None:
        assert self._process is not None
        self._serve(_LAST_WORDS, (hc.Ended,))  # what it said last may still lie in the socket
        self.unwatch(self._process.pidfd.fileno())
        if self._ended is not None:
            ended = self._ended
            self.exit(ExitReason("error", ended.error, ended.text, ended.traceback))
            return
        self.exit(ExitReason("error", "DomainDied", f"its process (pid {self.pid}) died", ""))

    def _handle(self, frame: Message) -> None:
        match frame:
            case hc.Call(number, call):
                if isinstance(call, STORE_CALLS):
                    answer = self._process_store.call(call)
                else:
                    answer = self._hypervisor.ask(hc.Hypercall(self._domid, call))
                if isinstance(answer, Message):
                    self._send(hc.Answer(number, None, answer))
                else:
                    self._send(hc.Answer(number, answer, None))
            case hc.Pong(number):
                if number == self._pings and self._ping is not None:
                    self._ping.cancel()
                    self._ping = None
            case StoreTaken():
                self._process_store.taken()
            case hc.Booted():
                return
            case hc.Ended():
                self._ended = frame
            case _:
                text = f"{type(frame).__name__} is not for a domain to say"
                self.exit(ExitReason("error", "MessageError", text, ""))

    def _send(self, message: Message) -> None:
        try:
            send_frame(self._socket, message)
        except (BrokenPipeError, ConnectionResetError):
            return  # it is dead, and the pidfd says so next
        except BlockingIOError:  # nobody waits for a domain that does not read
            self.exit(ExitReason("error", "DomainHung", "it does not read its hypercall socket"))


class _PingExpired(Message):
    number: int


class Crash(Message):
    """Fail at once, as if by itself. For tests of failure."""


class WhichPid(Message):
    """Answered by the pid of the domain's process, None for one that has none of its own."""
