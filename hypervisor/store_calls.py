"""The words between a domain and the store, beside those of the hypervisor (hypercalls.py).

A domain says `StoreRequest` (the XenStore wire protocol, as on the socket) or one of the words of
the lossless face, which that protocol does not have. None says who is speaking: the domain's own
actor, or whoever made its client, puts them into a `StoreCall` with the connection that was opened
for the domain. Refusals are `StoreRefused`, or `hypercalls.Refused` if the connection has ended.

What may be long comes in parts, so that an answer always fits into a frame: `Changes` and `Nodes`
with ``more`` are to be asked for again. Events come to a process as `StoreEvents`, a few at a time,
and the next only after `StoreTaken` (see store_door.py).
"""

from __future__ import annotations

from actors import Message, Ref

PART_BYTES = 32 << 10
"""Of paths and values in one answer, unless a single one is longer."""

# --- of a domain ----------------------------------------------------------------------------------


class StoreRequest(Message):
    """One message of the XenStore wire protocol. Answered by the bytes of the reply."""

    packet: bytes


class Follow(Message):
    """From now on wake this connection by ``token`` for what changes at and below ``path``.

    Answered by the present revision.
    """

    path: str
    token: bytes


class Unfollow(Message):
    """No more."""

    token: bytes


class Since(Message):
    """What has changed at and below ``path`` after ``revision``?

    Answered by `Changes`; by `Nodes` if the log does not reach back so far.
    """

    path: str
    revision: int


class TakeSnapshot(Message):
    """Answered by `Nodes`: what may be read at and below ``path``. It ends the one before."""

    path: str


class MoreNodes(Message):
    """The next part of the snapshot that this connection was given last. Answered by `Nodes`."""


STORE_CALLS = (StoreRequest, Follow, Unfollow, Since, TakeSnapshot, MoreNodes)


class StoreTaken(Message):
    """A frame of a process: it has taken the last `StoreEvents`."""


# --- to a domain ----------------------------------------------------------------------------------


class Changes(Message):
    """In order: (revision, path, old, new, domid), see store_log.Seen.

    ``revision``: go on from here. ``more``: there is more already.
    """

    revision: int
    changes: list[tuple[int, str, bytes | None, bytes | None, int]]
    more: bool


class Nodes(Message):
    """(path, value) of nodes, a parent before its children, as they were at ``revision``."""

    revision: int
    nodes: list[tuple[str, bytes]]
    more: bool


class StoreRefused(Message):
    """See store_errors.StoreError."""

    errno: str
    text: str


class StoreEvents(Message):
    """A frame to a process: (path, token) of each, as in `StoreEvent`."""

    events: list[tuple[str, bytes]]


# --- between those who serve the store ------------------------------------------------------------


class OpenStore(Message):
    """A connection of domain ``domid``, whose events go to ``door``. Answered by its number.

    It ends with ``owner``; None: with the door.
    """

    domid: int
    door: Ref
    owner: Ref | None = None


class CloseStore(Message):
    """That connection is over, with its watches and transactions."""

    connection: int


class StoreCall(Message):
    """``call`` over that connection; only who has opened it for a domain sends this."""

    connection: int
    call: Message


class StoreEvent(Message):
    """To a door: a watch of that connection has fired.

    Without a path: something that the connection follows in the log has changed.
    """

    connection: int
    path: str
    token: bytes
