"""Topologies of domains, drivers and channels: composed in a few lines, checked before they start,
and run in any placement. The command ``xenidc`` (cli.py) is the same for a shell.
"""

from xenidc.check import PLACEMENTS, check
from xenidc.errors import (
    ControlError,
    FaceError,
    MachineEnded,
    Problem,
    TopologyError,
    WorkloadFailed,
)
from xenidc.extras import metrics, record_spans, serve_metrics
from xenidc.load import load_topology
from xenidc.picture import dot, mermaid
from xenidc.place import Place
from xenidc.running import Running, running
from xenidc.svg import svg
from xenidc.topology import Group, Topology

__all__ = [
    "PLACEMENTS",
    "ControlError",
    "FaceError",
    "Group",
    "MachineEnded",
    "Place",
    "Problem",
    "Running",
    "Topology",
    "TopologyError",
    "WorkloadFailed",
    "check",
    "dot",
    "load_topology",
    "mermaid",
    "metrics",
    "record_spans",
    "running",
    "serve_metrics",
    "svg",
]
