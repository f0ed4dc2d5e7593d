"""The guest's half of grants where the order of messages matters: its hypervisor answers late."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from actors import Fd, Message
from hypervisor import GrantRevoked, HypercallError, MappingRevoked, Region
from hypervisor import hypercalls as hc
from hypervisor.guest_memory import MemoryCalls

SIZE = 4096


class Scripted(MemoryCalls):
    """Its hypervisor maps one region under handle 7, and does ``meanwhile`` before it answers."""

    def __init__(self, region: Region, meanwhile: Callable[[MemoryCalls], object]) -> None:
        super().__init__(1)
        self._region = region
        self._meanwhile = meanwhile

    def hypercall(self, call: Message) -> Any:
        if not isinstance(call, hc.MapGrantRef):
            return None
        self._meanwhile(self)
        if call.gref == 0:
            raise HypercallError("no such grant")
        return hc.Granted(7, Fd(os.dup(self._region.fd)), 0, SIZE, readonly=False)


def test_a_revocation_that_overtakes_the_answer_to_the_map_is_not_forgotten() -> None:
    region = Region(SIZE)
    guest = Scripted(region, lambda it: it.hear(MappingRevoked(0, 8, [7])))
    mapping = guest.map_grant_ref(0, 8)
    with pytest.raises(GrantRevoked):
        _ = mapping.view
    guest.unmap_grant_ref(mapping)
    region.close()


def test_what_was_revoked_while_nobody_mapped_is_not_remembered() -> None:
    region = Region(SIZE)
    news = MappingRevoked(0, 8, [7])
    guest = Scripted(region, lambda it: it.hear(news) if not quiet else None)
    quiet = False
    with pytest.raises(HypercallError):
        guest.map_grant_ref(0, 0)
    quiet = True
    guest.hear(news)
    mapping = guest.map_grant_ref(0, 8)
    assert mapping.view[0] == 0
    guest.hear(news)
    with pytest.raises(GrantRevoked):
        _ = mapping.view
    guest.unmap_grant_ref(mapping)
    guest.hear(news)
    region.close()
