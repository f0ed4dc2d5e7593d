"""The event channel table: binding, epochs, quotas, virtual IRQs, the end of a domain, its cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from hypervisor.errors import (
    BadPort,
    HypercallError,
    NotPermitted,
    QuotaExceeded,
    StalePort,
    VirqBound,
)
from hypervisor.event_channels import EventChannels
from hypervisor.port_effects import (
    Bound,
    Opened,
    PeerClosed,
    PortInfo,
    PortStatus,
    Raise,
    Release,
    Virq,
)
from hypervisor.upcall import DEFAULT, HIGHEST, LOWEST

Table = EventChannels[str]


def table(*domids: int, quota: int = 8) -> Table:
    channels: Table = EventChannels(quota)
    for domid in domids:
        channels.domain_created(domid)
    return channels


def channel(channels: Table, one: int = 1, other: int = 2) -> tuple[Opened[str], Opened[str]]:
    """An interdomain channel; the signals are "a" at ``one`` and "b" at ``other``."""
    offer = channels.alloc_unbound(one, other, "a")
    return offer, channels.bind_interdomain(other, one, offer.port, offer.epoch, "b")


# --- binding --------------------------------------------------------------------------------------


def test_a_bind_joins_both_ends_tells_the_one_and_raises_the_other() -> None:
    channels = table(1, 2)
    offer = channels.alloc_unbound(1, 2, "a")
    assert (offer.port, offer.theirs, offer.effects) == (1, None, ())
    assert channels.status(1, 1, 1) == PortInfo(PortStatus.UNBOUND, 2)
    assert channels.send(1, 1, offer.epoch) == ()
    bound = channels.bind_interdomain(2, 1, offer.port, offer.epoch, "b")
    assert (bound.port, bound.theirs) == (1, "a")
    assert bound.effects == (Bound(1, 1, offer.epoch, 2, 1, "b"), Raise(2, 1, "b"))
    assert channels.status(1, 1, 1) == PortInfo(PortStatus.INTERDOMAIN, 2, 1)
    assert channels.status(2, 2, 1) == PortInfo(PortStatus.INTERDOMAIN, 1, 1)
    assert channels.send(1, 1, offer.epoch) == (Raise(2, 1, "b"),)
    assert channels.send(2, 1, bound.epoch) == (Raise(1, 1, "a"),)


def test_only_the_named_domain_may_bind_and_only_once() -> None:
    channels = table(1, 2, 3)
    offer = channels.alloc_unbound(1, 2, "a")
    for domid, epoch in ((3, offer.epoch), (1, offer.epoch), (3, 0)):
        with pytest.raises(BadPort, match="has no unbound port 1") as refused:
            channels.bind_interdomain(domid, 1, offer.port, epoch, "b")
        assert refused.type is BadPort  # not even that the port is there
    channels.bind_interdomain(2, 1, offer.port, offer.epoch, "b")
    with pytest.raises(BadPort, match="has no unbound port 1"):
        channels.bind_interdomain(2, 1, offer.port, offer.epoch, "c")
    with pytest.raises(BadPort):
        channels.bind_interdomain(2, 9, 1, 1, "c")
    assert len(channels) == 2


def test_a_domain_may_be_its_own_peer() -> None:
    channels = table(1)
    one, other = channel(channels, 1, 1)
    assert (one.port, other.port) == (1, 2)
    assert channels.send(1, 1, one.epoch) == (Raise(1, 2, "b"),)
    assert channels.send(1, 2, other.epoch) == (Raise(1, 1, "a"),)
    released, told = channels.close(1, 1, one.epoch)
    assert released == Release(1, 1, "a")
    assert isinstance(told, PeerClosed)
    channels.close(1, 2, told.epoch)
    assert len(channels) == 0
    channel(channels, 1, 1)
    assert channels.domain_died(1) == (Release(1, 1, "a"), Release(1, 2, "b"))
    assert len(channels) == 0


def test_nobody_binds_to_or_names_a_domain_that_is_not_there() -> None:
    channels = table(1)
    for call in (
        lambda: channels.alloc_unbound(1, 2, "a"),
        lambda: channels.alloc_unbound(2, 1, "a"),
        lambda: channels.bind_virq(2, Virq.TIMER, "a"),
        lambda: channels.bind_ipi(2, "a"),
        lambda: channels.reset(2),
        lambda: channels.status(2, 2, 1),
    ):
        with pytest.raises(HypercallError, match="no domain 2"):
            call()
    with pytest.raises(HypercallError, match="exists already"):
        channels.domain_created(1)
    assert channels.domain_died(2) == ()


# --- numbers, epochs, quotas ----------------------------------------------------------------------


def test_the_lowest_free_number_is_used_again_and_an_old_epoch_of_it_is_refused() -> None:
    channels = table(1, 2, 3)
    first, second, third = (channels.alloc_unbound(1, 2, name) for name in "abc")
    assert [first.port, second.port, third.port] == [1, 2, 3]
    channels.close(1, second.port, second.epoch)
    channels.close(1, first.port, first.epoch)
    with pytest.raises(BadPort, match="domain 1 has no port 1"):
        channels.send(1, 1, first.epoch)
    again = channels.alloc_unbound(1, 2, "d")
    assert again.port == first.port
    for stale in (first.epoch, second.epoch, third.epoch, again.epoch + 1, 0):
        calls: list[tuple[Callable[..., object], tuple[object, ...]]] = [
            (channels.send, (1, 1, stale)),
            (channels.close, (1, 1, stale)),
            (channels.set_priority, (1, 1, stale, 3)),
            (channels.bind_interdomain, (2, 1, 1, stale, "x")),
        ]
        for call, arguments in calls:
            with pytest.raises(StalePort, match=f"epoch {stale} is over"):
                call(*arguments)
    assert channels.bind_interdomain(2, 1, 1, again.epoch, "e").theirs == "d"
    assert channels.alloc_unbound(1, 2, "f").port == 2
    assert channels.alloc_unbound(1, 2, "g").port == 4


def test_a_close_leaves_the_other_end_unbound_in_an_epoch_that_its_owner_alone_knows() -> None:
    channels = table(1, 2, 3)
    one, other = channel(channels)
    released, told = channels.close(2, other.port, other.epoch)
    assert released == Release(2, 1, "b")
    assert isinstance(told, PeerClosed)
    assert (told.domid, told.port, told.remote_domid, told.died) == (1, 1, 2, False)
    assert told.epoch > one.epoch
    assert channels.status(1, 1, 1) == PortInfo(PortStatus.UNBOUND, 2)
    with pytest.raises(StalePort, match="closed its end"):
        channels.send(1, 1, one.epoch)
    for epoch in (one.epoch, told.epoch):  # who closed cannot come back before the owner says so
        with pytest.raises(BadPort, match="no unbound port 1"):
            channels.bind_interdomain(2, 1, 1, epoch, "c")
    with pytest.raises(StalePort):
        channels.reoffer(1, 1, one.epoch, "a2")
    assert channels.reoffer(1, 1, told.epoch, "a2") == (Release(1, 1, "a"),)
    with pytest.raises(BadPort, match="offered already"):
        channels.reoffer(1, 1, told.epoch, "a3")
    with pytest.raises(StalePort):
        channels.bind_interdomain(2, 1, 1, one.epoch, "c")
    with pytest.raises(BadPort):
        channels.bind_interdomain(3, 1, 1, told.epoch, "c")
    assert channels.send(1, 1, told.epoch) == ()
    back = channels.bind_interdomain(2, 1, 1, told.epoch, "c")
    assert back.theirs == "a2"
    assert back.effects == (Bound(1, 1, told.epoch, 2, 1, "c"), Raise(2, 1, "c"))
    with pytest.raises(BadPort, match="not unbound"):
        channels.reoffer(1, 1, told.epoch, "a3")
    assert channels.send(1, 1, told.epoch) == (Raise(2, 1, "c"),)
    with pytest.raises(StalePort):
        channels.send(1, 1, one.epoch)


@pytest.mark.parametrize("knows", [False, True])
def test_an_owner_closes_its_end_whether_it_knows_of_its_peers_close_or_not(knows: bool) -> None:
    channels = table(1, 2)
    one, other = channel(channels)
    _, told = channels.close(2, other.port, other.epoch)
    assert isinstance(told, PeerClosed)
    epoch = told.epoch if knows else one.epoch
    channels.set_priority(1, one.port, epoch, 1)
    assert channels.close(1, one.port, epoch) == (Release(1, 1, "a"),)
    assert len(channels) == 0


def test_over_its_quota_a_domain_alone_is_refused() -> None:
    channels = table(0, quota=3)
    channels.domain_created(1, quota=2)
    channels.domain_created(2)
    offers = [channels.alloc_unbound(2, 1, name) for name in "abc"]
    first = channels.bind_interdomain(1, 2, 1, offers[0].epoch, "d")
    channels.bind_ipi(1, "e")
    calls: list[Callable[[], object]] = [
        lambda: channels.bind_interdomain(1, 2, 2, offers[1].epoch, "f"),
        lambda: channels.alloc_unbound(1, 2, "f"),
        lambda: channels.bind_ipi(1, "f"),
        lambda: channels.bind_virq(1, Virq.TIMER, "f"),
    ]
    for call in calls:
        with pytest.raises(QuotaExceeded, match="domain 1 has 2 ports"):
            call()
    assert channels.status(2, 2, 2).status is PortStatus.UNBOUND
    assert len(channels) == 5
    channels.close(1, first.port, first.epoch)
    assert channels.bind_virq(1, Virq.TIMER, "f").port == first.port
    assert channels.bind_ipi(0, "g").port == 1


# --- virtual IRQs, IPIs, status -------------------------------------------------------------------


def test_global_virqs_are_the_control_domains_and_each_is_bound_once() -> None:
    channels = table(0, 1)
    for virq in (Virq.CONSOLE, Virq.DOM_EXC):
        with pytest.raises(NotPermitted, match=f"{virq.name} is global"):
            channels.bind_virq(1, virq, "a")
        with pytest.raises(HypercallError, match="global, not domain 1's"):
            channels.raise_virq(virq, 1)
    ports = {virq: channels.bind_virq(0, virq, virq.name) for virq in Virq}
    other = channels.bind_virq(1, Virq.TIMER, "other")
    with pytest.raises(VirqBound, match="has TIMER on port 1"):
        channels.bind_virq(1, Virq.TIMER, "a")
    for virq, opened in ports.items():
        assert channels.raise_virq(virq) == (Raise(0, opened.port, virq.name),)
        info = channels.status(0, 0, opened.port)
        assert (info.status, info.virq, info.remote_domid) == (PortStatus.VIRQ, virq, None)
    assert channels.raise_virq(Virq.TIMER, 1) == (Raise(1, other.port, "other"),)
    with pytest.raises(BadPort, match="not for sending"):
        channels.send(1, other.port, other.epoch)
    assert channels.close(1, other.port, other.epoch) == (Release(1, 1, "other"),)
    assert channels.bind_virq(1, Virq.TIMER, "again").port == 1
    for unknown in (1, 24, -1):
        with pytest.raises(HypercallError, match="no virtual IRQ"):
            channels.bind_virq(1, unknown, "a")
        with pytest.raises(HypercallError, match="no virtual IRQ"):
            channels.raise_virq(unknown)


def test_a_virq_that_nobody_has_bound_waits_for_who_binds_it_once() -> None:
    channels = table(0, 1)
    assert channels.raise_virq(Virq.DOM_EXC) == ()
    assert channels.raise_virq(Virq.DOM_EXC) == ()
    bound = channels.bind_virq(0, Virq.DOM_EXC, "exc")
    assert bound.effects == (Raise(0, 1, "exc"),)
    channels.close(0, 1, bound.epoch)
    assert channels.bind_virq(0, Virq.DOM_EXC, "exc").effects == ()
    assert channels.bind_virq(1, Virq.TIMER, "t").effects == ()
    channels.domain_died(1)
    assert channels.raise_virq(Virq.TIMER, 1) == ()


def test_an_ipi_is_for_its_own_domain() -> None:
    channels = table(1)
    opened = channels.bind_ipi(1, "self")
    assert (opened.theirs, opened.effects) == ("self", ())
    assert channels.send(1, opened.port, opened.epoch) == (Raise(1, 1, "self"),)
    assert channels.status(1, 1, 1) == PortInfo(PortStatus.IPI)
    assert channels.status(1, 1, 2) == PortInfo(PortStatus.CLOSED)


def test_the_numbers_are_xens() -> None:
    assert {status.name.lower(): status.value for status in PortStatus} == {
        "closed": 0,
        "unbound": 1,
        "interdomain": 2,
        "virq": 4,
        "ipi": 5,
    }
    assert (Virq.TIMER, Virq.CONSOLE, Virq.DOM_EXC) == (0, 2, 3)
    assert (HIGHEST, DEFAULT, LOWEST) == (0, 7, 15)


def test_only_the_control_domain_asks_for_the_ports_of_others() -> None:
    channels = table(0, 1, 2)
    channel(channels)
    assert channels.status(0, 1, 1).status is PortStatus.INTERDOMAIN
    with pytest.raises(NotPermitted):
        channels.status(2, 1, 1)


# --- priority -------------------------------------------------------------------------------------


def test_a_priority_is_the_ports_and_ends_with_it() -> None:
    channels = table(1)
    opened = channels.bind_ipi(1, "a")
    assert channels.status(1, 1, 1).priority == DEFAULT
    for priority in (HIGHEST, LOWEST):
        channels.set_priority(1, 1, opened.epoch, priority)
        assert channels.status(1, 1, 1).priority == priority
    for wrong in (-1, 16):
        with pytest.raises(HypercallError, match=r"not within 0\.\.15"):
            channels.set_priority(1, 1, opened.epoch, wrong)
    channels.close(1, 1, opened.epoch)
    channels.bind_ipi(1, "b")
    assert channels.status(1, 1, 1) == PortInfo(PortStatus.IPI)


# --- the end of a domain --------------------------------------------------------------------------


def test_a_dead_domain_leaves_its_peers_told_and_nobody_waiting_for_it() -> None:
    channels = table(0, 1, 2, 3)
    one, other = channel(channels, 1, 2)
    waiting = channels.alloc_unbound(3, 2, "w")
    channels.alloc_unbound(2, 3, "u")
    channels.bind_virq(2, Virq.TIMER, "t")
    effects = channels.domain_died(2)
    assert {effect for effect in effects if isinstance(effect, Release)} == {
        Release(2, 1, "b"),
        Release(2, 2, "u"),
        Release(2, 3, "t"),
    }
    told = {effect.domid: effect for effect in effects if isinstance(effect, PeerClosed)}
    assert len(effects) == 5
    assert told[3] == PeerClosed(3, waiting.port, waiting.epoch, 2, died=True)
    assert (told[1].port, told[1].remote_domid, told[1].died) == (one.port, 2, True)
    assert channels.domain_died(2) == ()
    with pytest.raises(StalePort):
        channels.send(1, one.port, one.epoch)
    assert channels.status(1, 1, 1) == PortInfo(PortStatus.UNBOUND, 2)
    with pytest.raises(HypercallError, match="no domain 2"):
        channels.reoffer(1, 1, told[1].epoch, "x")
    for domid in (0, 3):
        with pytest.raises(BadPort):
            channels.bind_interdomain(domid, 1, 1, told[1].epoch, "x")
    with pytest.raises(HypercallError, match="no domain 2"):
        channels.close(2, other.port, other.epoch)
    assert channels.close(1, one.port, one.epoch) == (Release(1, 1, "a"),)
    assert channels.close(3, waiting.port, waiting.epoch) == (Release(3, 1, "w"),)
    assert len(channels) == 0


def test_a_reset_closes_everything_and_the_domain_lives_on() -> None:
    channels = table(0, 1, 2)
    one, _ = channel(channels, 1, 2)
    channel(channels, 1, 1)
    channels.bind_virq(1, Virq.TIMER, "t")
    effects = channels.reset(1)
    releases = [effect.port for effect in effects if isinstance(effect, Release)]
    told = [effect for effect in effects if isinstance(effect, PeerClosed)]
    assert releases == [1, 2, 3, 4]
    assert [(t.domid, t.port, t.died) for t in told] == [(2, 1, False)]
    assert len(effects) == 5
    assert len(channels) == 1
    channels.bind_virq(1, Virq.TIMER, "t")
    channels.reoffer(2, 1, told[0].epoch, "b2")
    again = channels.bind_interdomain(1, 2, 1, told[0].epoch, "back")
    assert again.theirs == "b2"
    assert channels.send(1, again.port, again.epoch) == (Raise(2, 1, "b2"),)
    with pytest.raises(StalePort):
        channels.send(1, one.port, one.epoch)


# --- cost -----------------------------------------------------------------------------------------


def lines_run(call: Callable[[], Any]) -> int:
    """How many lines of event_channels.py a call runs: its cost without the noise of a clock."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith("event_channels.py"):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_the_last_of_ten_thousand_channels_costs_what_the_first_did() -> None:
    channels: Table = EventChannels(quota=30_000)
    for domid in range(100):
        channels.domain_created(domid)

    def life(one: int, other: int) -> dict[str, int]:
        """One channel's life; what each step of it costs."""
        at: dict[str, Opened[str]] = {}

        def bind() -> None:
            at["b"] = channels.bind_interdomain(other, one, at["a"].port, at["a"].epoch, "b")

        def alloc() -> None:
            at["a"] = channels.alloc_unbound(one, other, "a")

        cost = {"alloc": lines_run(alloc), "bind": lines_run(bind)}
        a, b = at["a"], at["b"]
        cost["send"] = lines_run(lambda: channels.send(one, a.port, a.epoch))
        cost["priority"] = lines_run(lambda: channels.set_priority(one, a.port, a.epoch, 2))
        cost["status"] = lines_run(lambda: channels.status(one, one, a.port))
        told: list[Any] = []
        cost["close"] = lines_run(lambda: told.extend(channels.close(one, a.port, a.epoch)))
        cost["close unbound"] = lines_run(lambda: channels.close(other, b.port, b.epoch))
        return cost

    first = life(0, 1)
    for number in range(10_000):
        channel(channels, number % 100, (number * 7 + 1) % 100)
    assert len(channels) == 20_000
    assert life(0, 1) == first
    for _ in range(9_998):  # all of them in one domain, too
        channel(channels, 0, 0)
    assert life(0, 1) == first
    channels.domain_created(100)
    channel(channels, 100, 0)
    assert lines_run(lambda: channels.domain_died(100)) < 60
