"""Exactly once, under simulation: whatever goes wrong with a bank, no caller is deceived."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from actors import Choices, Faults, Options, Scheduler, System, explore
from actors.explore import Test, attempt
from hypervisor import Machine
from tests.simulation import bank_load
from tests.simulation.bank import LEDGERS, Bank, HastyBank, Ledger
from transport import Cancelled, FrontEnd, OnLoss, OutcomeUnknown, connect


@pytest.mark.simulate(seeds=100, faults=bank_load.FAULTS)
def test_whatever_happens_no_caller_is_deceived(system: System) -> None:
    bank_load.test(system)


@pytest.mark.simulate(seeds=1, first=8552, faults=bank_load.FAULTS)
def test_who_leads_does_not_sleep_on_when_an_event_loop_takes_over(system: System) -> None:
    bank_load.test(system)


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.simulate(seeds=10_000, faults=bank_load.FAULTS)
def test_no_caller_is_deceived_in_ten_thousand_runs(system: System) -> None:
    bank_load.test(system)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "name"), [("crash_domain", "bank"), ("hang_domain", "bank"), ("revoke", "machine")]
)
@pytest.mark.parametrize(
    ("seed", "every"),
    [(0, 3), *(pytest.param(seed, 1, marks=pytest.mark.stress) for seed in (0, 1))],
)
def test_no_caller_is_deceived_at_whichever_point_of_a_run_it_strikes(
    kind: str, name: str, seed: int, every: int
) -> None:
    n, struck = 0, True
    while struck:
        n += every
        options = Options(Faults(kinds=(), script=[(kind, name, n)]))
        scheduler, error = attempt(bank_load.test, Choices.seeded(seed), options)
        assert error is None, scheduler.trace.text()
        struck = bool(scheduler.plan.injected)
    assert n > 20, "there are more points than that"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (bank_load.early, "acknowledged, and not"),
        (bank_load.late_journal, "done twice"),
        pytest.param(bank_load.hasty, "an effect of what is over", marks=pytest.mark.stress),
        (bank_load.reissuing, "done twice"),
    ],
)
def test_a_wrong_bank_is_found(wrong: Test, says: str) -> None:
    failure = explore(wrong, 1000, bank_load.OPTIONS, shrinking=0)
    assert failure is not None
    assert says in str(failure.error)


# --- named cases ----------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_bank(bank: type[Bank] = Bank) -> Iterator[tuple[Machine, FrontEnd, Ledger]]:
    """One whose operations think for a second before and after each effect."""
    system = System(simulation=Scheduler(0, preemption=0))
    simulation = system.simulation
    assert simulation is not None
    ledger = Ledger(lambda: simulation.pause(1.0), lambda: simulation.is_over)
    LEDGERS["bank"] = ledger
    with Machine(system=system, intensity=1000) as machine:
        machine.start("bank", bank, "bank")
        with connect(machine, "bank", slots=8, buffer_bytes=1 << 14) as channel:
            yield machine, channel, ledger


def revoked_while_it_thinks(
    machine: Machine, channel: FrontEnd, how: str, on_loss: OnLoss
) -> dict[int, Exception | None]:
    """What became of two requests, the second of which waited behind the first, or beside it."""
    for number in (0, 1):
        channel.submit(("add", number, how), token=number, on_loss=on_loss)
    channel.push()
    assert machine.system.simulation is not None
    machine.system.simulation.advance(0.5)
    machine.revoke("bank")
    ended: dict[int, Exception | None] = {}
    while len(ended) < 2:
        assert channel.wait(100), "there is no answer"
        ended.update((request.token, request.error) for request in channel.reap())
    return ended


def test_a_late_write_of_an_old_epoch_never_lands_after_the_one_that_was_sent_again() -> None:
    with slow_bank() as (machine, channel, ledger):
        ended = revoked_while_it_thinks(machine, channel, "offload", OnLoss.REISSUE)
        assert ended == {0: None, 1: None}
        epochs = [effect.epoch for effect in ledger.effects]
        assert epochs == sorted(epochs)
        assert len(epochs) == 4  # both twice, as their caller allowed
        assert len(set(epochs)) == 2


def test_who_does_not_wait_for_old_work_has_the_late_write() -> None:
    with slow_bank(HastyBank) as (machine, channel, ledger):
        revoked_while_it_thinks(machine, channel, "offload", OnLoss.REISSUE)
        with pytest.raises(AssertionError, match="an effect of what is over"):
            ledger.check()


def test_what_a_living_back_end_begins_after_it_was_revoked_is_not_sent_again() -> None:
    with slow_bank() as (machine, channel, ledger):
        ended = revoked_while_it_thinks(machine, channel, "inline", OnLoss.SETTLE)
        assert [type(error) for error in ended.values()] == [OutcomeUnknown, OutcomeUnknown]
        assert ledger.credited() == [0, 1]


def test_what_is_cancelled_in_doubt_is_not_said_to_be_undone() -> None:
    with slow_bank() as (machine, channel, ledger):
        request = channel.submit(("add", 0, "inline"), on_loss=OnLoss.REISSUE)
        channel.push()
        assert machine.system.simulation is not None
        machine.system.simulation.advance(1.5)
        assert ledger.credited() == [0]
        machine.revoke("bank")
        machine.system.simulation.advance(0.1)
        channel.cancel(request)
        assert channel.wait(100)
        assert channel.reap() == [request]
        assert type(request.error) is OutcomeUnknown


def test_what_was_never_sent_is_cancelled_for_certain() -> None:
    with slow_bank() as (machine, channel, ledger):
        simulation = machine.system.simulation
        assert simulation is not None
        first = channel.submit(("add", 0, "offload"))
        channel.push()
        simulation.advance(0.5)
        machine.revoke("bank")
        simulation.advance(0.1)  # not connected again: the first is still at work
        second = channel.submit(("add", 1, "offload"))
        channel.cancel(second)
        assert {type(request.error) for request in channel.reap()} == {OutcomeUnknown, Cancelled}
        assert type(second.error) is Cancelled
        simulation.advance(10)
        assert type(first.error) is OutcomeUnknown
        assert ledger.credited() == [0]
