"""Ten domains, each on top of the one before: if one fails, those above it are started again."""

from xenidc import Topology

topology = Topology("tower", intensity=20)
path = topology.option("path", "notes", "what the files of the stages begin with")
tower = topology.group("tower-of-ten", strategy="rest_for_one", intensity=10)
stages = [f"stage-{number}" for number in range(10)]
for number, name in enumerate(stages):
    below = stages[number - 1 : number] if number else []
    tower.domain(name, "examples.topologies.notes:Notes", f"{path}.{number}", needs=below)
    topology.channel(name, slots=8, buffer_bytes=1 << 16)
topology.workload("examples.topologies.work:through_all", *stages)
