"""A domain whose program runs in an OS process of its own.

The one thread of its actor waits on the mailbox, the hypercall socket, the pidfd and the two pipes
of the console. It never waits for the process, except for its start and its orderly end, each with
a deadline, and serves hypercalls and console meanwhile too.

What ends a process, and what its crash report says:

    it ended by itself (pidfd)             what its program said last, or how the process ended
    it closed its hypercall socket         so; SIGKILL
    it sent a frame that no domain may     the frame; SIGKILL
    `Kill` (it broke a peer's protocol)    the text; SIGKILL
    it does not read its hypercall socket  so; SIGKILL
    a `Probe` that it did not answer       so, and the watchdog's reason (watchdog.py); SIGKILL
    it could not be stopped to be paused   so; SIGKILL

Frames. A domain may say `Call`, `Pong`, `Booted` and `Ended`, and none of them says who it is: that
is known by the socket. A hypercall that is refused is answered so and counted; the domain goes on.
Any other frame (a word that is the machine's to say, no message, too large, too many descriptors)
is counted as refused, too, and ends the domain: no working guest sends it.

A probe is a ping that the process must answer within `watchdog` seconds. Its answering thread is
not the one that runs the driver, so slow work is not mistaken for death.

A paused process (SIGSTOP) is not probed, and what is told to it is held (hypercall_end.py). Only
the process itself is stopped, not its children. To be stopped by somebody else is to be hung. An
orderly end lets it go on first.
"""

from __future__ import annotations

import select
import signal
import time
from functools import partial
from typing import Any

from actors import ExitReason, Fd, Message, MessageError, Ref
from hypervisor import domain_records as records
from hypervisor import hypercalls as hc
from hypervisor.console import Console, Stream
from hypervisor.domain import Crash, DomainActor, DomainPlan, WhichPid
from hypervisor.errors import DomainStartError
from hypervisor.hardening import Hardening
from hypervisor.hypercall_end import HypercallEnd
from hypervisor.processes import (
    HowEnded,
    Process,
    Refill,
    TakeProcess,
    end_process,
    has_ended,
    stop_process,
)
from hypervisor.program import modules_of
from hypervisor.store_calls import STORE_CALLS, StoreTaken
from hypervisor.store_door import DoesNotRead, ProcessStore
from hypervisor.vitals import signs_of
from hypervisor.watchdog import NO_SIGNS, judge

_LAST_WORDS = 0.1  # seconds to read what a dead process has said, if somebody goes on saying it
_STOP_TIMEOUT = 5.0  # seconds for all threads of a process to be stopped
_BOOT_TIMEOUT = 20.0  # seconds for an interpreter and a driver's on_start


class ProcessDomain(DomainActor):
    """See the module's text."""

    placement = "process"

    def __init__(
        self,
        plan: DomainPlan,
        pool: Ref,
        store_door: Ref,
        watchdog: float,
        grace: float,
        cpus: list[int] | None,
        harden: Hardening | None,
    ) -> None:
        super().__init__(plan)
        self._pool = pool
        self._store_door = store_door
        self._watchdog = watchdog
        self._grace = grace
        self._cpus = cpus
        self._harden = harden
        self._process: Process | None = None
        self._pid = -1
        self._ended: hc.Ended | None = None
        self._fault: ExitReason | None = None  # a frame that it may not send
        self._paused = False
        self._pings = 0
        self._ping: Any = None
        self._asked = self._seen = NO_SIGNS  # when it was asked, and last looked at
        self._periods = 0

    # --- its life ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        self._create()
        try:
            process = self._boot()
        except BaseException as error:
            self._end_process()
            self._not_started(DomainStartError.of(self._name, error))
            raise
        self._pool.tell(Refill())
        self.watch(self._end.fileno(), self._on_frame)
        self.watch(process.pidfd.fileno(), self._on_death)
        for stream in self._console.streams:
            self.watch(stream.pipe.fileno(), partial(self._on_output, stream))
        self._domains.ask(records.Running(self._name, self._pid))

    def _boot(self) -> Process:
        process: Process = self._pool.ask(
            TakeProcess(modules_of(self._program)), timeout=_BOOT_TIMEOUT
        )
        self._process, self._pid = process, process.pid
        self._end = HypercallEnd(process.socket)
        self._process_store = ProcessStore(
            self._store, self._store_door, self._domid, self.ref, self._end.fileno()
        )
        self._console = Console(
            self._name, Fd(process.stdout.take()), Fd(process.stderr.take()), self._keep
        )
        self._send(
            hc.Boot(self._name, self._domid, self._program, self._args, self._cpus, self._harden)
        )
        in_time = self._serve(_BOOT_TIMEOUT, (hc.Booted, hc.Ended))
        if self._fault is not None:
            raise DomainStartError(self._name, self._fault.error, self._fault.text)
        if self._ended is not None:
            ended = self._ended
            raise DomainStartError(self._name, ended.error, ended.text, ended.traceback)
        if not in_time:
            how = self._end_process()
            text = f"no answer within {_BOOT_TIMEOUT:g} s" if in_time is None else str(how)
            raise DomainStartError(self._name, "DomainDied", f"{text}, while it started")
        return process

    def on_stop(self) -> None:
        how = self._dying()
        try:
            if self._process is not None and how != records.DESTROY and not self.exit_reason.failed:
                if self._paused:
                    self._signal(signal.SIGCONT)
                self._send(hc.Shutdown())
                self._serve(self._grace, (hc.Ended,))
        finally:
            self._end_process()
            self._destroy(how)

    def _end_process(self) -> HowEnded | None:
        """No thread of it runs after this, and its last lines are in the log."""
        process, self._process = self._process, None
        if process is None:
            return self._how
        for number in (self._end.fileno(), process.pidfd.fileno()):
            self.unwatch(number)
        for stream in self._console.streams:
            self.unwatch(stream.pipe.fileno())
        self._how = end_process(process)
        self._end.close()
        self._console.drain()
        return self._how

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
                    self._judge()
            case Pause(paused):
                self._pause(paused=paused)
            case WhichPid():
                return self._pid
            case Crash():
                self._signal(signal.SIGKILL)
            case _:
                raise TypeError(f"a domain does not take {type(message).__name__}")
        return None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            signal.pidfd_send_signal(self._process.pidfd.fileno(), number)

    def _pause(self, *, paused: bool) -> None:
        if paused == self._paused or self._process is None:
            return
        if not paused:
            self._signal(signal.SIGCONT)
        elif not stop_process(self._process, _STOP_TIMEOUT):
            text = f"it did not stop within {_STOP_TIMEOUT:g} s when it was to be paused"
            self.exit(ExitReason("error", "DomainHung", text, ""))
            return
        self._forget_ping()
        self._paused = paused
        self._domains.ask(records.Paused(self._name, paused))

    # --- the watchdog -----------------------------------------------------------------------------

    def _probe(self) -> None:
        if self._ping is None and not self._paused:
            self._pings += 1
            self._periods = 0
            self._asked = self._seen = signs_of(self._pid)
            self._ping = self.after(self._watchdog, _PingExpired(self._pings))
            self._send(hc.Ping(self._pings))

    def _judge(self) -> None:
        now = signs_of(self._pid, spoke=self._end.is_readable)
        self._periods += 1
        verdict = judge(self._asked, self._seen, now, self._periods, self._watchdog)
        if verdict.hung:
            waited = self._watchdog * self._periods
            text = f"hung: no sign of life within {waited:g} s of being asked: {verdict.why}"
            self.exit(ExitReason("error", "DomainHung", text, ""))
            return
        self._seen = now
        self._ping = self.after(self._watchdog, _PingExpired(self._pings))

    def _forget_ping(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    # --- what comes from the process --------------------------------------------------------------

    def _serve(self, seconds: float, until: tuple[type[Message], ...]) -> bool | None:
        """Handle what it sends until one of ``until`` came: True. False: nothing more will come.
        None: time is over.
        """
        assert self._process is not None
        deadline = time.monotonic() + seconds
        pidfd = self._process.pidfd.fileno()
        streams = {stream.pipe.fileno(): stream for stream in self._console.streams}
        poller = select.poll()
        for number in (self._end.fileno(), pidfd, *streams):
            poller.register(number, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {number for number, _ in poller.poll(left * 1000)}
            for number in ready & streams.keys():
                if not self._console.read(streams[number]):
                    poller.unregister(number)
            if not ready & {self._end.fileno(), pidfd}:
                continue
            try:
                frame = self._receive()
            except BlockingIOError:
                if pidfd in ready:  # it has ended, though somebody keeps its socket open
                    return False
                continue
            if frame is None:
                return False
            self._handle(frame)
            if self._fault is not None:
                return False
            if isinstance(frame, until):
                return True
        return None

    def _receive(self) -> Message | None:
        """A frame; None if none will come, which may be its own fault. Raises BlockingIOError."""
        try:
            return self._end.receive()
        except BlockingIOError:
            raise
        except (MessageError, OSError) as error:
            self._refuse(type(error).__name__, f"bad frame: {error}")
            return None

    def _on_frame(self) -> None:
        try:
            frame = self._receive()
        except BlockingIOError:
            return
        if frame is not None:
            self._handle(frame)
        elif self._fault is None:
            self._hung_up()

    def _hung_up(self) -> None:
        """A process that ends closes its socket just before its pidfd says so; one that has said
        that it ends gets the time for it.
        """
        assert self._process is not None
        patience = _LAST_WORDS if self._ended is None else self._grace
        if not has_ended(self._process.pidfd.fileno(), patience):
            self.exit(ExitReason("error", "DomainDied", "it closed its hypercall socket", ""))
            return
        self._on_death()

    def _on_death(self) -> None:
        self._serve(_LAST_WORDS, (hc.Ended,))  # what it said last may still lie in the socket
        how = self._end_process()
        if self._fault is not None:
            return
        if self._ended is None:
            text = f"its process (pid {self._pid}) ended: {how}"
            self.exit(ExitReason("error", "DomainDied", text, ""))
        elif self._ended.error == "normal":
            self.exit()
        else:
            text = f"{self._ended.text} ({how})"
            self.exit(ExitReason("error", self._ended.error, text, self._ended.traceback))

    def _on_output(self, stream: Stream) -> None:
        if not self._console.read(stream):
            self.unwatch(stream.pipe.fileno())

    def _keep(self, lines: list[str]) -> None:
        self._domains.ask(records.Said(self._name, lines))

    def _handle(self, frame: Message) -> None:
        match frame:
            case hc.Call(number, call):
                if isinstance(call, STORE_CALLS):
                    answer = self._process_store.call(call)
                else:
                    answer = self._hypervisor.ask(hc.Hypercall(self._domid, call))
                if isinstance(answer, hc.Refused):
                    self._domains.ask(records.Refused(self._name))
                if isinstance(answer, Message):
                    self._send(hc.Answer(number, None, answer))
                else:
                    self._send(hc.Answer(number, answer, None))
            case hc.Pong(number):
                if number == self._pings:
                    self._forget_ping()
            case StoreTaken():
                self._process_store.taken()
            case hc.Booted():
                return
            case hc.Ended():
                self._ended = frame
            case _:
                text = f"{type(frame).__name__} is not for a domain to say"
                self._refuse("MessageError", text)

    def _refuse(self, error: str, text: str) -> None:
        self._domains.ask(records.Refused(self._name))
        self._fault = ExitReason("error", error, text, "")
        self.exit(self._fault)

    # --- what goes to the process -----------------------------------------------------------------

    def _send(self, message: Message) -> None:
        try:
            self._end.send(message, hold=self._paused or isinstance(message, hc.LastMappingGone))
        except BlockingIOError:  # nobody waits for a domain that does not read
            self.exit(ExitReason("error", "DomainHung", "it does not read its hypercall socket"))
            return
        if self._end.holds:
            self.watch(self._end.fileno(), self._on_frame, self._flush)

    def _flush(self) -> None:
        """It reads again what was told to it while it was paused."""
        self._end.flush()
        if not self._end.holds:
            self.watch(self._end.fileno(), self._on_frame)


class Pause(Message):
    """Stop to run, or (not ``paused``) go on. Nothing if that is so already."""

    paused: bool


class _PingExpired(Message):
    number: int
