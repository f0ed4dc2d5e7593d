"""Mass storage, bulk-only transport: one disk behind two bulk endpoints. Pure but for its `Disk`.

Owns the dialogue: a command block wrapper (CBW), perhaps data, a status wrapper (CSW).

    COMMAND --CBW--> DATA_OUT, or data for the host are queued --> a CSW is queued --> COMMAND
       |                `-- the host sends more than the command takes --> EXCESS --halt--'
       `---- not a valid CBW ---> BROKEN, until the host's reset recovery

Rules:
1. The host says how much it expects and in which direction (H), the command says what the device
   means (D). The thirteen cases of section 6.7 come out of one comparison, `_judge`; where H and D
   cannot be reconciled the command is not carried out and the CSW says phase error.
2. Less data than the host expects end in a short packet if that ends the transfer, else in a halt;
   the residue says how much is missing.
3. After anything that is not a valid CBW both endpoints are halted, and clearing that does not
   help: only Bulk-Only Mass Storage Reset does. The CBW after it is a new dialogue.
4. Data of READ and WRITE go between the disk and the host's own pages, as they come: any piece, any
   number of URBs. An error in the middle halts the endpoint, and the CSW says failed.

Corner case: a CBW that comes while a CSW or data still wait for the host replaces them: the host
has given that command up.

Specification: USB Mass Storage Class Bulk-Only Transport 1.0, sections 3.1 (reset), 5 (wrappers),
6.4 (status), 6.6 (errors), 6.7 (the thirteen cases).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from examples.usb import protocol as p
from examples.usb import scsi
from examples.usb.chapter9 import BULK, IN, Setup
from examples.usb.descriptors import Endpoint, Interface
from examples.usb.function import Function, InPipe, Result, Stalled

CBW: Final = Struct("<4sIIBBB16s")  # signature, tag, length, flags, LUN, length of the block, block
CSW: Final = Struct("<4sIIB")  # signature, tag, residue, status
CBW_SIGNATURE: Final = b"USBC"
CSW_SIGNATURE: Final = b"USBS"

PASSED: Final = 0
FAILED: Final = 1
PHASE_ERROR: Final = 2

RESET: Final = 0xFF  # Bulk-Only Mass Storage Reset
GET_MAX_LUN: Final = 0xFE

BULK_IN: Final = 0  # places of the endpoints
BULK_OUT: Final = 1

_COMMAND: Final = "command"
_DATA_OUT: Final = "data out"
_EXCESS: Final = "excess"
_BROKEN: Final = "broken"

_PACKET: Final = 512  # bytes, high speed
_PIECE: Final = 1 << 20  # bytes that VERIFY reads at once


class MassStorage(Function):
    """A disk whose serial number is ``serial``: letters and digits, 12 or more."""

    def __init__(self, disk: scsi.Disk, serial: str) -> None:
        self._disk = disk
        self._unit = scsi.LogicalUnit(disk, serial)
        self._in = InPipe(_PACKET)
        self.reset()

    def interfaces(self, first: int) -> list[Interface]:  # noqa: ARG002 - the shape is Function's
        ends = (Endpoint(IN, BULK, _PACKET), Endpoint(0, BULK, _PACKET))
        return [Interface(8, 6, 0x50, ends)]  # mass storage, SCSI, bulk-only

    def reset(self) -> None:
        self._state = _COMMAND
        self._in.clear()
        self._tag = 0
        self._outcome = PASSED
        self._expected = 0  # bytes that the host means to move: H
        self._to_host = False
        self._moved = 0
        self._wanted = 0  # bytes that the command still takes from the host
        self._take: Callable[[memoryview], None] = _nowhere
        self._finish: Callable[[], None] = _nothing

    def control(self, setup: Setup, data: bytes) -> bytes:
        if (setup.request_type, setup.request) == (0xA1, GET_MAX_LUN) and not setup.value:
            return bytes(1)
        if (setup.request_type, setup.request) == (0x21, RESET) and not (setup.value or data):
            self.reset()
            return b""
        raise Stalled

    def ready(self, endpoint: int) -> bool:
        return endpoint == BULK_OUT or bool(self._in) or self._state == _BROKEN

    # --- towards the host -------------------------------------------------------------------------

    def send(self, endpoint: int, view: memoryview) -> Result:  # noqa: ARG002 - the shape is Function's
        if self._state == _BROKEN:
            return p.STALL, 0
        try:
            return self._in.fill(view)
        except OSError as failure:
            self._in.clear()
            self._unit.failed(scsi.sense_of(failure, writing=False))
            self._status(FAILED)
            return p.STALL, 0

    # --- from the host ----------------------------------------------------------------------------

    def receive(self, endpoint: int, view: memoryview) -> Result:  # noqa: ARG002 - the shape is Function's
        if self._state == _DATA_OUT:
            return self._data(view)
        if self._state == _COMMAND and self._is_command(view):
            return self._command(view)
        if self._state == _EXCESS:
            self._state = _COMMAND
        else:
            self._in.clear()
            self._state = _BROKEN
        return p.STALL, 0

    def cleared(self, endpoint: int) -> None:
        if endpoint == BULK_OUT and self._state == _EXCESS:
            self._state = _COMMAND

    def _is_command(self, view: memoryview) -> bool:
        if len(view) != CBW.size:
            return False
        signature, _, _, flags, unit, length, _ = CBW.unpack(view)
        return bool(
            signature == CBW_SIGNATURE and unit == 0 and 1 <= length <= 16 and not flags & 0x7F
        )

    def _command(self, view: memoryview) -> Result:
        _, self._tag, self._expected, flags, _, length, block = CBW.unpack(view)
        self._to_host = bool(flags & IN)
        self._in.clear()
        self._moved = 0
        try:
            plan = self._unit.plan(block[:length])
        except scsi.CheckCondition as refused:
            self._unit.failed(refused.sense)
            self._without_data(FAILED)
        else:
            if self._judge(plan):
                self._carry_out(plan)
            else:
                self._without_data(PHASE_ERROR)
        return p.OK, len(view)

    def _judge(self, plan: scsi.Plan) -> bool:
        """The host expects what the command means, or more of the same; else it is a phase
        error.
        """
        match plan:
            case scsi.DataIn(data):
                wanted, to_host = len(data), True
            case scsi.Read(_, length):
                wanted, to_host = length, True
            case scsi.Write(_, length, _) | scsi.Parameters(length):
                wanted, to_host = length, False
            case _:
                return True
        return not wanted or (wanted <= self._expected and to_host == self._to_host)

    def _carry_out(self, plan: scsi.Plan) -> None:
        match plan:
            case scsi.DataIn(data):
                self._answer(len(data), lambda at, view: _copy(data, at, view))
            case scsi.Read(offset, length):
                self._answer(length, lambda at, view: self._disk.read(offset + at, view))
            case scsi.Write(offset, length, fua):
                self._accept(
                    length,
                    lambda view: self._disk.write(offset + self._moved, view),
                    self._disk.flush if fua else _nothing,
                )
            case scsi.Parameters(length):
                parameters = bytearray()
                self._accept(length, parameters.extend, lambda: self._unmap(parameters))
            case scsi.Verify(offset, length):
                self._without_data(self._done(lambda: self._verify(offset, length)))
            case scsi.Flush():
                self._without_data(self._done(self._disk.flush))
            case scsi.Done():
                self._without_data(PASSED)

    # --- the data phase ---------------------------------------------------------------------------

    def _answer(self, size: int, read: Callable[[int, memoryview], None]) -> None:
        """Queue the data, what ends them early, and the status."""
        if not size:
            self._without_data(PASSED)
            return

        def send(at: int, view: memoryview) -> None:
            read(at, view)
            self._moved = at + len(view)

        self._in.put_source(size, send)
        if size < self._expected and size % _PACKET == 0:
            self._in.halt()
        self._status(PASSED)

    def _accept(
        self, size: int, take: Callable[[memoryview], None], finish: Callable[[], None]
    ) -> None:
        if not size:
            self._without_data(self._done(finish))
            return
        self._take, self._finish, self._wanted = take, finish, size
        self._state = _DATA_OUT

    def _data(self, view: memoryview) -> Result:
        """Data for the command; what is more than it takes is refused by a halt."""
        taken = view[: self._wanted]
        outcome = self._done(lambda: self._take(taken))
        if outcome == FAILED:
            self._state = _COMMAND
            self._status(FAILED)
            return p.STALL, 0
        self._moved += len(taken)
        self._wanted -= len(taken)
        if self._wanted:
            return p.OK, len(taken)
        self._status(self._done(self._finish))
        self._state = _COMMAND
        if len(taken) < len(view):
            return p.STALL, len(taken)
        if self._moved < self._expected:
            self._state = _EXCESS
        return p.OK, len(taken)

    def _without_data(self, status: int) -> None:
        """No data move for this command: the host is kept from a data phase that it means to
        have.
        """
        if self._expected and self._to_host:
            self._in.halt()
        elif self._expected:
            self._state = _EXCESS
        self._status(status)

    def _done(self, work: Callable[[], None]) -> int:
        """Do it: PASSED or FAILED, and then REQUEST SENSE knows why."""
        try:
            work()
        except OSError as failure:
            self._unit.failed(scsi.sense_of(failure, writing=True))
            return FAILED
        except scsi.CheckCondition as refused:
            self._unit.failed(refused.sense)
            return FAILED
        return PASSED

    def _unmap(self, parameters: bytearray) -> None:
        for offset, length in self._unit.unmap(bytes(parameters)):
            self._disk.discard(offset, length)

    def _verify(self, offset: int, length: int) -> None:
        scratch = memoryview(bytearray(min(length, _PIECE)))
        end = offset + length
        while offset < end:
            piece = scratch[: end - offset]
            self._disk.read(offset, piece)
            offset += len(piece)

    # --- the status -------------------------------------------------------------------------------

    def _status(self, outcome: int) -> None:
        self._outcome = outcome
        self._in.put_source(CSW.size, self._wrap)

    def _wrap(self, at: int, view: memoryview) -> None:
        """The CSW, made when it is sent: only then it is known what was moved."""
        residue = self._expected - self._moved
        status = CSW.pack(CSW_SIGNATURE, self._tag, residue, self._outcome)
        view[:] = status[at : at + len(view)]


def _nowhere(_view: memoryview) -> None:
    return None


def _nothing() -> None:
    return None


def _copy(data: bytes, at: int, view: memoryview) -> None:
    view[:] = data[at : at + len(view)]
