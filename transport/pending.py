"""The book of a channel's requests that have not ended, in the order of their submission.

Pure. It gives them their numbers, packs them, and settles them when the back end is lost; the front
end around it sends, waits and wakes. A request ends exactly once, by leaving the book.

Of the numbers of requests in flight no two have the same remainder by ``slots``, and no number
comes twice: that of a slot's next request is higher by ``slots``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from transport import descriptors
from transport.completion import Completion
from transport.descriptors import show
from transport.errors import OutcomeUnknown, RemoteProtocolError
from transport.journal import SEND, SETTLE, SLOT_LIMIT, Reached


class Pending:
    """Requests in flight, at most ``slots``, a power of two, at a time.

    Raises:
        ValueError: ``slots`` is none, or above `SLOT_LIMIT`.
    """

    def __init__(self, device: str, slots: int) -> None:
        if not 1 <= slots <= SLOT_LIMIT or slots & (slots - 1):
            text = f"a channel has a power of two of slots, at most {SLOT_LIMIT}, not {slots}"
            raise ValueError(text)
        self._device = device
        self._slots = slots
        self._free = [slot + slots for slot in range(slots - 1, -1, -1)]  # each one's next number
        self._pack = descriptors.packer()  # its owner calls from one thread at a time
        self._requests: dict[int, Completion] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Completion]:
        return iter(self._requests.values())

    @property
    def credits(self) -> int:
        """How many more there may be."""
        return len(self._free)

    def add(self, request: Completion, epoch: int) -> bytes | None:
        """Take it in; returns its record for that epoch. None: there is no slot for it.

        Raises:
            LocalProtocolError: it cannot be sent. It was not taken in.
        """
        if not self._free:
            return None
        number = self._free[-1]
        record = descriptors.pack_request(epoch, number, request.body, request.where, self._pack)
        self._free.pop()
        request.number = number
        self._requests[number] = request
        return record

    def records(self, epoch: int) -> list[bytes]:
        """All of them, for a new epoch, with the word that a request is of no use any more."""
        records = []
        for request in self:
            request.reached = Reached.SENT
            if request.stream is not None:
                request.stream.restart()
            number = request.number
            records.append(
                descriptors.pack_request(epoch, number, request.body, request.where, self._pack)
            )
            if request.cancelled:
                records.append(descriptors.pack_cancel(epoch, number))
        return records

    def find(self, number: object) -> Completion:
        """The request of that number.

        Raises:
            RemoteProtocolError: there is none.
        """
        request = self._requests.get(number) if type(number) is int else None
        if request is None:
            raise RemoteProtocolError(f"an answer to request {show(number)}")
        return request

    def end(self, request: Completion) -> None:
        """It has its result or its error."""
        number = request.number
        del self._requests[number]
        self._free.append(number + self._slots)

    def settle(self, begun: Callable[[int], bool]) -> list[Completion]:
        """The back end is lost; returns those that must not be sent again, with their errors.

        What had been sent stays so: until it is known that the back end does nothing any more, it
        may still begin others; then ask again.

        ``begun``: whether the request of that number may have been, and may not be done twice.
        """
        lost = []
        for request in self:
            reached = request.reached
            if reached is Reached.QUEUED:
                continue
            request.doubtful = True
            if begun(request.number):
                reached = Reached.BEGUN
            if SETTLE[request.on_loss, reached] != SEND:
                request.error = self.unknown()
                lost.append(request)
        return lost

    def unknown(self) -> OutcomeUnknown:
        """For a request that a back end was lost with."""
        return OutcomeUnknown(f"{self._device!r} was lost; the request may have been done")
