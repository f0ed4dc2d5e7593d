"""What Xen gives a guest: domains, grantable memory, event channels, and a bus to meet on."""

from hypervisor.bus import CLOSED, CONNECTED, GONE, INIT_WAIT, INITIALISED, Bus, Notice
from hypervisor.channel_end import EventChannel, Upcalls, clear_event, new_event, raise_event
from hypervisor.errors import (
    BadGrant,
    BadPort,
    DomainDead,
    DomainStartError,
    GrantRevoked,
    HypercallError,
    HypervisorError,
    MachineFailed,
    NotASocket,
    NotPermitted,
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
from hypervisor.simulated_faults import DOMAIN_FAULTS
from hypervisor.socketfile import UnixListener

__all__ = [
    "CLOSED",
    "CONNECTED",
    "DOMAIN_FAULTS",
    "GONE",
    "INITIALISED",
    "INIT_WAIT",
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
    "Machine",
    "MachineFailed",
    "Mapping",
    "NotASocket",
    "NotPermitted",
    "Notice",
    "PeerState",
    "PortBound",
    "PortClosed",
    "PortInfo",
    "PortStatus",
    "QuotaExceeded",
    "Region",
    "SocketInUse",
    "StaleEpoch",
    "StalePort",
    "UnixListener",
    "Upcalls",
    "Virq",
    "VirqBound",
    "clear_event",
    "new_event",
    "punch_hole",
    "raise_event",
]
