"""What can go wrong on a channel. ``Local...``: our own side's fault; ``Remote...``: the peer's."""

from __future__ import annotations


class TransportError(Exception):
    """Base of every error that this package raises."""


class LocalProtocolError(TransportError):
    """The caller asked for what the channel cannot carry. Nothing was sent."""


class RemoteProtocolError(TransportError):
    """The peer wrote what no correct peer writes; the connection to it is given up."""


class RemoteError(TransportError):
    """The driver answered the request with an error. The request has ended.

    Attributes:
        error: type name of the driver's exception.
        text: its message.
        errno: errno of an OSError, else None.
        traceback: the driver's traceback text, possibly cut short.
    """

    def __init__(
        self, error: str, text: str, errno: int | None = None, traceback: str = ""
    ) -> None:
        super().__init__(f"{error}: {text}")
        self.error = error
        self.text = text
        self.errno = errno
        self.traceback = traceback


class OutcomeUnknown(TransportError):
    """The back end was lost with the request, which may have been done, or in part, or not at all.

    It was not sent again: its operation is not declared to be idempotent, or the caller forbade it,
    or has cancelled it.
    """


class Cancelled(TransportError):
    """The request was cancelled before the driver began it: nothing of it was done."""


class ChannelClosed(TransportError):
    """The channel has ended for good; whether the work of an open request was done is not known."""


class VersionMismatch(ChannelClosed):
    """The back end speaks another version than the front end was told to ask for."""


class ChannelFull(TransportError):
    """Every slot of the channel is taken. Nothing was sent; reap, then try again."""


class BuffersExhausted(TransportError):
    """No free stretch of the channel's buffer memory is long enough just now."""


class DeadlineExceeded(TransportError, TimeoutError):
    """The caller's deadline passed. The request goes on, and its answer will be dropped."""
