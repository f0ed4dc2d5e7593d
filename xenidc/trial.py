"""The failure tests of a topology that nobody has to write: its own workload, while things go
wrong.

`simulate` runs it under many seeds, with the faults of simulated domains, and gives the first
failure, made small. `strike` runs it with real processes, and kills one of them again and again
while it works; what it kills and when is decided by its seed, but not what that interrupts.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

import actors
from actors import Failure, Faults, Options, System
from hypervisor import DOMAIN_FAULTS, HypervisorError
from xenidc.errors import FaceError
from xenidc.running import running
from xenidc.topology import Topology

ANY = "any"
"""Whatever there is may go wrong."""


def options_of(kill: str, rate: float, limit: int) -> Options:
    """Those of `simulate`: ``kill`` is `ANY`, or the name of a domain or a pattern of fnmatch."""
    targets = () if kill == ANY else (kill,)
    return Options(Faults(DOMAIN_FAULTS, rate=rate, limit=limit, targets=targets))


def simulate(
    make: Callable[[], Topology], seeds: Iterable[int], options: Options, target: str
) -> Failure | None:
    """Run the workload under each seed, up to the first failure.

    Args:
        make: gives the topology; called for each run, so that none sees what another has left.
        target: what the replay file calls it.
    """
    return actors.explore(_test(make), seeds, options, target=target)


def repeat(make: Callable[[], Topology], path: str) -> Failure | None:
    """Run what a file has recorded, once. Raises OSError, ValueError."""
    return actors.replay(path, _test(make))


def _test(make: Callable[[], Topology]) -> Callable[[System], None]:
    def test(system: System) -> None:
        with running(make(), system=system) as live:
            live.work()

    return test


def strike(topology: Topology, kill: str, seed: int, kills: int) -> int:
    """Run the workload in real processes, and kill one of the domains ``kills`` times meanwhile.

    Returns how many of them there was time for: each waits until the one before it has been
    restarted, and none comes after the workload's end. Raises what the workload does.
    """
    choose = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    names = [
        domain.name for domain in topology.domains if kill == ANY or fnmatchcase(domain.name, kill)
    ]
    ended = threading.Event()
    struck = 0

    with running(topology, "process") as live:

        def kill_some() -> None:
            nonlocal struck
            while struck < kills and not ended.is_set():
                try:
                    name = choose.choice(names)
                    live.machine.kill(name)  # waits for its restart, if it is just dead
                except HypervisorError:
                    return  # it has ended for good, which the workload will have seen
                struck += 1

        killer = threading.Thread(target=kill_some, name="killer")
        killer.start()
        try:
            live.work()
        finally:
            ended.set()
            killer.join()
    return struck


def check_kill(topology: Topology, kill: str) -> None:
    """Raises FaceError if ``kill`` means no domain."""
    names = [domain.name for domain in topology.domains]
    if kill != ANY and not any(fnmatchcase(name, kill) for name in names):
        raise FaceError(f"there is no domain {kill!r} to kill; there are {', '.join(names)}")
