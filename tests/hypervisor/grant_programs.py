"""A domain that does with memory and grants what it is asked to: here, in a thread, in a process.

`Hands` does it, for domain 0 as well as for a driver; so every test can have any domain on either
side. What a domain is told is kept until a test asks for it.
"""

from __future__ import annotations

import mmap
import resource
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from actors import Actor, Message
from hypervisor import (
    GrantGone,
    GrantRef,
    Guest,
    HypervisorError,
    LastMappingGone,
    Machine,
    Mapping,
    MappingRevoked,
    Region,
    StillReachable,
    Transferred,
)
from tests.hypervisor.hostile_hypercalls import HOSTILE, Facts
from transport import BackEnd, BackEndActor, FrontEnd, RemoteError, Request, connect

PATIENCE = 20.0


class Hands:
    """One guest, its regions (by small numbers), its mappings (by handle), and what it hears."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.regions: list[Region] = []
        self.mappings: dict[int, Mapping] = {}
        self.kept: dict[int, list[Any]] = {}
        self.told: SimpleQueue[list[Any]] = SimpleQueue()
        self.given: dict[int, Transferred] = {}

    def close(self) -> None:
        self.kept.clear()
        self.given.clear()
        for mapping in self.mappings.values():
            mapping.close()
        for region in self.regions:
            region.close()

    def hear(self, news: Message) -> None:
        match news:
            case LastMappingGone(gref):
                self.told.put(["last", gref])
            case GrantGone(gref):
                self.told.put(["gone", gref])
            case MappingRevoked(granter, gref, handles):
                self.told.put(["revoked", gref, granter, handles])
            case StillReachable(memory, offset, length, holder):
                self.told.put(["still", holder, memory, offset, length])
            case Transferred():
                self.given[news.gref] = news
                self.told.put(["transferred", news.gref, news.size, news.giver])

    def new(self, region: Region) -> int:
        self.regions.append(region)
        return len(self.regions) - 1

    def side(self, side: list[Any]) -> tuple[Region, int] | GrantRef:
        if side[0] == "own":
            return self.regions[side[1]], side[2]
        return GrantRef(*side[1:])

    def map_without_room(self, granter: int, gref: int) -> None:
        """Map while this process may have only 16 MiB more of addresses than it has."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + (16 << 20), hard))
        try:
            self.guest.map_grant_ref(granter, gref)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def do(self, body: Any) -> Any:
        guest, regions, mappings = self.guest, self.regions, self.mappings
        match body:
            case ["domid"]:
                return guest.domid
            case ["make", size, readonly]:
                return self.new(Region(size, readonly_to_peers=readonly))
            case ["put", number, offset, data]:
                regions[number].view[offset : offset + len(data)] = data
            case ["fill", number, offset, data, times]:
                regions[number].view[offset : offset + len(data) * times] = data * times
            case ["get", number, offset, length]:
                return bytes(regions[number].view[offset : offset + length])
            case ["grant", number, to, offset, length, rights]:
                return guest.grant_access(to, regions[number], offset, length, **rights)
            case ["regrant", to, granter, gref, offset, length, rights]:
                return guest.grant_transitive(to, granter, gref, offset, length, **rights)
            case ["end", gref]:
                guest.end_access(gref)
            case ["revoke", gref]:
                guest.revoke(gref)
            case ["revoke pages", number, offset, length]:
                guest.revoke_pages(regions[number], offset, length)
            case ["release", number]:
                guest.release(regions[number])
            case ["close", number]:
                regions[number].close()
            case ["query", gref]:
                state = guest.query_grant(gref)
                return [state.grantee, state.offset, state.length, state.mapped_by]
            case ["memory of", gref]:
                return guest.query_grant(gref).memory
            case ["locate", memory, offset]:
                region, at = guest.locate(memory, offset)
                return [regions.index(region), at]
            case ["map", granter, gref, readonly]:
                mapping = guest.map_grant_ref(granter, gref, readonly=readonly)
                mappings[mapping.handle] = mapping
                return mapping.handle
            case ["map without room", granter, gref]:
                return self.map_without_room(granter, gref)
            case ["unmap", handle]:
                guest.unmap_grant_ref(mappings[handle])
            case ["poke", handle, offset, data]:
                mappings[handle].view[offset : offset + len(data)] = data
            case ["peek", handle, offset, length]:
                return bytes(mappings[handle].view[offset : offset + length])
            case ["keep", handle]:
                self.kept[handle] = kept(mappings[handle].view)
            case ["kept", handle, offset, length]:
                array, part = self.kept[handle]
                assert bytes(array[1:]) == bytes(part)
                return bytes(array[offset : offset + length])
            case ["scribble", handle, offset, data]:
                array, part = self.kept[handle]
                array[offset : offset + len(data)] = list(data)
                part[offset - 1 : offset - 1 + len(data)] = data
            case ["copy", source, dest, length]:
                guest.grant_copy(self.side(source), self.side(dest), length)
            case ["accept", giver, size]:
                return guest.accept_transfer(giver, size)
            case ["transfer", number, to, gref]:
                guest.transfer(regions[number], to, gref)
            case ["adopt", gref]:
                return self.new(guest.adopt(self.given.pop(gref)))
            case ["usage", of]:
                usage = guest.memory_usage(of)
                return list(astuple(usage))
            case ["hostile", name, *facts]:
                return HOSTILE[name](guest, Facts(*facts))
            case _:
                raise ValueError(body)
        return None


def kept(view: memoryview) -> list[Any]:
    """An array and a slice, which both go on exporting the view."""
    import numpy as np  # here, since it takes longer than all else that a process does to start

    return [np.frombuffer(view, dtype=np.uint8), view[1:]]


class Obedient(BackEnd):
    """Every request is a call; its answer is what the call returned."""

    runner = "tests.hypervisor.grant_programs:ObedientActor"
    hands: Hands

    def on_stop(self) -> None:
        self.hands.close()

    def on_request(self, request: Request) -> Any:
        if request.body[0] == "told":
            return self.offload(self.hands.told.get, True, PATIENCE)
        return self.hands.do(request.body)


class ObedientActor(BackEndActor):
    """Gives the driver its guest, and what is said of its grants."""

    def __init__(self, guest: Guest, program: type[Obedient], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        driver = self._driver
        assert isinstance(driver, Obedient)
        driver.hands = self._hands = Hands(guest)

    def on_receive(self, message: Message) -> None:
        self._hands.hear(message)
        super().on_receive(message)


class Ear(Actor):
    """The same for domain 0."""

    def __init__(self, hands: Hands) -> None:
        super().__init__()
        self._hands = hands

    def on_receive(self, message: Message) -> None:
        self._hands.hear(message)


class Domain:
    """One of the domains of a test, wherever it is."""

    def __init__(self, hands: Hands | None, front: FrontEnd | None) -> None:
        self._hands = hands
        self._front = front
        self.domid: int = self("domid")

    def __call__(self, *body: Any) -> Any:
        """Let it do that.

        Raises:
            HypervisorError, RemoteError: it was refused.
        """
        if self._hands is not None:
            return self._hands.do(list(body))
        assert self._front is not None
        return self._front.call(list(body), timeout=PATIENCE)

    def refused(self, *body: Any) -> str:
        """Let it do what cannot be done; the name of the error."""
        try:
            done = self(*body)
        except RemoteError as error:
            return error.error
        except (HypervisorError, ValueError, TypeError, KeyError) as error:
            return type(error).__name__
        raise AssertionError(f"{body} was done: {done}")

    def told(self, what: str, number: int) -> list[Any]:
        """The next such news; what is about other things, transport's too, is left out."""
        while True:
            if self._hands is not None:
                said = self._hands.told.get(timeout=PATIENCE)
            else:
                assert self._front is not None
                said = list(self._front.call(["told"], timeout=PATIENCE))
            if said[:2] == [what, number]:
                return [list(part) if isinstance(part, tuple) else part for part in said[2:]]


class World:
    """A machine, and domains that do what they are asked."""

    def __init__(self, **options: Any) -> None:
        self._stack = ExitStack()
        self.machine = self._stack.enter_context(Machine(spares=0, **options))
        self.here = Hands(self.machine.guest)
        self.machine.hear(self.machine.system.start(Ear, self.here))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.here.close()
        self._stack.close()

    def domain(self, placement: str, name: str = "") -> Domain:
        """A new one; "here" is domain 0."""
        if placement == "here":
            return Domain(self.here, None)
        return Domain(None, self.front(Obedient, placement, name or placement))

    def front(self, program: type[BackEnd], placement: str, name: str) -> FrontEnd:
        self.machine.start(name, program, placement=placement, restart="temporary")
        return self._stack.enter_context(connect(self.machine, name))
