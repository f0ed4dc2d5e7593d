"""The event channel table against a naive model, by hypothesis: every answer is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hypervisor.errors import (
    BadPort,
    HypercallError,
    NotPermitted,
    QuotaExceeded,
    StalePort,
    VirqBound,
)
from hypervisor.event_channels import EventChannels
from hypervisor.port_effects import Bound, Effects, Opened, PeerClosed, Raise, Release, Virq
from hypervisor.upcall import DEFAULT, HIGHEST, LOWEST

Table = EventChannels[str]


@dataclass
class Known:
    """What the model knows of one open end."""

    domid: int
    port: int
    epochs: list[int]
    signal: str
    kind: str  # unbound, interdomain, virq, ipi
    remote: int | None = None
    peer: Known | None = None
    owed: bool = False
    offered: bool = True
    virq: Virq | None = None
    priority: int = DEFAULT


QUOTA = 5
DOMAINS = st.integers(0, 3)
LIVING = st.integers(0, 2)


class TablesMachine(RuleBasedStateMachine):
    """Three domains of their own, one that dies and is replaced; every answer is checked."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: Table = EventChannels(QUOTA)
        self.ends: list[Known] = []
        self.gone: list[Known] = []
        self.signals = 0
        self.released: set[str] = set()
        self.mortal = 3
        self.owed_virqs: set[tuple[int, Virq]] = set()
        for domid in range(4):
            self.channels.domain_created(domid)

    def of(self, domid: int) -> list[Known]:
        return [end for end in self.ends if end.domid == self.real(domid)]

    def real(self, domid: int) -> int:
        return self.mortal if domid == 3 else domid

    def fresh(self) -> str:
        self.signals += 1
        return f"s{self.signals}"

    def opened(self, domid: int, kind: str, call: Callable[[str], Opened[str]]) -> Known | None:
        mine, signal = self.of(domid), self.fresh()
        if len(mine) >= QUOTA:
            with pytest.raises(QuotaExceeded):
                call(signal)
            return None
        opened = call(signal)
        taken = {end.port for end in mine}
        assert opened.port == min(set(range(1, QUOTA + 2)) - taken)
        seen = [epoch for end in self.ends + self.gone for epoch in end.epochs]
        assert opened.epoch > max(seen, default=0)
        end = Known(self.real(domid), opened.port, [opened.epoch], signal, kind)
        self.ends.append(end)
        self.check(opened.effects)
        return end

    def check(self, effects: Effects[str]) -> None:
        """Every raise is of an open end, and settles what is owed."""
        for effect in effects:
            if isinstance(effect, Raise):
                (end,) = [e for e in self.ends if (e.domid, e.port) == (effect.domid, effect.port)]
                assert effect.signal == end.signal
                assert end.owed, "a signal was invented"
                end.owed = False

    @rule(domid=DOMAINS, remote=DOMAINS)
    def alloc(self, domid: int, remote: int) -> None:
        one, other = self.real(domid), self.real(remote)
        end = self.opened(
            domid, "unbound", lambda signal: self.channels.alloc_unbound(one, other, signal)
        )
        if end is not None:
            end.remote = other

    @rule(domid=DOMAINS, data=st.data())
    def bind(self, domid: int, data: st.DataObject) -> None:
        if not self.ends:
            return
        offer = data.draw(st.sampled_from(self.ends))
        stale = data.draw(st.booleans()) and data.draw(st.integers(0, offer.epochs[-1] - 1))
        epoch = stale or offer.epochs[-1]
        me = self.real(domid)

        def call(signal: str) -> Opened[str]:
            return self.channels.bind_interdomain(me, offer.domid, offer.port, epoch, signal)

        if offer.kind != "unbound" or offer.remote != me or not offer.offered:
            with pytest.raises(BadPort):
                call("never")
            return
        if epoch != offer.epochs[-1]:
            with pytest.raises(StalePort):
                call("never")
            return
        end = self.opened_by_bind(domid, offer, call)
        if end is not None:
            end.peer, offer.peer, offer.kind = offer, end, "interdomain"

    def opened_by_bind(
        self, domid: int, offer: Known, call: Callable[[str], Opened[str]]
    ) -> Known | None:
        answers: list[Opened[str]] = []

        def once(signal: str) -> Opened[str]:
            answer = call(signal)
            answers.append(answer)
            return Opened(answer.port, answer.epoch, answer.theirs, ())

        end = self.opened(domid, "interdomain", once)
        if end is not None:
            (answer,) = answers
            assert answer.theirs == offer.signal
            assert answer.effects == (
                Bound(offer.domid, offer.port, offer.epochs[-1], end.domid, end.port, end.signal),
                Raise(end.domid, end.port, end.signal),
            )
            end.remote = offer.domid
        return end

    @precondition(lambda self: any(end.kind == "unbound" for end in self.ends))
    @rule(data=st.data())
    def reoffer(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from([end for end in self.ends if end.kind == "unbound"]))
        epoch, signal = data.draw(st.sampled_from(end.epochs)), self.fresh()
        dead = end.remote not in {0, 1, 2, self.mortal}
        if epoch != end.epochs[-1] or end.offered or dead:
            with pytest.raises(HypercallError):
                self.channels.reoffer(end.domid, end.port, epoch, signal)
            return
        effects = self.channels.reoffer(end.domid, end.port, epoch, signal)
        assert effects == (Release(end.domid, end.port, end.signal),)
        self.released.add(end.signal)
        end.signal, end.offered = signal, True

    @rule(domid=DOMAINS, virq=st.sampled_from(Virq))
    def bind_virq(self, domid: int, virq: Virq) -> None:
        me = self.real(domid)
        if virq is not Virq.TIMER and domid != 0:
            with pytest.raises(NotPermitted):
                self.channels.bind_virq(me, virq, "never")
            return
        if any(end.virq is virq for end in self.of(domid)):
            with pytest.raises(VirqBound):
                self.channels.bind_virq(me, virq, "never")
            return
        raised: list[Effects[str]] = []

        def call(signal: str) -> Opened[str]:
            answer = self.channels.bind_virq(me, virq, signal)
            raised.append(answer.effects)
            return Opened(answer.port, answer.epoch, None, ())

        end = self.opened(domid, "virq", call)
        if end is not None:
            end.virq = virq
            owed = (me, virq) in self.owed_virqs
            self.owed_virqs.discard((me, virq))
            assert raised == [(Raise(me, end.port, end.signal),) if owed else ()]

    @rule(domid=DOMAINS)
    def bind_ipi(self, domid: int) -> None:
        me = self.real(domid)
        self.opened(domid, "ipi", lambda signal: self.channels.bind_ipi(me, signal))

    @rule(domid=DOMAINS, virq=st.sampled_from(Virq))
    def virq(self, domid: int, virq: Virq) -> None:
        me = self.real(domid) if virq is Virq.TIMER else 0
        bound = [end for end in self.ends if end.domid == me and end.virq is virq]
        if bound:
            bound[0].owed = True
        else:
            self.owed_virqs.add((me, virq))
        self.check(self.channels.raise_virq(virq, me))

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.ends))
        epoch = data.draw(st.sampled_from(end.epochs))
        if epoch != end.epochs[-1]:
            with pytest.raises(StalePort):
                self.channels.send(end.domid, end.port, epoch)
            return
        if end.kind == "virq":
            with pytest.raises(BadPort):
                self.channels.send(end.domid, end.port, epoch)
            return
        to = {"interdomain": end.peer, "ipi": end}.get(end.kind)
        if to is not None:
            to.owed = True
        self.check(self.channels.send(end.domid, end.port, epoch))

    @precondition(lambda self: self.ends)
    @rule(data=st.data(), priority=st.integers(LOWEST - 16, LOWEST))
    def priority(self, data: st.DataObject, priority: int) -> None:
        end = data.draw(st.sampled_from(self.ends))
        key = (end.domid, end.port, data.draw(st.sampled_from(end.epochs)))
        if priority < HIGHEST:
            with pytest.raises(HypercallError, match="not within"):
                self.channels.set_priority(*key, priority)
            return
        self.channels.set_priority(*key, priority)
        end.priority = priority

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def stale(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.gone))
        key = (end.domid, end.port, data.draw(st.sampled_from(end.epochs)))
        for call in (self.channels.send, self.channels.close):
            with pytest.raises(HypercallError):
                call(*key)

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.ends))
        effects = self.channels.close(end.domid, end.port, data.draw(st.sampled_from(end.epochs)))
        self.closed([end], effects, died=False)

    @rule(domid=LIVING)
    def reset(self, domid: int) -> None:
        mine = self.of(domid)
        self.closed(mine, self.channels.reset(domid), died=False)

    @rule()
    def die(self) -> None:
        mine = self.of(3)
        waiting = [
            end
            for end in self.ends
            if end.kind == "unbound" and end.remote == self.mortal and end.offered
            if end not in mine
        ]
        effects = self.channels.domain_died(self.mortal)
        told = {(e.domid, e.port): e for e in effects if isinstance(e, PeerClosed)}
        for end in waiting:
            answer = told[end.domid, end.port]
            if answer.epoch == end.epochs[-1]:  # as opposed to a peer's, which is checked below
                effects = tuple(e for e in effects if e is not answer)
        self.closed(mine, effects, died=True)
        self.owed_virqs = {(of, virq) for of, virq in self.owed_virqs if of != self.mortal}
        self.mortal += 1
        self.channels.domain_created(self.mortal)

    def closed(self, ends: list[Known], effects: Effects[str], *, died: bool) -> None:
        released = [e.signal for e in effects if isinstance(e, Release)]
        assert sorted(released) == sorted(end.signal for end in ends)
        assert not self.released.intersection(released)
        self.released.update(released)
        told = {(e.domid, e.port): e for e in effects if isinstance(e, PeerClosed)}
        peers = [end.peer for end in ends if end.peer is not None and end.peer not in ends]
        if len(ends) == 1 and ends[0].peer is not None and ends[0].peer.domid == ends[0].domid:
            assert len(told) == 1
        assert set(told) == {(peer.domid, peer.port) for peer in peers}
        assert len(effects) == len(released) + len(told)
        for peer in peers:
            answer = told[peer.domid, peer.port]
            assert answer.epoch > peer.epochs[-1]
            assert (answer.remote_domid, answer.died) == (peer.remote, died)
            peer.kind, peer.peer, peer.offered = "unbound", None, False
            peer.epochs.append(answer.epoch)
        for end in ends:
            self.ends.remove(end)
            self.gone.append(end)

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        assert len(self.channels) == len(self.ends)
        for end in self.ends:
            info = self.channels.status(end.domid, end.domid, end.port)
            assert info.status.name.lower() == end.kind
            assert info.remote_domid == end.remote
            assert info.remote_port == (end.peer.port if end.peer else None)
            assert (info.priority, info.virq) == (end.priority, end.virq)
            assert not end.owed, "a signal was lost"


TablesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestTables = TablesMachine.TestCase
