"""What Xen gives a guest: domains, grantable memory, event channels, and a bus to meet on."""

from hypervisor.bus import CLOSED, CONNECTED, GONE, INIT_WAIT, INITIALISED, Bus, Notice
from hypervisor.channel_end import EventChannel, Upcalls, clear_event, new_event, raise_event
from hypervisor.domain_info import CrashReport, DomainInfo, ShutdownReason
from hypervisor.errors import (
    BadCpus,
    BadGrant,
    BadPort,
    DomainDead,
    DomainStartError,
    GrantRevoked,
    HardeningFailed,
    HypercallError,
    HypervisorError,
    MachineFailed,
    NotAProcess,
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
from hypervisor.hardening import Hardening
from hypervisor.hypercalls import PeerState, PortBound, PortClosed
from hypervisor.machine import Machine
from hypervisor.memory import Mapping, Region, punch_hole
from hypervisor.port_effects import PortInfo, PortStatus, Virq
from hypervisor.socketfile import UnixListener
from hypervisor.vitals import Usage

__all__ = [
    "CLOSED",
    "CONNECTED",
    "GONE",
    "INITIALISED",
    "INIT_WAIT",
    "BadCpus",
    "BadGrant",
    "BadPort",
    "Bus",
    "CrashReport",
    "DomainDead",
    "DomainInfo",
    "DomainStartError",
    "EventChannel",
    "EventChannels",
    "GrantRevoked",
    "GrantTable",
    "Guest",
    "Hardening",
    "HardeningFailed",
    "HypercallError",
    "HypervisorError",
    "Machine",
    "MachineFailed",
    "Mapping",
    "NotAProcess",
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
    "ShutdownReason",
    "SocketInUse",
    "StaleEpoch",
    "StalePort",
    "UnixListener",
    "Upcalls",
    "Usage",
    "Virq",
    "VirqBound",
    "clear_event",
    "new_event",
    "punch_hole",
    "raise_event",
]
