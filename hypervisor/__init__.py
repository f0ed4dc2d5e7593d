"""What Xen gives a guest: domains, grantable memory, event channels, and a bus to meet on."""

from hypervisor.bus import Bus, Notice
from hypervisor.channel_end import EventChannel, Upcalls, clear_event, new_event, raise_event
from hypervisor.endpoints import ReadEnd, WriteEnd, advertise_endpoint, connect_to_endpoint
from hypervisor.errors import (
    BadGrant,
    BadPort,
    DomainDead,
    DomainStartError,
    GrantRevoked,
    HypercallError,
    HypervisorError,
    IllegalTransition,
    MachineFailed,
    NotASocket,
    NotPermitted,
    NotPublished,
    QuotaExceeded,
    SocketInUse,
    StaleEpoch,
    StalePort,
    VirqBound,
)
from hypervisor.event_channels import EventChannels
from hypervisor.grant_table import GrantTable
from hypervisor.guest import Guest
from hypervisor.hypercalls import PeerState, PortBound, PortClosed
from hypervisor.machine import Machine
from hypervisor.memory import Mapping, Region, punch_hole
from hypervisor.port_effects import PortInfo, PortStatus, Virq
from hypervisor.socketfile import UnixListener
from hypervisor.xenbus import XenbusState

__all__ = [
    "BadGrant",
    "BadPort",
    "Bus",
    "DomainDead",
    "DomainStartError",
    "EventChannel",
    "EventChannels",
    "GrantRevoked",
    "GrantTable",
    "Guest",
    "HypercallError",
    "HypervisorError",
    "IllegalTransition",
    "Machine",
    "MachineFailed",
    "Mapping",
    "NotASocket",
    "NotPermitted",
    "NotPublished",
    "Notice",
    "PeerState",
    "PortBound",
    "PortClosed",
    "PortInfo",
    "PortStatus",
    "QuotaExceeded",
    "ReadEnd",
    "Region",
    "SocketInUse",
    "StaleEpoch",
    "StalePort",
    "UnixListener",
    "Upcalls",
    "Virq",
    "VirqBound",
    "WriteEnd",
    "XenbusState",
    "advertise_endpoint",
    "clear_event",
    "connect_to_endpoint",
    "new_event",
    "punch_hole",
    "raise_event",
]
