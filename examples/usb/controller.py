"""A virtual host controller with one port: what becomes of every URB. Pure.

Owns the URBs that have not ended, in a queue for each endpoint, and what it takes to make a device
work again after its back end has died. The host around it (host.py) sends what it is told to send,
and says what came back. URBs and ends are counted by who submits: each gets exactly one `Giveback`.

Life of a URB: submitted -> queued -> sent -> an answer: the end, or NAK: it waits until the
endpoint is ready -> sent again, for what is left of it. One URB of an endpoint is sent at a time,
so their order is kept; of an isochronous one `_AHEAD`, so that no period of the bus passes unused.

Rules:
1. Whatever the port does takes a script: requests one after another, while no URB is sent.

       attach    CONNECT, read the descriptors, SET_ADDRESS, SET_CONFIGURATION
       restore   the same, and the settings that were made; the descriptors must be what they were
       reset     RESET, SET_ADDRESS, SET_CONFIGURATION

2. An answer STALE means that the back end was replaced: restore. A URB that was sent then may have
   been carried out or not: it is sent again if that does no harm (`protocol.repeatable`), else it
   ends with IOERROR, which a driver takes for a bad cable and recovers from.
3. A bulk dialogue does not survive its device. The first URB of each bulk endpoint after a restore
   ends with IOERROR, whether it waited or comes later, until the driver has reset the endpoint in
   some way. Without that a driver would wait for an answer to what the new device never heard.
4. Unlinking a URB that is not sent ends it with CONNRESET, at once. One that is sent ends with its
   answer, and with CONNRESET only if that is NAK or STALE. A device that holds URBs is told to let
   go of those of the endpoint; the others among them are sent again.
5. A device that comes back as another one, or does not enumerate, or answers that it is not there
   any more, is disconnected: everything ends with NODEV. When the channel has ended it is SHUTDOWN.

Corner case: input for the device that was sent to one that died is lost, as keys on an unplugged
keyboard are; it is counted (`lost`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from examples.usb import chapter9 as c9
from examples.usb import descriptors
from examples.usb import protocol as p
from examples.usb.chapter9 import Setup
from examples.usb.urb import Urb

DETACHED: Final = "detached"
BUSY: Final = "busy"  # a script runs
ATTACHED: Final = "attached"
GONE: Final = "gone"

_ADDRESS: Final = 1
_AHEAD: Final = 4  # isochronous URBs of an endpoint that are sent at the same time
_DESCRIPTOR_LIMIT: Final = 4096  # bytes


# --- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    """Send ``body`` with a buffer: of ``data``, or of ``room`` bytes to be filled, or none."""

    token: _Sent
    body: tuple[Any, ...]
    data: bytes = b""
    room: int = 0


@dataclass(frozen=True)
class Giveback:
    """The URB has ended."""

    urb: Urb


@dataclass(frozen=True)
class Output:
    """The device says something to the world."""

    function: int
    data: bytes


@dataclass(frozen=True)
class Connected:
    """The device is there, with these descriptors. ``again``: it was there before."""

    device: descriptors.DeviceRead
    configuration: descriptors.ConfigurationRead
    speed: int
    again: bool


@dataclass(frozen=True)
class Disconnected:
    """It is not there any more, for good."""

    reason: str


Effect = Send | Giveback | Output | Connected | Disconnected


@dataclass(frozen=True, eq=False)
class _Step:
    """A request of a script: ``body``, or a control transfer."""

    body: tuple[Any, ...]
    setup: Setup | None = None
    data: bytes = b""


@dataclass(frozen=True, eq=False)
class _Sent:
    """What an answer is to: a URB, a step of a script, an unlinking, or input."""

    urb: Urb | None = None
    step: _Step | None = None
    unlinking: bool = False


@dataclass
class _Pipe:
    """The URBs of one endpoint."""

    kind: int
    interface: int = -1
    queue: deque[Urb] = field(default_factory=deque)
    sent: list[Urb] = field(default_factory=list)  # of those in the queue
    waiting: bool = False  # the endpoint has refused one, and is not ready yet
    broken: bool = False  # the next one ends with IOERROR
    unlinked: set[Urb] = field(default_factory=set)  # of those that are sent

    @property
    def next(self) -> Urb | None:
        """The one to be sent, if one may be."""
        if self.waiting or len(self.sent) >= (_AHEAD if self.kind == c9.ISOCHRONOUS else 1):
            return None
        return next((urb for urb in self.queue if urb not in self.sent), None)


class Controller:
    """A port, and the device at it.

    Attributes:
        state: DETACHED, BUSY, ATTACHED or GONE.
        restarts: how often the back end was replaced.
        lost: inputs that were lost with it.
        holds: the device is real hardware; see protocol.py.
    """

    def __init__(self) -> None:
        self.state = DETACHED
        self.restarts = 0
        self.lost = 0
        self.holds = False
        self._incarnation = 0
        self._speed = 0
        self._script: deque[_Step] = deque()
        self._descriptors: list[bytes] = []  # as they were read first
        self._read: list[bytes] = []  # in the present script
        self._pipes: dict[int, _Pipe] = {0: _Pipe(c9.CONTROL)}
        self._where: dict[Any, int] = {}  # the endpoint of every URB that has not ended
        self._configuration = 0
        self._settings: dict[tuple[int, int, int], tuple[Setup, bytes]] = {}
        self._inputs: deque[tuple[int, bytes]] = deque()
        self._input_sent = False
        self._effects: list[Effect] = []

    # --- what a driver does -----------------------------------------------------------------------

    def attach(self) -> list[Effect]:
        """Enumerate the device."""
        self._enumerate()
        return self._take()

    def kind(self, endpoint: int) -> int | None:
        """The transfer type of an endpoint; None for one that the device does not have."""
        pipe = self._pipes.get(endpoint)
        return None if pipe is None else pipe.kind

    def submit(self, urb: Urb) -> list[Effect]:
        """Take the URB; it will be given back.

        Raises:
            ValueError: its id is in use.
        """
        if urb.id in self._where:
            raise ValueError(f"a URB {urb.id!r} has not ended")
        self._where[urb.id] = urb.endpoint
        pipe = self._pipes.get(urb.endpoint)
        if self.state == GONE:
            self._end(urb, p.NODEV)
        elif pipe is None or not _makes_sense(urb, pipe.kind):
            self._end(urb, p.INVAL)
        else:
            pipe.queue.append(urb)
            self._pump(pipe)
        return self._take()

    def unlink(self, number: Any) -> list[Effect]:
        """End the URB of that id soon; nothing if it has ended."""
        endpoint = self._where.get(number)
        if endpoint is not None:
            pipe = self._pipes[endpoint]
            (urb,) = (one for one in pipe.queue if one.id == number)
            if urb in pipe.sent:
                pipe.unlinked.add(urb)
                if self.holds and self.state != GONE:
                    body = (p.UNLINK, self._incarnation, endpoint)
                    self._effects.append(Send(_Sent(unlinking=True), body))
            else:
                pipe.queue.remove(urb)
                self._end(urb, p.CONNRESET)
                self._pump(pipe)
        return self._take()

    def unlink_all(self) -> list[Effect]:
        """End every URB soon."""
        effects = []
        for number in list(self._where):
            effects += self.unlink(number)
        return effects

    def reset(self) -> list[Effect]:
        """Reset the device, and configure it as it was first; what was set is forgotten.

        URBs that are queued stay. A script that runs is given up for this one.
        """
        if self._descriptors and self.state != GONE:
            self._forget_settings()
            self._run([_Step((p.RESET,)), *self._configure(self._first_configuration())])
        return self._take()

    def input(self, function: int, data: bytes) -> list[Effect]:
        """Have something happen to the device in the world; in order."""
        if self.state == GONE:
            self.lost += 1
        else:
            for at in range(0, len(data), p.SAID_LIMIT):
                self._inputs.append((function, data[at : at + p.SAID_LIMIT]))
            self._pump_inputs()
        return self._take()

    # --- what comes back --------------------------------------------------------------------------

    def answered(self, token: _Sent, answer: Any, data: bytes) -> list[Effect]:
        """The answer to a `Send`; ``data``: its buffer, where it was to be filled."""
        if self.state == GONE:
            self._last_answer(token)
        elif token.urb is not None:
            self._urb_answered(token.urb, answer, data)
        elif token.step is not None:
            self._step_answered(token.step, answer, data)
        elif not token.unlinking:  # what was unlinked is answered itself
            self._input_answered(answer)
        return self._take()

    def failed(self, token: _Sent, reason: str) -> list[Effect]:
        """The back end raised an error instead of an answer."""
        if token.step is None:
            return self.answered(token, (p.IOERROR, 0, (), (), ()), b"")
        self._gone(f"it does not enumerate: {reason}", p.NODEV)
        return self._take()

    def closed(self, reason: str) -> list[Effect]:
        """The channel has ended; every `Send` has."""
        for pipe in self._pipes.values():
            pipe.sent.clear()
        self._gone(reason, p.SHUTDOWN)
        return self._take()

    def _urb_answered(self, urb: Urb, answer: Any, data: bytes) -> None:
        pipe = self._pipes[urb.endpoint]
        pipe.sent.remove(urb)
        unlinked = urb in pipe.unlinked
        pipe.unlinked.discard(urb)
        if answer[0] == p.STALE:
            if self.state == ATTACHED:
                self._restore()
            self._stale_urb(pipe, urb, unlinked=unlinked)
            return
        status, actual, results, ready, output = answer
        urb.received += data if urb.packets else data[:actual]
        urb.actual += actual
        urb.results = results
        if status == p.NAK and not unlinked:
            pipe.waiting = not self.holds
        else:
            pipe.queue.remove(urb)
            status = p.CONNRESET if status == p.NAK else status
            if status == p.OK and urb.kind == c9.CONTROL:
                self._remember(Setup.of(urb.setup), urb.data)
            self._end(urb, status)
            if status == p.NODEV:
                self._gone("it was unplugged", p.NODEV)
        self._note(ready, output)
        self._pump(pipe)

    def _stale_urb(self, pipe: _Pipe, urb: Urb, *, unlinked: bool) -> None:
        if unlinked or not p.repeatable(urb.kind, urb.endpoint, urb.setup):
            pipe.queue.remove(urb)
            pipe.broken = pipe.broken and unlinked
            self._end(urb, p.CONNRESET if unlinked else p.IOERROR)

    def _input_answered(self, answer: Any) -> None:
        self._input_sent = False
        self._inputs.popleft()
        if answer[0] == p.STALE:
            self.lost += 1
            if self.state == ATTACHED:
                self._restore()
        else:
            self.lost += answer[0] != p.OK
            self._note(answer[3], answer[4])
        self._pump_inputs()

    def _last_answer(self, token: _Sent) -> None:
        """To a URB that a device that is gone had been sent."""
        if token.urb is not None:
            pipe = self._pipes[token.urb.endpoint]
            pipe.sent.remove(token.urb)
            pipe.queue.remove(token.urb)
            self._end(token.urb, p.NODEV)

    def _note(self, ready: Any, output: Any) -> None:
        self._effects += [Output(function, said) for function, said in output]
        for endpoint in ready:
            pipe = self._pipes.get(endpoint)
            if pipe is not None and pipe.waiting:
                pipe.waiting = False
                self._pump(pipe)

    # --- queues -----------------------------------------------------------------------------------

    def _pump(self, pipe: _Pipe) -> None:
        while self.state == ATTACHED and (urb := pipe.next) is not None:
            if pipe.broken:
                pipe.broken = False
                pipe.queue.remove(urb)
                self._end(urb, p.IOERROR)
                continue
            pipe.sent.append(urb)
            self._effects.append(self._send(urb))

    def _send(self, urb: Urb) -> Send:
        length = urb.length - urb.actual
        body = (
            p.SUBMIT,
            self._incarnation,
            urb.endpoint,
            urb.kind,
            length,
            urb.setup,
            urb.packets,
        )
        token = _Sent(urb)
        if urb.is_in:
            return Send(token, body, room=length)
        return Send(token, body, data=urb.data[urb.actual :])

    def _pump_inputs(self) -> None:
        if self.state == ATTACHED and self._inputs and not self._input_sent:
            self._input_sent = True
            body = (p.INPUT, self._incarnation, *self._inputs[0])
            self._effects.append(Send(_Sent(), body))

    def _pump_all(self) -> None:
        for pipe in self._pipes.values():
            self._pump(pipe)
        self._pump_inputs()

    def _end(self, urb: Urb, status: int) -> None:
        del self._where[urb.id]
        if status == p.OK and urb.short_not_ok and urb.is_in and urb.actual < urb.length:
            status = p.REMOTEIO
        urb.status = status
        self._effects.append(Giveback(urb))

    def _take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    # --- the port ---------------------------------------------------------------------------------

    def _remember(self, setup: Setup, data: bytes) -> None:
        """What a driver has set, for a device that comes back; and which pipes are whole again."""
        if setup.request_type == c9.ENDPOINT and setup.request == c9.CLEAR_FEATURE:
            pipe = self._pipes.get(setup.index)
            if pipe is not None:
                pipe.broken = False
        elif setup.request_type == c9.DEVICE and setup.request == c9.SET_CONFIGURATION:
            self._configuration = setup.value
            self._forget_settings()
        elif (setup.kind, setup.request) in p.SETTINGS and not setup.is_in:
            key = setup.request_type, setup.request, setup.index
            self._settings.pop(key, None)  # the order is that of the last time
            self._settings[key] = (setup, data)
            if setup.kind == c9.STANDARD:
                self._mend(setup.index)

    def _forget_settings(self) -> None:
        self._settings.clear()
        self._mend(None)

    def _mend(self, interface: int | None) -> None:
        """The pipes of the interface, or all, are whole."""
        for pipe in self._pipes.values():
            if interface in (None, pipe.interface):
                pipe.broken = False

    def _restore(self) -> None:
        self.restarts += 1
        for pipe in self._pipes.values():
            pipe.waiting = False
            pipe.broken = pipe.kind == c9.BULK
            if not pipe.broken:  # what is repeated begins again
                for urb in pipe.queue:
                    urb.actual, urb.received = 0, b""
        self._enumerate()

    def _enumerate(self) -> None:
        self._run(
            [
                _Step((p.CONNECT,)),
                _get(c9.DEVICE_DESCRIPTOR, 18),
                _get(c9.CONFIGURATION_DESCRIPTOR, _DESCRIPTOR_LIMIT),
            ]
        )
        self._read = []

    def _configure(self, value: int) -> Iterator[_Step]:
        self._configuration = value
        yield _control(Setup(0, c9.SET_ADDRESS, _ADDRESS, 0, 0))
        if value:
            yield _control(Setup(0, c9.SET_CONFIGURATION, value, 0, 0))
        for setup, data in self._settings.values():
            yield _control(setup, data)

    def _first_configuration(self) -> int:
        return descriptors.read_configuration(self._descriptors[1]).value

    def _run(self, script: list[_Step]) -> None:
        self.state = BUSY
        self._script = deque(script)
        self._send_step()

    def _send_step(self) -> None:
        step = self._script[0]
        token = _Sent(step=step)
        if step.setup is None:
            body = step.body if step.body[0] == p.CONNECT else (*step.body, self._incarnation)
            self._effects.append(Send(token, body))
            return
        length = step.setup.length
        body = (p.SUBMIT, self._incarnation, 0, c9.CONTROL, length, step.setup.pack(), ())
        room = length if step.setup.is_in else 0
        self._effects.append(Send(token, body, step.data, room))

    def _step_answered(self, step: _Step, answer: Any, data: bytes) -> None:
        if len(answer) == 5:
            self._note(answer[3], answer[4])
        if not self._script or step is not self._script[0]:
            return  # of a script that was given up
        if answer[0] == p.STALE:
            self._restore()
            return
        self._script.popleft()
        if step.body[:1] == (p.CONNECT,):
            self._incarnation, self._speed, self.holds = answer
        elif answer[0] != p.OK:
            self._gone(f"it does not enumerate: status {answer[0]} to {step.setup}", p.NODEV)
            return
        elif step.setup is not None and step.setup.is_in:
            self._read.append(data[: answer[1]])
            if len(self._read) == 2 and not self._recognised():
                return
        if self._script:
            self._send_step()
        else:
            self.state = ATTACHED
            self._pump_all()

    def _recognised(self) -> bool:
        """Both descriptors are read: learn them, or see that they are still the same."""
        again = bool(self._descriptors)
        try:
            device = descriptors.read_device(self._read[0])
            configuration = descriptors.read_configuration(self._read[1])
        except descriptors.BadDescriptor as error:
            self._gone(f"it does not enumerate: {error}", p.NODEV)
            return False
        if not again:
            self._descriptors = self._read
            for end in configuration.endpoints:
                self._pipes.setdefault(end.address, _Pipe(end.kind, end.interface))
        elif self._descriptors != self._read:
            self._gone("another device came back in its place", p.NODEV)
            return False
        value = self._configuration if again else configuration.value
        self._script.extend(self._configure(value))
        self._effects.append(Connected(device, configuration, self._speed, again))
        return True

    def _gone(self, reason: str, status: int) -> None:
        if self.state != GONE:
            self.state = GONE
            self._effects.append(Disconnected(reason))
        for pipe in self._pipes.values():
            for urb in pipe.queue:
                if urb not in pipe.sent:
                    self._end(urb, status)
            pipe.queue = deque(pipe.sent)
        self.lost += len(self._inputs)
        self._inputs.clear()


def _makes_sense(urb: Urb, kind: int) -> bool:
    if urb.kind != kind or not 0 <= urb.length <= p.URB_LIMIT:
        return False
    if kind == c9.CONTROL and (len(urb.setup) != 8 or Setup.of(urb.setup).length != urb.length):
        return False
    packets = len(urb.packets)
    if packets and (kind != c9.ISOCHRONOUS or sum(urb.packets) != urb.length):
        return False
    if packets > p.PACKET_LIMIT or (kind == c9.ISOCHRONOUS and not packets):
        return False
    return len(urb.data) == (0 if urb.is_in else urb.length)


def _control(setup: Setup, data: bytes = b"") -> _Step:
    return _Step((), setup, data)


def _get(kind: int, length: int) -> _Step:
    return _control(Setup(c9.IN, c9.GET_DESCRIPTOR, kind << 8, 0, length))
