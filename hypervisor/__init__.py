"""What Xen gives a guest: domains, grantable memory, event channels, and a bus to meet on."""

from hypervisor.bus import Bus, Notice
from hypervisor.channel_end import EventChannel, Upcalls, clear_event, new_event, raise_event
from hypervisor.errors import (
    BadGrant,
    BadPort,
    DomainDead,
    DomainStartError,
    GrantInUse,
    GrantRevoked,
    HypercallError,
    HypervisorError,
    IllegalTransition,
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
from hypervisor.grant_effects import GrantRef, GrantState, Rights
from hypervisor.grant_quota import GrantQuota, GrantUsage
from hypervisor.grants import Grants
from hypervisor.guest import Guest
from hypervisor.hypercalls import (
    GrantGone,
    LastMappingGone,
    MappingRevoked,
    News,
    PeerState,
    PortBound,
    PortClosed,
    StillReachable,
    Transferred,
)
from hypervisor.machine import Machine
from hypervisor.memory import Mapping, Region, punch_hole
from hypervisor.port_effects import PortInfo, PortStatus, Virq
from hypervisor.simulated_faults import DOMAIN_FAULTS
from hypervisor.socketfile import UnixListener
from hypervisor.xenbus import XenbusState

__all__ = [
    "DOMAIN_FAULTS",
    "BadGrant",
    "BadPort",
    "Bus",
    "DomainDead",
    "DomainStartError",
    "EventChannel",
    "EventChannels",
    "GrantGone",
    "GrantInUse",
    "GrantQuota",
    "GrantRef",
    "GrantRevoked",
    "GrantState",
    "GrantUsage",
    "Grants",
    "Guest",
    "HypercallError",
    "HypervisorError",
    "IllegalTransition",
    "LastMappingGone",
    "Machine",
    "MachineFailed",
    "Mapping",
    "MappingRevoked",
    "News",
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
    "Rights",
    "SocketInUse",
    "StaleEpoch",
    "StalePort",
    "StillReachable",
    "Transferred",
    "UnixListener",
    "Upcalls",
    "Virq",
    "VirqBound",
    "XenbusState",
    "clear_event",
    "new_event",
    "punch_hole",
    "raise_event",
]
