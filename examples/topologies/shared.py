"""Two users of one back end, at the same time, each with a channel of its own."""

from xenidc import Topology

topology = Topology("shared")
path = topology.option("path", "notes.dat", "the file that the notes are kept in")
topology.domain("notes", "examples.topologies.notes:Notes", path)
for side in ("left", "right"):
    topology.channel(side, to="notes", buffer_bytes=1 << 16)
    topology.workload(f"examples.topologies.work:{side}", side)
