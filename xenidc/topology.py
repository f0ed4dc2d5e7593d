"""A topology: which domains there are, how they are supervised, and who uses them.

    from xenidc import Topology

    topology = Topology("shared")
    topology.domain("disk", "examples.block.disk:Disk", "disk.img")
    topology.channel("left", to="disk")
    topology.workload("my_program:copy", "left")

It is only told here, and remembered with its place in the file: nothing is started, imported or
refused, but what Python itself refuses. Whether it makes sense is `check`'s to say (check.py), and
`running` (running.py) is what brings it to life, in any placement.

Corner case: a driver class that is defined in the topology's own file is found by the path of that
file, which each process that runs it then runs too. There the options have their defaults, so a
driver gets what depends on them by its start arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from hypervisor import DomainSpec, GrantQuota, Hardening, StoreQuota
from xenidc.place import Place, here

_T = TypeVar("_T", bool, int, float, str)


@dataclass(frozen=True)
class Domain:
    """A domain as it was declared. ``placement`` None: as the topology is run.

    Attributes:
        needs: domains that are started before it.
        uses: domains whose devices its driver uses, by channels of its own.
        group: the group that it belongs to, or None.
    """

    place: Place
    name: str
    program: type | str
    args: tuple[Any, ...]
    placement: str | None
    restart: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    cpus: tuple[int, ...] | None
    harden: Hardening | None
    group: str | None

    @property
    def before(self) -> tuple[str, ...]:
        """The domains that are started before it: what it needs, and what it uses."""
        return (*self.needs, *(name for name in self.uses if name not in self.needs))

    def spec(self, placement: str) -> DomainSpec:
        """What a machine has to know of it, if it is run in that placement."""
        return DomainSpec(
            self.name, self.program, self.args, placement, self.restart, self.cpus, self.harden
        )


@dataclass(frozen=True)
class Supervised:
    """A group as it was declared; see `hypervisor.Machine.group`."""

    place: Place
    name: str
    strategy: str
    intensity: int
    period: float


@dataclass(frozen=True)
class Channel:
    """A front end in the machine's own process, as it was declared."""

    place: Place
    name: str
    to: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Workload:
    """A function to be called with the front ends of these channels.

    Attributes:
        function: itself, or its name, "package.module:function".
    """

    place: Place
    function: Callable[..., object] | str
    channels: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is shown."""
        if isinstance(self.function, str):
            return self.function.rpartition(":")[2]
        return getattr(self.function, "__name__", type(self.function).__name__)


@dataclass(frozen=True)
class Option:
    """Something that ``--set`` can change."""

    place: Place
    name: str
    default: bool | int | float | str
    help: str


@dataclass
class Settings:
    """What somebody has set, and what is wrong with that; of the file that is just being run."""

    values: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[Place, str]] = field(default_factory=list)


_settings: ContextVar[Settings | None] = ContextVar("settings", default=None)


@contextmanager
def settings(values: Mapping[str, str]) -> Iterator[Settings]:
    """In this context topologies that are made have these values for their options."""
    given = Settings(dict(values))
    token = _settings.set(given)
    try:
        yield given
    finally:
        _settings.reset(token)


class Topology:
    """See the module's text.

    Args:
        name: of the machine.
        intensity, period, watchdog, grace, port_quota, grant_quota, store_quota: those of
            `hypervisor.Machine`.
    """

    def __init__(
        self,
        name: str,
        *,
        intensity: int = 10,
        period: float = 5.0,
        watchdog: float = 1.0,
        grace: float = 5.0,
        port_quota: int = 4096,
        grant_quota: GrantQuota | None = None,
        store_quota: StoreQuota | None = None,
    ) -> None:
        self.place = here()
        self.name = name
        self.machine: Final[dict[str, Any]] = {
            "intensity": intensity,
            "period": period,
            "watchdog": watchdog,
            "grace": grace,
            "port_quota": port_quota,
            "grant_quota": grant_quota,
            "store_quota": store_quota,
        }
        self.domains: list[Domain] = []
        self.groups: list[Supervised] = []
        self.channels: list[Channel] = []
        self.workloads: list[Workload] = []
        self.options: list[Option] = []
        self._settings = _settings.get() or Settings()

    def option(self, name: str, default: _T, help: str = "") -> _T:  # noqa: A002 - as click has it
        """Something that may be set when it is run; returns what it is now.

        Args:
            default: also says of which type it is: bool, int, float or str.
        """
        self.options.append(Option(here(), name, default, help))
        text = self._settings.values.pop(name, None)
        if text is None:
            return default
        try:
            return _READ[type(default)](text)  # type: ignore[no-any-return]
        except (KeyError, ValueError):
            said = f"option {name!r} is of type {type(default).__name__}, and {text!r} is not"
            self._settings.problems.append((here(), said))
            return default

    def domain(
        self,
        name: str,
        program: type | str,
        *args: Any,
        placement: str | None = None,
        restart: str = "permanent",
        needs: Iterable[str] | str = (),
        uses: Iterable[str] | str = (),
        cpus: Iterable[int] | None = None,
        harden: Hardening | None = None,
    ) -> None:
        """A domain that runs ``program`` and serves the device ``name``; see `Machine.start`.

        Args:
            placement: "process" or "thread", whatever the topology is run in; None: as that says.
            needs: the name of a domain that has to be started before this one, or of several.
            uses: the name of a domain whose device the driver uses (`BackEnd.connect`), or of
                several. Those are started before it, too.
        """
        self._domain(None, name, program, args, placement, restart, needs, uses, cpus, harden)

    def group(
        self,
        name: str,
        *,
        strategy: str = "rest_for_one",
        intensity: int = 1,
        period: float = 5.0,
    ) -> Group:
        """Domains that are supervised together, in the order in which its `Group.domain` is called.

        See `hypervisor.Machine.group` for the arguments.
        """
        self.groups.append(Supervised(here(), name, strategy, intensity, period))
        return Group(self, name)

    def channel(self, name: str, *, to: str | None = None, **options: Any) -> None:
        """A front end in the machine's own process.

        Args:
            name: by which `workload` knows it.
            to: the domain that serves it; the one of its own name unless given.
            options: those of `transport.connect`.
        """
        self.channels.append(Channel(here(), name, name if to is None else to, options))

    def workload(self, function: Callable[..., object] | str, *channels: str) -> None:
        """What is done with the channels: ``function`` is called with their front ends, in this
        order, when everything has started. Several run at the same time.

        It raises what is wrong. Run under the simulation it must wait for nothing but its channels.
        """
        self.workloads.append(Workload(here(), function, channels))

    def _domain(
        self,
        group: str | None,
        name: str,
        program: type | str,
        args: tuple[Any, ...],
        placement: str | None,
        restart: str,
        needs: Iterable[str] | str,
        uses: Iterable[str] | str,
        cpus: Iterable[int] | None,
        harden: Hardening | None,
    ) -> None:
        self.domains.append(
            Domain(
                here(),
                name,
                program,
                args,
                placement,
                restart,
                (needs,) if isinstance(needs, str) else tuple(needs),
                (uses,) if isinstance(uses, str) else tuple(uses),
                None if cpus is None else tuple(cpus),
                harden,
                group,
            )
        )


class Group:
    """What `Topology.group` gives: a place to declare its members."""

    def __init__(self, topology: Topology, name: str) -> None:
        self._topology = topology
        self.name = name

    def domain(
        self,
        name: str,
        program: type | str,
        *args: Any,
        placement: str | None = None,
        restart: str = "permanent",
        needs: Iterable[str] | str = (),
        uses: Iterable[str] | str = (),
        cpus: Iterable[int] | None = None,
        harden: Hardening | None = None,
    ) -> None:
        """See `Topology.domain`."""
        self._topology._domain(  # noqa: SLF001 - its own half
            self.name, name, program, args, placement, restart, needs, uses, cpus, harden
        )


def _truth(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        text.lower()
    ]


_READ: dict[type, Callable[[str], Any]] = {bool: _truth, int: int, float: float, str: str}
