"""The steps of an error recovery: what is asked after which answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.pci import protocol as p
from examples.pci.aer import Recovery
from examples.pci.errors import OperationFailed

A, B = 0x08, 0x100
RESULTS = range(p.ERS_NONE, p.ERS_NO_AER_DRIVER + 1)
DETECTED, MMIO, RESET, RESUME = p.AER_DETECTED, p.AER_MMIO, p.AER_SLOT_RESET, p.AER_RESUME
WAYS: list[tuple[bool, list[tuple[int, int]], bool]] = [
    (False, [(DETECTED, p.ERS_CAN_RECOVER), (MMIO, p.ERS_RECOVERED), (RESUME, 1)], False),
    (False, [(DETECTED, p.ERS_NEED_RESET), (RESET, p.ERS_RECOVERED), (RESUME, 1)], True),
    (
        False,
        [
            (DETECTED, p.ERS_CAN_RECOVER),
            (MMIO, p.ERS_NEED_RESET),
            (RESET, p.ERS_RECOVERED),
            (RESUME, 5),
        ],
        True,
    ),
    (True, [(DETECTED, p.ERS_CAN_RECOVER), (RESET, p.ERS_RECOVERED), (RESUME, 1)], True),
    (True, [(DETECTED, p.ERS_NEED_RESET), (RESET, p.ERS_DISCONNECT)], True),
    (False, [(DETECTED, p.ERS_NONE)], False),
    (True, [(DETECTED, p.ERS_NO_AER_DRIVER)], False),
    (False, [(DETECTED, p.ERS_CAN_RECOVER), (MMIO, p.ERS_DISCONNECT)], False),
]


@pytest.mark.parametrize(("fatal", "steps", "reset"), WAYS)
def test_a_recovery_goes_its_way(fatal: bool, steps: list[tuple[int, int]], reset: bool) -> None:
    recovery = Recovery()
    assert recovery.report(A, fatal=fatal)
    resets = []
    for operation, result in steps:
        assert recovery.next() == (operation, A) == recovery.next()
        resets.append(recovery.answer(operation, A, result))
    assert recovery.next() is None
    assert resets.count(True) == reset


def test_one_function_is_recovered_after_the_other_and_each_once() -> None:
    recovery = Recovery()
    assert recovery.report(A, fatal=False)
    assert recovery.report(B, fatal=False)
    assert not recovery.report(A, fatal=True)
    assert recovery.answer(DETECTED, A, p.ERS_CAN_RECOVER)
    recovery.answer(RESET, A, p.ERS_DISCONNECT)
    assert recovery.next() == (DETECTED, B)


def test_an_error_that_was_fatal_stays_so_when_a_lesser_one_follows() -> None:
    recovery = Recovery()
    recovery.report(A, fatal=True)
    recovery.report(A, fatal=False)
    assert recovery.answer(DETECTED, A, p.ERS_CAN_RECOVER)


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    recovery = Recovery()
    with pytest.raises(OperationFailed):
        recovery.answer(DETECTED, A, p.ERS_CAN_RECOVER)
    recovery.report(A, fatal=False)
    for wrong in ((MMIO, A), (DETECTED, B)):
        with pytest.raises(OperationFailed):
            recovery.answer(*wrong, p.ERS_CAN_RECOVER)
    assert recovery.next() == (DETECTED, A)


@given(st.booleans(), st.lists(st.sampled_from(RESULTS), min_size=4, max_size=4))
def test_every_recovery_ends_after_four_answers_and_resets_once_at_most(
    fatal: bool, results: list[int]
) -> None:
    recovery = Recovery()
    recovery.report(A, fatal=fatal)
    resets = 0
    for result in results:
        step = recovery.next()
        if step is not None:
            resets += recovery.answer(*step, result)
    assert recovery.next() is None
    assert resets <= 1
