"""One driver, and one who uses it. Kill it (``xenidc kill notes``), and nobody notices."""

from xenidc import Topology

topology = Topology("first")
path = topology.option("path", "notes.dat", "the file that the notes are kept in")
topology.domain("notes", "examples.topologies.notes:Notes", path)
topology.channel("notes", buffer_bytes=1 << 16)
topology.workload("examples.topologies.work:write_and_read", "notes")
