"""The back end's endpoint actor: runs a driver, and serves every connection to it.

`BackEndActor` runs one `BackEnd` in a domain. Its one thread waits on its mailbox (peer states,
shutdown) and on the event channel of every connection, so a request costs one wake-up; answers are
published in small batches and signalled only when the front end sleeps. Each connection has its
turn of a few requests, then the next one. Work that blocks goes to worker threads
(`BackEnd.offload`), which answer by themselves. The threads are the runtime's: in a simulated
machine each piece of work is a stack of its own.

A driver that spins (`BackEnd.spin`) has the endpoint look at all rings for a moment before it
sleeps; the mailbox gets its turn at least every millisecond.

Nothing of an ended connection runs on when the next one of that front end begins: its memory is
unmapped, and while a worker is still at work for it, InitWait is not said. A front end in another
domain than this one's may be the successor of the one that has ended: it waits, too.

A front end that breaks the protocol, or offers what cannot be (handshake.py), loses its connection,
alone.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import Any

from actors import Actor, Executor, Exit, Message
from hypervisor import (
    BadGrant,
    BadPort,
    DomainDead,
    Guest,
    HypervisorError,
    IllegalTransition,
    MappingRevoked,
    News,
    PeerState,
    Region,
    StaleEpoch,
    XenbusState,
    raise_event,
)
from transport import descriptors
from transport.driver import BackEnd, Offloaded, Request
from transport.endpoint import open_front_end
from transport.errors import ChannelClosed, RemoteProtocolError, VersionMismatch
from transport.frontend import FrontEnd
from transport.handshake import Acceptance, Offer, agree
from transport.lifecycle import BACK, CLOSED, CLOSING, CONNECTED, INIT_WAIT
from transport.remote_memory import CopiedMemory, MappedMemory, RemoteMemory
from transport.ring import page_size
from transport.serving import Connection

_log = logging.getLogger("transport")

_BATCH = 8  # answers that are published together: small enough to keep both sides busy at once
_ROUNDS = 4  # readings of a ring, before the others and the mailbox have their turn
_TURN = 64  # requests of each
_SPIN_TURN = 0.001  # seconds of spinning, before the mailbox has its turn

Front = tuple[int, int]


class _Idle(Message):
    """The last work for an ended connection of that front end is done."""

    domid: int
    channel: int


class _Broken(Message):
    """A worker found out that the front end of that epoch broke the protocol."""

    domid: int
    channel: int
    epoch: int
    text: str


class BackEndActor(Actor):
    """Runs ``program``, a `BackEnd` subclass, in the domain of ``guest``."""

    def __init__(self, guest: Guest, program: type[BackEnd], args: list[Any]) -> None:
        super().__init__()
        self._guest = guest
        self._driver = program()
        self._driver.runtime = self.system.runtime
        self._driver.opener, self._driver.domain_store = self._open, guest.store
        self._channels: list[FrontEnd] = []  # the driver's own, to other domains' devices
        self._args = args
        self._states: dict[Front, XenbusState] = {}  # Closed, unless it is here
        self._connections: dict[Front, Connection] = {}
        self._ending: dict[Front, list[Connection]] = {}  # closed, and still at work
        self._waiting: dict[Front, int] = {}  # the epoch to say InitWait in when that is over
        self._on_request = guest.interruptible(self._driver.on_request)
        self._is_idempotent = self._driver.is_idempotent
        self._spin = 0.0
        self._spins_until = 0.0
        self._pack = descriptors.packer()  # for this actor's thread alone
        self._workers: Executor | None = None

    def on_start(self) -> None:
        try:
            self._driver.on_start(*self._args)
            self._spin = 0.0 if self.system.simulation else self._driver.spin
            waiting = self._guest.advertise(self._guest.name)
        except BaseException:
            self._close_channels()
            raise
        for front, epoch in waiting:
            self._states[front] = INIT_WAIT
            self._say(front, epoch, INIT_WAIT)

    def on_stop(self) -> None:
        orderly = self.exit_reason.kind in ("normal", "shutdown")
        if orderly:
            self._guest.unadvertise(self._guest.name)  # or who hears of our end connects anew to us
            for connection in self._connections.values():
                self._say(connection.front, connection.epoch, CLOSING)
            for connection in list(self._connections.values()):
                self._finish(connection)
        for connection in self._connections.values():
            connection.end_phases()  # which only this thread could go on with
        if self._workers is not None:
            self._driver.on_abandoned()
            self._workers.shutdown(wait=True)
        for connection in list(self._connections.values()):
            self._drop(connection.front)
            if orderly:
                self._say(connection.front, connection.epoch, CLOSED, "its back end has ended")
        if orderly:
            self._driver.on_stop()
        self._close_channels()

    def _open(
        self, device: str, watchdog: float, slots: int, buffer_bytes: int, spin: float
    ) -> FrontEnd:
        """See `BackEnd.connect`.

        The endpoint outlives this actor's last requests, so it is no child: children end first. A
        simulated process is the actors that it has started, which are killed with it.
        """
        start = self.system.start if self.system.simulation is None else self.start_child
        channel = open_front_end(
            self.system, start, self._guest, device, watchdog, slots, buffer_bytes, spin
        )
        self._channels.append(channel)
        return channel

    def _close_channels(self) -> None:
        for channel in self._channels:
            channel.close()

    def on_receive(self, message: Message) -> None:
        match message:
            case PeerState(front_domid=domid) if domid == self._guest.domid:
                pass  # of a channel of the driver's own, whose endpoint has ended
            case PeerState():
                self._on_peer((message.front_domid, message.channel), message)
            case MappingRevoked(handles=handles):
                self._on_revoked(set(handles))
            case _Idle(domid, channel):
                self._on_idle((domid, channel))
            case _Broken(domid, channel, epoch, text):
                connection = self._connections.get((domid, channel))
                if connection is not None and connection.epoch == epoch:
                    self._refuse(connection.front, epoch, "refused", text)
            case News():
                pass  # the bus says it too
            case Exit():
                pass  # of a channel of the driver's own, which says so to its users
            case _:
                raise TypeError(f"a back end does not take {type(message).__name__}")

    def _on_peer(self, front: Front, said: PeerState) -> None:
        state, actions = BACK[self._states.get(front, CLOSED), XenbusState(said.state)]
        if state is not CLOSED:
            self._states[front] = state
        for action in actions:
            if action == "wait":
                self._waiting[front] = said.epoch
                self._on_idle(front)
            elif action == "accept":
                self._accept(front, said)
            elif action == "finish" and front in self._connections:
                self._finish(self._connections[front])
            elif action == "drop":
                self._drop(front)

    def _say(self, front: Front, epoch: int, state: XenbusState, details: Any = None) -> None:
        try:
            self._guest.switch(front, epoch, state, details)
        except StaleEpoch:  # what ended it is in our mailbox, or is our own end
            _log.info("front end %s was gone before %s", front, state.label)

    # --- the life of a connection ---

    def _accept(self, front: Front, said: PeerState) -> None:
        driver = self._driver
        try:
            offer = Offer.of(said.details)
            features = agree(offer, driver.version, driver.features)
            self._connect(front, said, offer, features)
        except VersionMismatch as error:
            self._refuse(front, said.epoch, "version", str(error))
        except RemoteProtocolError as error:
            self._refuse(front, said.epoch, "refused", str(error))

    def _connect(
        self, front: Front, said: PeerState, offer: Offer, features: frozenset[str]
    ) -> None:
        guest, peer = self._guest, said.peer
        with ExitStack() as undo:
            try:
                ring = Region(
                    page_size(offer.slots, descriptors.RECORD_LIMIT),
                    name="xenidc-ring",
                    readonly_to_peers=True,
                )
                undo.callback(guest.release, ring)
                pages = guest.map_grant_ref(peer, offer.ring)
                undo.callback(guest.unmap_grant_ref, pages)
                memory = self._memory_of(peer, offer)
                undo.callback(memory.close)
                channel = guest.bind_interdomain(peer, offer.port, offer.port_epoch)
                undo.callback(guest.close_port, channel)
                connection = Connection(
                    front,
                    said.epoch,
                    channel,
                    pages,
                    memory,
                    ring,
                    offer.slots,
                    self.system.runtime,
                )
                gref = guest.grant_access(peer, ring, readonly=True)
                answer = Acceptance(gref, self._driver.idempotent, self._driver.version, features)
                guest.switch(front, said.epoch, CONNECTED, answer.details(), grants=[gref])
            except (IllegalTransition, DomainDead):
                raise
            except (StaleEpoch, BadGrant, BadPort) as error:
                _log.info("front end %s went away while it connected: %s", front, error)
                self._drop(front)
                self._say(front, said.epoch, CLOSED, "what was offered is gone")
            except (HypervisorError, OSError) as error:
                raise RemoteProtocolError(f"what was offered cannot be used: {error}") from error
            else:
                undo.pop_all()
                self._connections[front] = connection
                self.watch(channel.fileno(), lambda: self._on_event(connection))

    def _memory_of(self, peer: int, offer: Offer) -> RemoteMemory:
        if offer.copied:
            return CopiedMemory(self._guest, peer, offer.buffers, offer.buffer_bytes)
        return MappedMemory(self._guest, self._guest.map_grant_ref(peer, offer.buffers))

    def _give_back(self, connection: Connection) -> None:
        self._guest.unmap_grant_ref(connection.pages)
        connection.memory.close()
        self._guest.close_port(connection.channel)
        self._guest.release(connection.ring)

    def _on_revoked(self, handles: set[int]) -> None:
        """Somebody took a connection's memory: it is over, and there may be another."""
        for front, connection in list(self._connections.items()):
            if not handles.isdisjoint((connection.pages.handle, connection.memory.handle)):
                self._drop(front)
                self._say(front, connection.epoch, CLOSED, "its memory was revoked")

    def _on_idle(self, front: Front) -> None:
        """Say InitWait, once nothing of an earlier connection runs."""
        ending = [each for each in self._ending.pop(front, []) if not each.idle]
        if ending:
            self._ending[front] = ending
        for waiting in list(self._waiting):
            if not any(ended == waiting or ended[0] != waiting[0] for ended in self._ending):
                self._say(waiting, self._waiting.pop(waiting), INIT_WAIT)

    def _finish(self, connection: Connection) -> None:
        """Serve what lies in its ring, once, and look no more."""
        self._stop_watching(connection)
        try:
            while connection.read():
                self._serve(connection)
        except RemoteProtocolError as error:
            self._on_broken(connection, error)

    def _stop_watching(self, connection: Connection) -> None:
        if not connection.closing:
            connection.closing = True
            self.unwatch(connection.channel.fileno())

    def _drop(self, front: Front) -> None:
        self._states.pop(front, None)
        self._waiting.pop(front, None)
        connection = self._connections.pop(front, None)
        if connection is not None:
            self._stop_watching(connection)
            connection.close()
            if not connection.idle:
                self._ending.setdefault(front, []).append(connection)
                self._driver.on_abandoned()
            self._give_back(connection)
            if self._spin:
                for other in self._connections.values():
                    raise_event(other.channel.fileno())  # it may have been that one's turn to spin

    def _refuse(self, front: Front, epoch: int, kind: str, reason: str) -> None:
        """``kind``: of handshake.REFUSALS."""
        _log.error("front end %s is refused: %s", front, reason)
        self._drop(front)
        self._say(front, epoch, CLOSED, [kind, reason])

    def _on_broken(self, connection: Connection, error: RemoteProtocolError) -> None:
        self._refuse(connection.front, connection.epoch, "refused", str(error))

    # --- requests ---

    def _on_event(self, connection: Connection) -> None:
        connection.channel.consume()
        if not self._spin:
            self._serve_turn(connection)
        elif self._look_around():
            if not connection.closing:  # whoever drops one tells the others
                raise_event(connection.channel.fileno())  # nobody was asked to signal: look again
        else:
            for each in self._open_connections():
                self._serve_turn(each)

    def _open_connections(self) -> list[Connection]:
        return [each for each in self._connections.values() if not each.closing]

    def _look_around(self) -> bool:
        """Serve all connections as long as requests come quickly; whether they still do.

        The event of one that has just been opened, or was served meanwhile, is nothing to spin for.
        """
        now = self.system.now
        started = now()
        while True:
            found = False
            for each in self._open_connections():
                found |= not each.closing and self._look(each)
            at = now()
            if found:
                self._spins_until = at + self._spin
            elif at >= self._spins_until:
                return False
            else:
                os.sched_yield()
            if at - started > _SPIN_TURN:
                return True

    def _look(self, connection: Connection) -> bool:
        """Serve a few of its requests, without being signalled; whether there were any."""
        try:
            if not connection.read():
                return False
            self._serve(connection)
        except RemoteProtocolError as error:
            self._on_broken(connection, error)
        return True

    def _serve_turn(self, connection: Connection) -> None:
        """Serve a few of its requests, and have it signal the next, or be looked at again."""
        try:
            for _ in range(_ROUNDS):
                if connection.read():
                    self._serve(connection)
                elif not connection.incoming.arm():
                    return
        except RemoteProtocolError as error:
            self._on_broken(connection, error)
            return
        raise_event(connection.channel.fileno())  # there is more, when the others had a turn

    def _serve(self, connection: Connection) -> None:
        epoch, on_request, is_idempotent = connection.epoch, self._on_request, self._is_idempotent
        idempotent = self._driver.idempotent
        answers: list[bytes] = []
        for _ in range(min(_TURN, len(connection.backlog))):
            found = connection.next()
            if found is None:
                continue
            number, request = found
            repeatable = False
            try:
                repeatable = idempotent or is_idempotent(request.body)
                if not repeatable:
                    connection.journal.begin(number)
                result = on_request(request)
            except Exception as error:  # noqa: BLE001 - the driver's, for the caller
                if not connection.memory.usable:
                    return  # our doing, not the driver's: it will be asked again
                answers.append(descriptors.pack_error(epoch, number, error))
            else:
                if type(result) is Offloaded:
                    self._offload(connection, number, request, result)
                    continue
                answers.append(descriptors.pack_result(epoch, number, result, self._pack))
            if len(answers) == _BATCH or not repeatable:
                connection.publish(b"".join(answers))
                answers.clear()
        if answers:
            connection.publish(b"".join(answers))

    def _offload(
        self, connection: Connection, number: int, request: Request, work: Offloaded
    ) -> None:
        if self._workers is None:
            self._workers = self.system.runtime.executor(self._driver.workers, "worker")
        connection.begin(number, request)
        self._workers.submit(self._work, connection, number, request, work)

    def _work(
        self,
        connection: Connection,
        number: int,
        request: Request,
        work: Offloaded,
    ) -> None:
        """In a worker thread."""
        answer: bytes | None = None
        if request.cancelled and not work.begun:
            answer = descriptors.pack_cancelled(connection.epoch, number)
        elif connection.is_open:
            try:
                result = self._guest.interruptible(work.run)()
                answer = descriptors.pack_result(connection.epoch, number, result)
            except BaseException as error:  # noqa: BLE001 - there is nobody else to tell
                # A back end that ends closes the channels of its driver: that is no answer.
                ours = isinstance(error, ChannelClosed) and hasattr(self, "exit_reason")
                if connection.wants_errors and not ours:
                    answer = descriptors.pack_error(connection.epoch, number, error)
        try:
            last = connection.end(number, answer)
        except RemoteProtocolError as error:
            broken = _Broken(*connection.front, connection.epoch, str(error))
            self.ref.tell(broken, control=True)
            return
        if last:
            self.ref.tell(_Idle(*connection.front), control=True)
