"""Recovery from an uncorrectable error: what a back end asks of the driver, step by step.

Pure: `Recovery` knows the errors of a bus that wait for their driver, one of them at a time in
hand. Each step is an operation of the protocol that the driver answers with an ERS_ result; the
table says what follows. A fatal error takes the way of a slot reset whatever the driver can.

    step             answer                     next
    AER_DETECTED     CAN_RECOVER (not fatal)    AER_MMIO: it may look at its device again
                     CAN_RECOVER, NEED_RESET    reset, then AER_SLOT_RESET
    AER_MMIO         RECOVERED                  AER_RESUME
                     NEED_RESET                 reset, then AER_SLOT_RESET
    AER_SLOT_RESET   RECOVERED                  AER_RESUME
    AER_RESUME       anything                   over
    any              anything else              over: the driver gave up

Errors that come while the same function is being recovered are part of that recovery.

Source: io/pciif.h; linux Documentation/PCI/pci-error-recovery.rst (the steps and results).
"""

from __future__ import annotations

from examples.pci import protocol as p
from examples.pci.errors import OperationFailed

_FATAL = {(p.AER_DETECTED, p.ERS_CAN_RECOVER): p.AER_SLOT_RESET}
_STEPS = {
    (p.AER_DETECTED, p.ERS_CAN_RECOVER): p.AER_MMIO,
    (p.AER_DETECTED, p.ERS_NEED_RESET): p.AER_SLOT_RESET,
    (p.AER_MMIO, p.ERS_RECOVERED): p.AER_RESUME,
    (p.AER_MMIO, p.ERS_NEED_RESET): p.AER_SLOT_RESET,
    (p.AER_SLOT_RESET, p.ERS_RECOVERED): p.AER_RESUME,
}


class Recovery:
    """The errors that wait, in the order of their coming."""

    def __init__(self) -> None:
        self._waiting: dict[int, bool] = {}  # sbdf -> fatal
        self._step = p.AER_DETECTED

    def report(self, sbdf: int, *, fatal: bool) -> bool:
        """A function has an error. True: the driver is to be told that there is one."""
        new = sbdf not in self._waiting
        self._waiting[sbdf] = fatal or self._waiting.get(sbdf, False)
        return new

    def next(self) -> tuple[int, int] | None:
        """What is asked now, as (operation, sbdf), until it is answered; None: nothing."""
        if not self._waiting:
            return None
        return self._step, next(iter(self._waiting))

    def answer(self, operation: int, sbdf: int, result: int) -> bool:
        """The driver's answer to a step. True: the function is to be reset now.

        Raises:
            OperationFailed: that was not asked.
        """
        if self.next() != (operation, sbdf):
            raise OperationFailed("nobody asked for that step of an error recovery")
        fatal = _FATAL if self._waiting[sbdf] else {}
        step = fatal.get((operation, result), _STEPS.get((operation, result)))
        if step is None:
            del self._waiting[sbdf]
            self._step = p.AER_DETECTED
            return False
        self._step = step
        return step == p.AER_SLOT_RESET
