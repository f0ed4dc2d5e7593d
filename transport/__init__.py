"""Channels between drivers and their users: what a driver author needs, and all of it.

A driver subclasses `BackEnd` and is started with `hypervisor.Machine.start`; whoever uses it holds
a `FrontEnd`, from `connect`. Requests and answers are msgpack values, bulk data is shared by
buffers.
"""

from transport.backend import BackEndActor
from transport.buffers import BufferPart, LocalBuffer, RemoteBuffer
from transport.completion import Completion
from transport.driver import BackEnd, Offloaded, Request
from transport.endpoint import connect
from transport.errors import (
    BuffersExhausted,
    Cancelled,
    ChannelClosed,
    ChannelFull,
    DeadlineExceeded,
    LocalProtocolError,
    OutcomeUnknown,
    RemoteError,
    RemoteProtocolError,
    TransportError,
    VersionMismatch,
)
from transport.filters import (
    STATISTICS,
    DelayFilter,
    ErrorFilter,
    Filter,
    LogFilter,
    StatisticsFilter,
    stack,
)
from transport.frontend import FrontEnd
from transport.journal import OnLoss
from transport.latency import Latency
from transport.observing import OUTCOMES, Observer, Phase, RequestRecord
from transport.pool import Pool
from transport.queues import Queues, connect_queues
from transport.remote_memory import LocalMemory
from transport.ring import Incoming, Outgoing, page_size, split_page
from transport.statistics import Statistics

__all__ = [
    "OUTCOMES",
    "STATISTICS",
    "BackEnd",
    "BackEndActor",
    "BufferPart",
    "BuffersExhausted",
    "Cancelled",
    "ChannelClosed",
    "ChannelFull",
    "Completion",
    "DeadlineExceeded",
    "DelayFilter",
    "ErrorFilter",
    "Filter",
    "FrontEnd",
    "Incoming",
    "Latency",
    "LocalBuffer",
    "LocalMemory",
    "LocalProtocolError",
    "LogFilter",
    "Observer",
    "Offloaded",
    "OnLoss",
    "OutcomeUnknown",
    "Outgoing",
    "Phase",
    "Pool",
    "Queues",
    "RemoteBuffer",
    "RemoteError",
    "RemoteProtocolError",
    "Request",
    "RequestRecord",
    "Statistics",
    "StatisticsFilter",
    "TransportError",
    "VersionMismatch",
    "connect",
    "connect_queues",
    "page_size",
    "split_page",
    "stack",
]
