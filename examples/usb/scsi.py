"""A SCSI disk: what each command means, judged before anything is done. Pure.

`LogicalUnit.plan` turns a command block into a value that says what is to be done (`DataIn`,
`Read`, `Write`, ...), or raises `CheckCondition`; it does no I/O. The bulk-only transport
(mass_storage.py) carries plans out on a `Disk`. Rules:

1. Everything that can be refused is refused here: an unknown command or field, a range past the
   end, a write to what is read-only. What is planned can fail by the disk's own errors only.
2. The sense data of the last command that failed are kept until REQUEST SENSE has told them, or
   another command has begun.
3. The medium is always there: START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL are accepted, and a
   stop only flushes.

Corner cases: a transfer of no blocks is no error, except that READ(6) and WRITE(6) mean 256 by 0. A
disk of 2**32 blocks or more says so by READ CAPACITY(10) = 0xFFFFFFFF. Writes are cached (WCE), FUA
and SYNCHRONIZE CACHE reach the medium.

Specifications: SPC-4 (INQUIRY, MODE SENSE, sense data, REPORT LUNS), SBC-3 (the rest; UNMAP 5.28,
VPD pages B0h 6.5.3 and B2h 6.5.4).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct, error, pack, unpack_from
from typing import ClassVar, Final, Protocol

BLOCK: Final = 512  # bytes

# --- commands, SPC-4 and SBC-3 --------------------------------------------------------------------

TEST_UNIT_READY: Final = 0x00
REQUEST_SENSE: Final = 0x03
READ_6: Final = 0x08
WRITE_6: Final = 0x0A
INQUIRY: Final = 0x12
MODE_SENSE_6: Final = 0x1A
START_STOP_UNIT: Final = 0x1B
PREVENT_ALLOW_MEDIUM_REMOVAL: Final = 0x1E
READ_CAPACITY_10: Final = 0x25
READ_10: Final = 0x28
WRITE_10: Final = 0x2A
VERIFY_10: Final = 0x2F
SYNCHRONIZE_CACHE_10: Final = 0x35
UNMAP: Final = 0x42
MODE_SENSE_10: Final = 0x5A
READ_16: Final = 0x88
WRITE_16: Final = 0x8A
SYNCHRONIZE_CACHE_16: Final = 0x91
SERVICE_ACTION_IN_16: Final = 0x9E
REPORT_LUNS: Final = 0xA0
READ_12: Final = 0xA8
WRITE_12: Final = 0xAA

READ_CAPACITY_16: Final = 0x10  # service action of SERVICE_ACTION_IN_16

# --- sense: key, additional code and qualifier ----------------------------------------------------

Sense = tuple[int, int, int]

NO_SENSE: Final[Sense] = (0x0, 0x00, 0x00)
WRITE_ERROR: Final[Sense] = (0x3, 0x0C, 0x00)
UNRECOVERED_READ_ERROR: Final[Sense] = (0x3, 0x11, 0x00)
INTERNAL_TARGET_FAILURE: Final[Sense] = (0x4, 0x44, 0x00)
PARAMETER_LIST_LENGTH_ERROR: Final[Sense] = (0x5, 0x1A, 0x00)
INVALID_COMMAND: Final[Sense] = (0x5, 0x20, 0x00)
LBA_OUT_OF_RANGE: Final[Sense] = (0x5, 0x21, 0x00)
INVALID_FIELD: Final[Sense] = (0x5, 0x24, 0x00)
WRITE_PROTECTED: Final[Sense] = (0x7, 0x27, 0x00)
SPACE_ALLOCATION_FAILED: Final[Sense] = (0x7, 0x27, 0x07)

_UNMAP_DESCRIPTORS: Final = 256
_UNMAP_BLOCKS: Final = 0xFFFFFFFF
_CACHING_PAGE: Final = bytes((0x08, 18, 1 << 2)) + bytes(17)  # write cache enabled
_CONTROL_PAGE: Final = bytes((0x0A, 10)) + bytes(10)
_PAGES: Final = {0x08: _CACHING_PAGE, 0x0A: _CONTROL_PAGE, 0x3F: _CACHING_PAGE + _CONTROL_PAGE}


class CheckCondition(Exception):
    """The command ends with CHECK CONDITION; ``sense`` says why."""

    def __init__(self, sense: Sense) -> None:
        super().__init__("sense {:x}h, {:02x}h/{:02x}h".format(*sense))
        self.sense = sense


class Disk(Protocol):
    """The medium. Offsets and lengths are in bytes; errors are OSError."""

    @property
    def size(self) -> int:
        """A multiple of `BLOCK`."""

    @property
    def read_only(self) -> bool:
        """Writes are refused."""

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""

    def write(self, offset: int, view: memoryview) -> None:
        """Write ``view``; it may stay in a cache."""

    def flush(self) -> None:
        """Bring everything written to the medium."""

    def discard(self, offset: int, length: int) -> None:
        """The range is not needed any more: a hint. It reads as anything afterwards."""


# --- plans ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataIn:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True)
class Read:
    """Send ``length`` bytes of the disk."""

    offset: int
    length: int


@dataclass(frozen=True)
class Write:
    """Receive ``length`` bytes for the disk; with ``fua`` flush behind them."""

    offset: int
    length: int
    fua: bool


@dataclass(frozen=True)
class Parameters:
    """Receive ``length`` bytes, which are for `LogicalUnit.unmap`."""

    length: int


@dataclass(frozen=True)
class Verify:
    """Read the range and say whether that went well."""

    offset: int
    length: int


@dataclass(frozen=True)
class Flush:
    """Bring everything to the medium."""


@dataclass(frozen=True)
class Done:
    """Nothing is to be done."""


Plan = DataIn | Read | Write | Parameters | Verify | Flush | Done


class LogicalUnit:
    """Judges the commands for ``disk``, whose serial number is ``serial`` (ASCII)."""

    def __init__(
        self, disk: Disk, serial: str, *, vendor: str = "xenidc", product: str = "disk"
    ) -> None:
        self._disk = disk
        self._serial = serial.encode("ascii")
        self._vendor = vendor.encode("ascii").ljust(8)[:8]
        self._product = product.encode("ascii").ljust(16)[:16]
        self._sense = NO_SENSE

    def failed(self, sense: Sense) -> None:
        """The command has failed; REQUEST SENSE will say why."""
        self._sense = sense

    def plan(self, cdb: bytes) -> Plan:
        """What the command block wants.

        Raises:
            CheckCondition: it is refused.
        """
        planner = self._planners.get(cdb[0]) if cdb else None
        if planner is None:
            raise CheckCondition(INVALID_COMMAND)
        if cdb[0] != REQUEST_SENSE:
            self._sense = NO_SENSE
        try:
            return planner(self, cdb)
        except (error, IndexError):  # shorter than this command is
            raise CheckCondition(INVALID_FIELD) from None

    def unmap(self, parameters: bytes) -> list[tuple[int, int]]:
        """The ranges, offset and length in bytes, that the parameter list of an UNMAP names.

        Raises:
            CheckCondition: it is not valid. Nothing is to be discarded then.
        """
        if not parameters:
            return []
        if len(parameters) < 8:
            raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
        (length,) = unpack_from(">H", parameters, 2)
        length = min(length, len(parameters) - 8)
        ranges = [unpack_from(">QI", parameters, at) for at in range(8, 8 + length - 15, 16)]
        if len(ranges) > _UNMAP_DESCRIPTORS:
            raise CheckCondition(INVALID_FIELD)
        return [self._range(lba, blocks) for lba, blocks in ranges if blocks]

    # --- planners ---------------------------------------------------------------------------------

    def _done(self, _cdb: bytes) -> Plan:
        return Done()

    def _flush(self, _cdb: bytes) -> Plan:
        return Flush()

    def _start_stop(self, cdb: bytes) -> Plan:
        return Done() if cdb[4] & 1 else Flush()

    def _request_sense(self, cdb: bytes) -> Plan:
        key, code, qualifier = self._sense
        self._sense = NO_SENSE
        data = pack(">BBBIBIBBBBH", 0x70, 0, key, 0, 10, 0, code, qualifier, 0, 0, 0)
        return DataIn(data[: cdb[4]])

    def _inquiry(self, cdb: bytes) -> Plan:
        vital, page = cdb[1] & 1, cdb[2]
        (allocated,) = unpack_from(">H", cdb, 3)
        if vital:
            return DataIn(self._vital_product_data(page)[:allocated])
        if page:
            raise CheckCondition(INVALID_FIELD)
        # direct access, fixed; SPC-4; response format 2; command queuing not said
        data = bytes((0, 0, 6, 2, 31, 0, 0, 0)) + self._vendor + self._product + b"1.0 "
        return DataIn(data[:allocated])

    def _vital_product_data(self, page: int) -> bytes:
        match page:
            case 0x00:
                body = bytes((0x00, 0x80, 0x83, 0xB0, 0xB2))
            case 0x80:
                body = self._serial
            case 0x83:  # one designator: of the unit, T10 vendor ID, ASCII
                name = self._vendor + self._product + self._serial
                body = bytes((2, 1, 0, len(name))) + name
            case 0xB0:  # block limits; no limit of a transfer is said
                body = pack(">BBHIIIII", 0, 0, 0, 0, 0, 0, _UNMAP_BLOCKS, _UNMAP_DESCRIPTORS).ljust(
                    60, b"\0"
                )
            case 0xB2:  # logical block provisioning: thin, UNMAP, nothing said of what is read then
                body = bytes((0, 0x80, 2, 0))
            case _:
                raise CheckCondition(INVALID_FIELD)
        return pack(">BBH", 0, page, len(body)) + body

    def _mode_sense_6(self, cdb: bytes) -> Plan:
        pages = self._mode_pages(cdb)
        data = bytes((3 + len(pages), 0, self._device_specific(), 0)) + pages
        return DataIn(data[: cdb[4]])

    def _mode_sense_10(self, cdb: bytes) -> Plan:
        pages = self._mode_pages(cdb)
        (allocated,) = unpack_from(">H", cdb, 7)
        data = pack(">HBBIB", 6 + len(pages), 0, self._device_specific(), 0, 0)[:8] + pages
        return DataIn(data[:allocated])

    def _mode_pages(self, cdb: bytes) -> bytes:
        control, page, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
        pages = _PAGES.get(page)
        if pages is None or subpage not in (0, 0xFF) or control == 3:  # 3: saved values
            raise CheckCondition(INVALID_FIELD)
        if control != 1:
            return pages
        # Which bits may be changed: none.
        heads = [_CACHING_PAGE, _CONTROL_PAGE] if page == 0x3F else [pages]
        return b"".join(one[:2] + bytes(len(one) - 2) for one in heads)

    def _device_specific(self) -> int:
        return 0x10 | (0x80 if self._disk.read_only else 0)  # DPO and FUA are known; WP

    def _read_capacity_10(self, _cdb: bytes) -> Plan:
        last = min(self._disk.size // BLOCK - 1, 0xFFFFFFFF)
        return DataIn(pack(">II", last, BLOCK))

    def _service_action_in(self, cdb: bytes) -> Plan:
        if cdb[1] & 0x1F != READ_CAPACITY_16:
            raise CheckCondition(INVALID_FIELD)
        (allocated,) = unpack_from(">I", cdb, 10)
        provisioned = 0 if self._disk.read_only else 0x8000  # LBPME
        data = pack(">QIBBH", self._disk.size // BLOCK - 1, BLOCK, 0, 0, provisioned)
        return DataIn(data.ljust(32, b"\0")[:allocated])

    def _report_luns(self, cdb: bytes) -> Plan:
        (allocated,) = unpack_from(">I", cdb, 6)
        return DataIn(pack(">IIQ", 8, 0, 0)[:allocated])

    def _read(self, cdb: bytes) -> Plan:
        lba, blocks, _ = _extent(cdb)
        return Read(*self._range(lba, blocks))

    def _write(self, cdb: bytes) -> Plan:
        lba, blocks, fua = _extent(cdb)
        self._refuse_if_read_only()
        return Write(*self._range(lba, blocks), fua)

    def _verify(self, cdb: bytes) -> Plan:
        if cdb[1] & 0x06:  # BYTCHK: comparing with data from the host
            raise CheckCondition(INVALID_FIELD)
        lba, blocks, _ = _extent(cdb)
        return Verify(*self._range(lba, blocks))

    def _unmap(self, cdb: bytes) -> Plan:
        if cdb[1] & 1:  # ANCHOR
            raise CheckCondition(INVALID_FIELD)
        (length,) = unpack_from(">H", cdb, 7)
        self._refuse_if_read_only()
        return Parameters(length)

    def _refuse_if_read_only(self) -> None:
        if self._disk.read_only:
            raise CheckCondition(WRITE_PROTECTED)

    def _range(self, lba: int, blocks: int) -> tuple[int, int]:
        if lba + blocks > self._disk.size // BLOCK:
            raise CheckCondition(LBA_OUT_OF_RANGE)
        return lba * BLOCK, blocks * BLOCK

    _planners: ClassVar[dict[int, Callable[[LogicalUnit, bytes], Plan]]] = {
        TEST_UNIT_READY: _done,
        REQUEST_SENSE: _request_sense,
        READ_6: _read,
        WRITE_6: _write,
        INQUIRY: _inquiry,
        MODE_SENSE_6: _mode_sense_6,
        START_STOP_UNIT: _start_stop,
        PREVENT_ALLOW_MEDIUM_REMOVAL: _done,
        READ_CAPACITY_10: _read_capacity_10,
        READ_10: _read,
        WRITE_10: _write,
        VERIFY_10: _verify,
        SYNCHRONIZE_CACHE_10: _flush,
        UNMAP: _unmap,
        MODE_SENSE_10: _mode_sense_10,
        READ_16: _read,
        WRITE_16: _write,
        SYNCHRONIZE_CACHE_16: _flush,
        SERVICE_ACTION_IN_16: _service_action_in,
        REPORT_LUNS: _report_luns,
        READ_12: _read,
        WRITE_12: _write,
    }


def sense_of(failure: OSError, *, writing: bool) -> Sense:
    """What a disk's error is called in SCSI."""
    match failure.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return SPACE_ALLOCATION_FAILED
        case errno.EROFS | errno.EPERM | errno.EACCES:
            return WRITE_PROTECTED
        case errno.EIO:
            return WRITE_ERROR if writing else UNRECOVERED_READ_ERROR
    return INTERNAL_TARGET_FAILURE


_EXTENT_10: Final = Struct(">xBIxHx")
_EXTENT_12: Final = Struct(">xBIIxx")
_EXTENT_16: Final = Struct(">xBQIxx")


def _extent(cdb: bytes) -> tuple[int, int, bool]:
    """First block, number of blocks, and FUA; where they stand depends on the command's group."""
    group = cdb[0] >> 5
    if group == 0:
        lba = int.from_bytes(cdb[1:4], "big") & 0x1FFFFF
        return lba, cdb[4] or 256, False
    layout = {1: _EXTENT_10, 4: _EXTENT_16, 5: _EXTENT_12}[group]
    flags, lba, blocks = layout.unpack_from(cdb)
    return lba, blocks, bool(flags & 0x08)
