"""The emulated hardware, pure: BARs, interrupts, errors, and who answers an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.pci import capabilities as caps
from examples.pci import devices, regs
from examples.pci.errors import DeviceNotFound, NotImplementedOperation, OperationFailed
from examples.pci.function import ErrorReported, Function, Model, Signal
from examples.pci.header import Bar, Identity

NETWORK, STORAGE, ROOT_PORT = 0x08, 0x100, 0x10
MODELS = list(devices.MODELS.values())


def storage() -> tuple[Function, int, int]:
    """A function with MSI of 32 and MSI-X of 33 vectors, and where they are."""
    function = Function(devices.STORAGE)
    return function, function.where[regs.CAP_MSI], function.where[regs.CAP_MSIX]


def ring(function: Function, vector: int) -> list[int]:
    """Have the device raise a vector; the vectors that are signalled."""
    at = function.where[regs.CAP_VENDOR] + caps.DOORBELL
    return [effect.vector for effect in function.write(at, 4, vector) if type(effect) is Signal]


# --- base address registers -----------------------------------------------------------------------


@given(st.booleans(), st.booleans(), st.data())
def test_a_memory_bar_of_any_size_shows_it_when_all_ones_are_written(
    wide: bool, prefetchable: bool, data: st.DataObject
) -> None:
    order = data.draw(st.integers(4, 63 if wide else 31))
    size = 1 << order
    base = data.draw(st.integers(0, (1 << (64 if wide else 32) - order) - 1)) << order
    function = Function(
        Model(Identity(1, 2, 3), {1: Bar(size, base, wide=wide, prefetchable=prefetchable)})
    )
    places = [0x14, 0x18][: 1 + wide]
    before = [function.read(at, 4) for at in places]
    assert sum(value << 32 * half for half, value in enumerate(before)) & ~0xF == base
    for at in places:
        function.write(at, 4, 0xFFFFFFFF)
    mask = sum(function.read(at, 4) << 32 * half for half, at in enumerate(places)) & ~0xF
    assert mask & -mask == size
    for at, value in zip(places, before, strict=True):
        function.write(at, 4, value)
    assert [function.read(at, 4) for at in places] == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bar(24, 0),
        lambda: Bar(8, 0),
        lambda: Bar(2, 0, io=True),
        lambda: Bar(512, 0, io=True),
        lambda: Bar(1 << 32, 0),
        lambda: Bar(4096, 2048),
        lambda: Bar(4096, 1 << 32),
        lambda: Bar(16, 0, io=True, wide=True),
        lambda: Function(Model(Identity(1, 2, 3), {5: Bar(16, 0, wide=True)})),
        lambda: Function(Model(Identity(1, 2, 3), {6: Bar(16, 0)})),
        lambda: Function(Model(Identity(1, 2, 3), {0: Bar(16, 0, wide=True), 1: Bar(16, 0)})),
    ],
)
def test_a_bar_that_cannot_be_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError):
        make()


# --- every function -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@given(st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 0xFFFFFFFF)), max_size=30))
def test_no_write_changes_who_a_function_is_or_where_its_capabilities_are(
    model: Model, program: list[tuple[int, int]]
) -> None:
    function = Function(model)
    fixed = [(0, 4), (8, 4), (0x0E, 1), (0x34, 1)]
    fixed += [(at, 2) for at in function.where.values()]
    before = [function.read(*place) for place in fixed]
    for word, value in program:
        function.write(word * 4, 4, value)
    assert [function.read(*place) for place in fixed] == before
    function.reset()
    fresh = Function(model)
    assert all(function.read(at, 4) == fresh.read(at, 4) for at in range(0, model.size, 4))


def test_a_wake_up_status_is_cleared_by_writing_one_and_nothing_else_of_its_register() -> None:
    function, _, _ = storage()
    at = function.where[regs.CAP_PM] + 4
    function.space.set(at, 2, 0x8008)
    function.write(at, 2, 0x0103)
    assert function.read(at, 2) == 0x810B
    function.write(at, 2, 0x8103)
    assert function.read(at, 2) == 0x010B


# --- interrupts -----------------------------------------------------------------------------------


def test_an_enabled_vector_is_signalled_and_no_other() -> None:
    function, at, _ = storage()
    assert ring(function, 0) == []
    function.interrupts.enable_msi(4)
    assert function.read(at + 2, 2) & 0x71 == 0x21
    assert [ring(function, vector) for vector in range(6)] == [[0], [1], [2], [3], [], []]


def test_a_masked_vector_is_pending_until_it_is_unmasked_and_is_then_delivered_once() -> None:
    function, at, _ = storage()
    function.interrupts.enable_msi(4)
    function.write(at + caps.MSI_MASK, 4, 0b0110)
    assert ring(function, 1) == ring(function, 1) == ring(function, 2) == []
    assert ring(function, 3) == [3]
    assert function.read(at + caps.MSI_PENDING, 4) == 0b0110
    assert function.write(at + caps.MSI_MASK, 4, 0b0100) == (Signal(1),)
    assert function.read(at + caps.MSI_PENDING, 4) == 0b0100
    assert function.write(at + caps.MSI_MASK, 1, 0) == (Signal(2),)
    assert function.read(at + caps.MSI_PENDING, 4) == 0
    assert function.write(at + caps.MSI_MASK, 4, 0) == ()


def test_the_function_mask_of_msix_holds_back_every_entry() -> None:
    function, _, at = storage()
    function.interrupts.enable_msix([32, 5])
    function.write(at + 2, 2, 1 << 14)
    assert function.read(at + 2, 2) == 1 << 15 | 1 << 14 | 32
    assert ring(function, 32) == ring(function, 5) == ring(function, 6) == []
    assert function.write(at + 2, 2, 0) == (Signal(5), Signal(32))
    assert function.read(at + 2, 2) == 1 << 15 | 32


def test_disabling_forgets_what_is_pending() -> None:
    function, at, _ = storage()
    function.interrupts.enable_msi(2)
    function.write(at + caps.MSI_MASK, 4, 0b11)
    ring(function, 1)
    assert not function.interrupts.disable(regs.CAP_MSIX)
    assert function.interrupts.disable(regs.CAP_MSI)
    assert not function.interrupts.disable(regs.CAP_MSI)
    assert function.read(at + caps.MSI_PENDING, 4) == 0
    assert function.read(at + 2, 2) & 0x71 == 0
    function.interrupts.enable_msi(2)
    assert function.write(at + caps.MSI_MASK, 4, 0) == ()


def test_a_write_cannot_enable_an_interrupt() -> None:
    function, msi, msix = storage()
    function.write(msi + 2, 2, 0xFFFF)
    function.write(msix + 2, 2, 0xFFFF)
    assert not function.read(msi + 2, 2) & 0x71
    assert not function.read(msix + 2, 2) & 1 << 15


@pytest.mark.parametrize("count", [0, 3, 64])
def test_a_number_of_vectors_that_msi_cannot_have_is_refused(count: int) -> None:
    function, _, _ = storage()
    with pytest.raises(OperationFailed, match="1 to 32, a power of two"):
        function.interrupts.enable_msi(count)
    function.interrupts.enable_msix([0])
    with pytest.raises(OperationFailed, match="enabled already"):
        function.interrupts.enable_msi(1)


@pytest.mark.parametrize("entries", [[], [33], [-1], [1, 1]])
def test_entries_that_an_msix_table_does_not_have_are_refused(entries: list[int]) -> None:
    function, _, at = storage()
    with pytest.raises(OperationFailed, match="an MSI-X table of 33"):
        function.interrupts.enable_msix(entries)
    assert function.interrupts.kind is None
    assert not function.read(at + 2, 2) & 1 << 15


def test_a_function_without_interrupts_says_so() -> None:
    with pytest.raises(NotImplementedOperation):
        Function(devices.HOST_BRIDGE).interrupts.enable_msi(1)
    with pytest.raises(NotImplementedOperation):
        Function(devices.NETWORK_SECOND).interrupts.enable_msix([0])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "mask", "effects", "status", "first"),
    [
        (1 << 12, 0, (ErrorReported(fatal=False),), 1 << 12, 12),
        (1 << 18, 0, (ErrorReported(fatal=True),), 1 << 18, 18),
        (1 << 18 | 1 << 12, 1 << 18, (ErrorReported(fatal=False),), 1 << 18 | 1 << 12, 12),
        (1 << 18, 1 << 18, (), 1 << 18, 18),
        (1, 0, (), 0, 0),
    ],
)
def test_an_injected_error_is_logged_and_reported_unless_it_is_masked(
    errors: int, mask: int, effects: tuple[ErrorReported, ...], status: int, first: int
) -> None:
    function, _, _ = storage()
    function.write(0x108, 4, mask)
    at = function.where[regs.CAP_VENDOR]
    assert function.write(at + caps.INJECT, 4, errors) == effects
    assert function.read(0x104, 4) == status
    assert function.read(0x118, 4) & 0x1F == first
    assert function.read(at + caps.INJECT, 4) == 0
    function.write(at + caps.INJECT, 4, 1 << 4)
    if status:
        assert function.read(0x118, 4) & 0x1F == first
    function.write(0x104, 4, 0xFFFFFFFF)
    assert function.read(0x104, 4) == 0


def test_a_function_without_aer_has_no_errors() -> None:
    function = Function(devices.NETWORK_SECOND)
    assert function.write(function.where[regs.CAP_VENDOR] + caps.INJECT, 4, 1 << 18) == ()


# --- the bus --------------------------------------------------------------------------------------


def test_every_device_answers_where_the_firmware_left_it() -> None:
    bus = devices.make_bus()
    for sbdf, model in devices.MODELS.items():
        assert bus.function(sbdf).read(2, 2) == model.identity.device


def test_nobody_answers_at_another_address() -> None:
    bus = devices.make_bus()
    for sbdf in (0x0A, 0x18, 0x101, 0x200, 0x10008, -1):
        with pytest.raises(DeviceNotFound):
            bus.function(sbdf)


def test_what_is_behind_a_bridge_answers_to_the_number_that_the_bridge_has_now() -> None:
    bus = devices.make_bus()
    bus.function(ROOT_PORT).write(regs.SECONDARY_BUS, 1, 7)
    assert bus.function(0x700).model is devices.STORAGE
    with pytest.raises(DeviceNotFound):
        bus.function(STORAGE)
    bus.function(ROOT_PORT).write(regs.SECONDARY_BUS, 1, 0)
    assert bus.function(0x00).model is devices.HOST_BRIDGE
