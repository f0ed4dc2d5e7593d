"""What may be asked of a running topology, as a table: name -> what gives the answer.

Each takes the running topology and the request's other fields, and returns what JSON has. What it
raises is the refusal that the asker gets (control.py). Anyone who may open the control socket may
do all of it: it is its owner's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from actors import Ref, actor_rows, picture
from hypervisor import DomainInfo
from transport import FrontEnd
from xenidc.errors import ControlError
from xenidc.front_ends import FrontEndNode, front_ends
from xenidc.running import Running
from xenidc.streams import STREAMS, Source


def answer(running: Running, request: Any) -> Any:
    """The answer to one request, ``{"do": NAME, ...}``.

    Raises:
        ControlError: there is no such request, or it has other fields.
        HypervisorError, StoreError: the machine has refused it.
    """
    function, fields = _found(request, REQUESTS)
    return function(running, **fields)


def stream(running: Running, request: Any, wake: Ref) -> Source | None:
    """What a request begins that is answered again and again; None: it is none of those.

    ``wake``: the actor that is told when there is something to take.

    Raises:
        As `answer`.
    """
    if not isinstance(request, dict) or request.get("do") not in STREAMS:
        return None
    function, fields = _found(request, STREAMS)
    made: Source = function(running, wake, **fields)
    return made


def _found(
    request: Any, table: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]]
) -> tuple[Callable[..., Any], dict[str, str]]:
    """What a table has for a request, and the request's own fields."""
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise ControlError('a request is an object with "do"')
    name = request["do"]
    fields = {field: value for field, value in request.items() if field != "do"}
    if name not in table:
        known = ", ".join(sorted({**REQUESTS, **STREAMS}))
        raise ControlError(f"there is no request {name!r:.80}; there are {known}")
    function, needed = table[name]
    if set(fields) != set(needed) or not all(isinstance(fields[each], str) for each in needed):
        raise ControlError(f"request {name!r} has the fields {', '.join(needed) or 'do'} (texts)")
    return function, fields


def _tree(running: Running) -> list[dict[str, Any]]:
    """The supervision tree, depth first: the machine, then groups and domains as declared."""
    topology, rows = running.topology, []
    known = {info.name: info for info in running.machine.domains()}
    fronts = front_ends(running.machine)

    def row(name: str, depth: int) -> dict[str, Any]:
        return _domain_row(name, depth, known.get(name), fronts)

    own = [_use(front) for front in fronts if front.domid == 0]
    rows.append({"name": topology.name, "kind": "machine", "depth": 0, "uses": own})
    grouped: set[str] = set()
    for domain in topology.domains:
        if domain.group is not None and domain.group not in grouped:
            grouped.add(domain.group)
            rows.append({"name": domain.group, "kind": "group", "depth": 1})
            members = [each.name for each in topology.domains if each.group == domain.group]
            rows += [row(name, 2) for name in members]
        elif domain.group is None:
            rows.append(row(domain.name, 1))
    return rows


def _domain_row(
    name: str, depth: int, info: DomainInfo | None, fronts: Iterable[FrontEndNode]
) -> dict[str, Any]:
    usage = None if info is None else info.usage
    return {
        "name": name,
        "kind": "domain",
        "depth": depth,
        "state": "ended" if info is None else info.state,
        "restarts": None if info is None else info.restarts,
        "placement": None if info is None else info.placement,
        "domid": None if info is None else info.domid,
        "pid": None if info is None else info.pid,
        "rss": None if usage is None else usage.rss,
        "cpu_seconds": None if usage is None else usage.cpu_seconds,
        "uses": [_use(each) for each in fronts if info is not None and each.domid == info.domid],
        "used_by": sorted(each.domid for each in fronts if each.device == name),
    }


def _use(front: FrontEndNode) -> dict[str, Any]:
    return {"device": front.device, "state": front.state, "epoch": front.epoch}


def _actors(running: Running) -> list[dict[str, Any]]:
    """Every actor, a parent before its children."""
    return [
        {"depth": depth, **asdict(of), "description": words}
        for depth, of, words in actor_rows(running.machine.system)
    ]


def _top(running: Running) -> dict[str, Any]:
    """Counters of each channel, and the machine's clock, so that who asks twice has rates."""
    machine, topology = running.machine, running.topology
    known = {info.name: info for info in machine.domains()}
    rows = [
        _channel_row(channel.name, topology.name, channel.to, known)
        | _figures(running.channels[channel.name])
        for channel in topology.channels
    ]
    for front in front_ends(machine):
        owner = next((info.name for info in known.values() if info.domid == front.domid), None)
        if owner is not None:
            name = f"{owner}-{front.device}-{front.number}"
            rows.append(
                _channel_row(name, owner, front.device, known)
                | {"state": front.state, "epoch": front.epoch, "slots": front.slots}
            )
    there = {(row["from"], row["to"]) for row in rows}
    for domain in topology.domains:
        rows += [
            _channel_row(f"{domain.name}-{other}", domain.name, other, known)
            for other in domain.uses
            if (domain.name, other) not in there
        ]
    return {"now": machine.system.now(), "channels": rows}


def _channel_row(name: str, owner: str, to: str, known: Mapping[str, DomainInfo]) -> dict[str, Any]:
    """What there is of any channel: figures are null unless its front end is the machine's own."""
    info = known.get(to)
    return {
        "channel": name,
        "from": owner,
        "to": to,
        "domain_state": "ended" if info is None else info.state,
        "restarts": None if info is None else info.restarts,
        **dict.fromkeys(FIGURES),
    }


def _figures(channel: FrontEnd) -> dict[str, Any]:
    of = channel.statistics()
    return {
        "state": "Closed" if channel.failure is not None else "Open",
        "epoch": None,
        "slots": channel.slots,
        "credits": channel.credits,
        "requests": of.requests,
        "bytes": of.bytes,
        "in_flight": of.in_flight,
        "resent": of.resent,
        "unknown": of.unknown,
        "faults": of.faults,
        "epochs": of.epochs,
        "free_bytes": of.free_bytes,
        "latency": list(of.latency.counts.items()),
        "latency_seconds": of.latency.seconds,
    }


def _do(method: str) -> Callable[..., None]:
    def act(running: Running, domain: str) -> None:
        getattr(running.machine, method)(domain)

    return act


def _store_read(running: Running, path: str) -> str:
    return running.machine.store.read(path).decode("utf-8", "backslashreplace")


FIGURES = (
    "state",
    "epoch",
    "slots",
    "credits",
    "requests",
    "bytes",
    "in_flight",
    "resent",
    "unknown",
    "faults",
    "epochs",
    "free_bytes",
    "latency",
    "latency_seconds",
)
"""Of a channel; "latency" is pairs of a bucket's upper bound in seconds and its count."""

REQUESTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "tree": (_tree, ()),
    "actors": (lambda running: picture(running.machine.system), ()),
    "actor-rows": (_actors, ()),
    "top": (_top, ()),
    "kill": (_do("kill"), ("domain",)),
    "pause": (_do("pause"), ("domain",)),
    "unpause": (_do("unpause"), ("domain",)),
    "restart": (_do("reboot"), ("domain",)),
    "log": (lambda running, domain: running.machine.log(domain), ("domain",)),
    "store-ls": (lambda running, path: running.machine.store.directory(path), ("path",)),
    "store-read": (_store_read, ("path",)),
}
"""Name -> (what gives the answer, the names of its fields)."""
