"""The machine's end of a process domain's hypercall socket.

It never waits. What does not fit into the socket is refused (BlockingIOError: the domain does not
read), unless it is to be held: for a domain that is paused, which cannot read, or because a peer
can cause it as often as he likes (nobody shall be taken for hung for what others do). Then it is
kept here in order, up to ``MOST_HELD`` messages, together with all that is said after it, and
`flush` goes on with it when the socket is writable again. What is held already is not held twice:
events coalesce.

What is said to a dead domain is dropped: its pidfd tells of the death.
"""

from __future__ import annotations

import select
import socket
from collections import deque

from actors import Fd, Message
from hypervisor.frames import receive_frame, send_frame

MOST_HELD = 4096


class HypercallEnd:
    """Owns the socket."""

    def __init__(self, end: Fd) -> None:
        self._socket = socket.socket(fileno=end.take())
        self._socket.setblocking(False)
        self._held: deque[Message] = deque()

    def fileno(self) -> int:
        """To be watched."""
        return self._socket.fileno()

    def close(self) -> None:
        """What is held is dropped."""
        self._held.clear()
        self._socket.close()

    @property
    def holds(self) -> bool:
        """Whether there is something to `flush`."""
        return bool(self._held)

    @property
    def is_readable(self) -> bool:
        """Whether there is a frame, or the end of the connection."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def receive(self) -> Message | None:
        """See `receive_frame`."""
        return receive_frame(self._socket)

    def send(self, message: Message, *, hold: bool) -> None:
        """Say it, or ``hold`` it if it does not fit.

        Raises:
            BlockingIOError: it does not fit, and is not to be held; or too many are.
        """
        if not self._held:
            try:
                self._say(message)
            except BlockingIOError:
                if not hold:
                    raise
            else:
                return
        if message in self._held:
            return
        if len(self._held) >= MOST_HELD:
            raise BlockingIOError(f"{MOST_HELD} messages wait for it already")
        self._held.append(message)

    def flush(self) -> None:
        """Say of what is held as much as fits."""
        try:
            while self._held:
                self._say(self._held[0])
                self._held.popleft()
        except BlockingIOError:
            return

    def _say(self, message: Message) -> None:
        try:
            send_frame(self._socket, message)
        except (BrokenPipeError, ConnectionResetError):
            return
