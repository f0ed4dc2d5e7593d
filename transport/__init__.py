"""Channels between drivers and their users: what a driver author needs, and all of it.

A driver subclasses `BackEnd` and is started with `hypervisor.Machine.start`; whoever uses it holds
a `FrontEnd`, from `connect`. Requests and answers are msgpack values, bulk data is shared by
buffers.
"""

from transport.backend import BackEnd, BackEndActor, Offloaded, Request
from transport.buffers import LocalBuffer, RemoteBuffer
from transport.endpoint import connect
from transport.errors import (
    BuffersExhausted,
    ChannelClosed,
    ChannelFull,
    DeadlineExceeded,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
    TransportError,
)
from transport.frontend import Completion, FrontEnd, Statistics
from transport.pool import Pool
from transport.ring import Incoming, Outgoing, page_size

__all__ = [
    "BackEnd",
    "BackEndActor",
    "BuffersExhausted",
    "ChannelClosed",
    "ChannelFull",
    "Completion",
    "DeadlineExceeded",
    "FrontEnd",
    "Incoming",
    "LocalBuffer",
    "LocalProtocolError",
    "Offloaded",
    "Outgoing",
    "Pool",
    "RemoteBuffer",
    "RemoteError",
    "RemoteProtocolError",
    "Request",
    "Statistics",
    "TransportError",
    "connect",
    "page_size",
]
