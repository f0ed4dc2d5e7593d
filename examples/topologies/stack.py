"""A driver that stands on another: the base serves its readers, the overlay keeps what changes.

They are supervised together: what stands above starts anew with what it stands on.
"""

from xenidc import Topology

topology = Topology("stack")
path = topology.option("path", "notes.dat", "the file of the base; what changes is kept beside it")
stack = topology.group("storage", strategy="rest_for_one", intensity=5)
stack.domain("base", "examples.topologies.notes:Notes", path)
stack.domain("overlay", "examples.topologies.notes:Overlay", f"{path}.changes", path, needs="base")
topology.channel("overlay", buffer_bytes=1 << 16)
topology.workload("examples.topologies.work:write_and_read", "overlay")
