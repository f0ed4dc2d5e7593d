"""What Xen gives a guest: domains, grantable memory, event channels, and a bus to meet on."""

from hypervisor.bus import Bus, Notice
from hypervisor.channel_end import EventChannel, Upcalls, clear_event, new_event, raise_event
from hypervisor.domain_info import CrashReport, DomainChanged, DomainInfo, ShutdownReason
from hypervisor.domain_spec import DomainSpec
from hypervisor.endpoints import ReadEnd, WriteEnd, advertise_endpoint, connect_to_endpoint
from hypervisor.errors import (
    BadCpus,
    BadGrant,
    BadPort,
    DomainDead,
    DomainStartError,
    GrantInUse,
    GrantRevoked,
    HardeningFailed,
    HypercallError,
    HypervisorError,
    IllegalTransition,
    MachineFailed,
    NotAProcess,
    NotASocket,
    NotPermitted,
    NotPublished,
    QuotaExceeded,
    SocketInUse,
    StaleEpoch,
    StalePort,
    VirqBound,
    WatchClosed,
)
from hypervisor.event_channels import EventChannels
from hypervisor.grant_effects import GrantRef, GrantState, Rights
from hypervisor.grant_quota import GrantQuota, GrantUsage
from hypervisor.grants import Grants
from hypervisor.guest import Guest
from hypervisor.hardening import Hardening
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
from hypervisor.memory import Mapping, punch_hole
from hypervisor.port_effects import PortInfo, PortStatus, Virq
from hypervisor.program import load, name_of, run_script
from hypervisor.region import Region
from hypervisor.simulated_faults import DOMAIN_FAULTS
from hypervisor.socketfile import UnixListener
from hypervisor.store import Snapshot
from hypervisor.store_client import StoreClient, StoreOperations, StoreTransaction
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Seen
from hypervisor.store_quota import Quota as StoreQuota
from hypervisor.store_watch import Follower, StoreChanged, Watch, WatchEvent
from hypervisor.vitals import Usage
from hypervisor.xenbus import XenbusState

__all__ = [
    "DOMAIN_FAULTS",
    "BadCpus",
    "BadGrant",
    "BadPort",
    "Bus",
    "Compacted",
    "CrashReport",
    "DomainChanged",
    "DomainDead",
    "DomainInfo",
    "DomainSpec",
    "DomainStartError",
    "EventChannel",
    "EventChannels",
    "Follower",
    "GrantGone",
    "GrantInUse",
    "GrantQuota",
    "GrantRef",
    "GrantRevoked",
    "GrantState",
    "GrantUsage",
    "Grants",
    "Guest",
    "Hardening",
    "HardeningFailed",
    "HypercallError",
    "HypervisorError",
    "IllegalTransition",
    "LastMappingGone",
    "Machine",
    "MachineFailed",
    "Mapping",
    "MappingRevoked",
    "News",
    "NotAProcess",
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
    "Rights",
    "Seen",
    "ShutdownReason",
    "Snapshot",
    "SocketInUse",
    "StaleEpoch",
    "StalePort",
    "StillReachable",
    "StoreChanged",
    "StoreClient",
    "StoreError",
    "StoreOperations",
    "StoreQuota",
    "StoreTransaction",
    "Transferred",
    "UnixListener",
    "Upcalls",
    "Usage",
    "Virq",
    "VirqBound",
    "Watch",
    "WatchClosed",
    "WatchEvent",
    "WriteEnd",
    "XenbusState",
    "advertise_endpoint",
    "clear_event",
    "connect_to_endpoint",
    "load",
    "name_of",
    "new_event",
    "punch_hole",
    "raise_event",
    "run_script",
]
