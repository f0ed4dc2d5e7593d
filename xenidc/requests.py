"""What may be asked of a running topology, as a table: name -> what gives the answer.

Each takes the running topology and the request's other fields, and returns what JSON has. What it
raises is the refusal that the asker gets (control.py). Anyone who may open the control socket may
do all of it: it is its owner's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors import Ref, picture
from hypervisor import DomainInfo
from xenidc.errors import ControlError
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
    rows.append(_row(topology.name, "machine", 0, None))
    grouped: set[str] = set()
    for domain in topology.domains:
        if domain.group is not None and domain.group not in grouped:
            grouped.add(domain.group)
            rows.append(_row(domain.group, "group", 1, None))
            members = [each.name for each in topology.domains if each.group == domain.group]
            rows += [_row(name, "domain", 2, known.get(name)) for name in members]
        elif domain.group is None:
            rows.append(_row(domain.name, "domain", 1, known.get(domain.name)))
    return rows


def _row(name: str, kind: str, depth: int, info: DomainInfo | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "kind": kind, "depth": depth}
    if kind == "domain":
        usage = None if info is None else info.usage
        row |= {
            "state": "ended" if info is None else info.state,
            "restarts": None if info is None else info.restarts,
            "placement": None if info is None else info.placement,
            "domid": None if info is None else info.domid,
            "pid": None if info is None else info.pid,
            "rss": None if usage is None else usage.rss,
            "cpu_seconds": None if usage is None else usage.cpu_seconds,
        }
    return row


def _top(running: Running) -> dict[str, Any]:
    """Counters of each channel, and the machine's clock, so that who asks twice has rates."""
    restarts = {info.name: info.restarts for info in running.machine.domains()}
    rows = []
    for channel in running.topology.channels:
        of = running.channels[channel.name].statistics()
        rows.append(
            {
                "channel": channel.name,
                "to": channel.to,
                "requests": of.requests,
                "in_flight": of.in_flight,
                "resent": of.resent,
                "unknown": of.unknown,
                "epochs": of.epochs,
                "free_bytes": of.free_bytes,
                "restarts": restarts.get(channel.to),
            }
        )
    return {"now": running.machine.system.now(), "channels": rows}


def _do(method: str) -> Callable[..., None]:
    def act(running: Running, domain: str) -> None:
        getattr(running.machine, method)(domain)

    return act


def _store_read(running: Running, path: str) -> str:
    return running.machine.store.read(path).decode("utf-8", "backslashreplace")


REQUESTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "tree": (_tree, ()),
    "actors": (lambda running: picture(running.machine.system), ()),
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
