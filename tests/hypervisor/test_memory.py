"""Regions, mappings and the memory half of a revocation, seen from both sides."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor import GrantRevoked, Mapping, Region
from hypervisor.memory import read_memory, write_memory
from hypervisor.region import merged

PAGE = mmap.PAGESIZE


def test_both_sides_see_the_same_pages() -> None:
    region = Region(2 * PAGE)
    mapping = Mapping(region.fd, 0, region.size, readonly=False)
    region.view[:4] = b"ours"
    mapping.view[PAGE : PAGE + 6] = b"theirs"
    assert bytes(mapping.view[:4]) == b"ours"
    assert bytes(region.view[PAGE : PAGE + 6]) == b"theirs"
    mapping.close()
    region.close()


def test_a_size_is_rounded_up_to_pages_and_none_is_refused() -> None:
    region = Region(1)
    assert region.size == PAGE
    region.close()
    with pytest.raises(ValueError, match="at least 1 byte"):
        Region(0)


def test_a_mapping_of_an_unaligned_range_shows_exactly_that_range() -> None:
    region = Region(3 * PAGE)
    region.view[PAGE - 2 : PAGE + 2] = b"abcd"
    mapping = Mapping(region.fd, PAGE - 2, 4, readonly=True)
    assert bytes(mapping.view) == b"abcd"
    mapping.close()
    region.close()


def test_renew_keeps_the_named_contents_and_zeroes_the_rest_on_both_sides() -> None:
    region = Region(4 * PAGE)
    view = region.view
    mapping = Mapping(region.fd, 0, region.size, readonly=False)
    view[:] = b"x" * region.size
    region.renew(keep=[(PAGE, 10)])
    assert bytes(view[PAGE : PAGE + 10]) == b"x" * 10
    assert bytes(view[:PAGE]) == bytes(PAGE)
    assert bytes(mapping.view) == bytes(region.size)
    mapping.close()
    region.close()


def test_what_a_peer_writes_after_renew_reaches_no_one() -> None:
    region = Region(PAGE)
    mapping = Mapping(region.fd, 0, PAGE, readonly=False)
    region.renew()
    mapping.view[:4] = b"evil"
    assert bytes(region.view[:4]) == bytes(4)
    mapping.close()
    region.close()


def test_a_held_span_keeps_its_pages_until_it_is_settled() -> None:
    region = Region(4 * PAGE)
    old = Mapping(region.fd, 0, region.size, readonly=False)
    held = region.view[PAGE : 2 * PAGE]
    held[:5] = b"first"
    region.renew(held=[(PAGE, PAGE)])
    held[5:10] = b"later"  # its holder goes on writing, and loses nothing
    assert bytes(held[:10]) == b"firstlater"
    region.settle(PAGE, PAGE)
    assert bytes(held[:10]) == b"firstlater"
    new = Mapping(region.fd, 0, region.size, readonly=True)
    assert bytes(new.view[PAGE : PAGE + 10]) == b"firstlater"
    assert bytes(old.view) == bytes(region.size)
    for mapping in (old, new):
        mapping.close()
    region.close()


def test_a_span_may_stay_held_over_several_renewals() -> None:
    region = Region(4 * PAGE)
    held = region.view[PAGE : 2 * PAGE]
    held[:5] = b"first"
    for _ in range(3):
        region.renew(held=[(PAGE, PAGE)])
    region.settle(PAGE, PAGE)
    mapping = Mapping(region.fd, PAGE, 5, readonly=True)
    assert bytes(mapping.view) == b"first"
    mapping.close()
    region.close()


def test_closing_with_held_spans_leaves_nothing() -> None:
    region = Region(2 * PAGE)
    region.renew(held=[(0, PAGE)])
    region.close()
    assert bytes(region.view[:4]) == bytes(4)


def test_a_closed_region_reads_zeros_and_a_closed_mapping_raises() -> None:
    region = Region(PAGE)
    region.view[:3] = b"abc"
    mapping = Mapping(region.fd, 0, PAGE, readonly=False)
    kept = mapping.view
    mapping.close()
    mapping.close()
    assert bytes(kept[:3]) == bytes(3)
    with pytest.raises(GrantRevoked):
        _ = mapping.view
    view = region.view
    region.close()
    region.close()
    assert bytes(view[:3]) == bytes(3)
    with pytest.raises(ValueError, match="closed"):
        _ = region.fd


def test_no_peer_can_shrink_grow_or_unseal_a_region() -> None:
    region = Region(2 * PAGE)
    for size in (PAGE, 3 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(region.fd, size)
    region.close()


def test_the_kernel_refuses_a_writable_mapping_of_a_read_only_region() -> None:
    region = Region(PAGE, readonly_to_peers=True)
    region.view[:2] = b"ok"
    reopened = os.open(f"/proc/self/fd/{region.fd}", os.O_RDWR)
    for fd in (region.fd, reopened):
        with pytest.raises(PermissionError):
            mmap.mmap(fd, PAGE)
        with pytest.raises(OSError) as refused:
            os.pwrite(fd, b"no", 0)
        assert refused.value.errno == errno.EPERM
    mapping = Mapping(region.fd, 0, PAGE, readonly=True)
    assert bytes(mapping.view[:2]) == b"ok"
    with pytest.raises(TypeError):
        mapping.view[0] = 1
    os.close(reopened)
    mapping.close()
    region.close()


def test_the_peer_of_a_renewed_read_only_region_keeps_its_old_snapshot() -> None:
    region = Region(PAGE, readonly_to_peers=True)
    region.view[:3] = b"old"
    mapping = Mapping(region.fd, 0, PAGE, readonly=True)
    region.renew(keep=[(0, 3)])
    region.view[:3] = b"new"
    assert bytes(mapping.view[:3]) == b"old"
    with pytest.raises(ValueError, match="no held spans"):
        region.renew(held=[(0, PAGE)])
    mapping.close()
    region.close()


# --- parts of a region ----------------------------------------------------------------------------


def patterned(pages: int, *, readonly_to_peers: bool = False) -> Region:
    """Each page is full of its number, from 1 on."""
    region = Region(pages * PAGE, readonly_to_peers=readonly_to_peers)
    for page in range(pages):
        region.view[page * PAGE : (page + 1) * PAGE] = bytes([page + 1]) * PAGE
    return region


def pages_of(view: memoryview) -> list[int]:
    """The first byte of each page, after all others were found to be the same."""
    starts = range(0, len(view), PAGE)
    for at in starts:
        assert bytes(view[at : at + PAGE]) == bytes([view[at]]) * PAGE
    return [view[at] for at in starts]


def test_part_of_a_region_is_renewed_by_itself() -> None:
    region = patterned(6)
    old = Mapping(region.fd, 0, region.size, readonly=False)
    region.renew([(PAGE, PAGE), (3 * PAGE, 2 * PAGE)], keep=[(3 * PAGE, 2 * PAGE)])
    assert pages_of(region.view) == [1, 0, 3, 4, 5, 6]
    assert pages_of(old.view) == [1, 0, 3, 0, 0, 6]
    old.view[:] = b"\x09" * region.size
    assert pages_of(region.view) == [9, 0, 9, 4, 5, 9]
    assert [backing.size // PAGE for backing in region.backings()] == [6, 1, 2]
    with pytest.raises(ValueError, match="not in one memfd"):
        region.backing(0, 2 * PAGE)
    with pytest.raises(ValueError, match="not in one memfd"):
        _ = region.fd
    one, other = region.backing(0, PAGE), region.backing(PAGE, PAGE)
    assert region.pieces(10, PAGE) == [(one, (10, PAGE - 10)), (other, (PAGE, 10))]
    with pytest.raises(ValueError, match="not in a region"):
        region.pieces(0, region.size + 1)
    old.close()
    region.close()


def test_renewing_the_whole_puts_the_parts_together_again() -> None:
    region = patterned(4)
    mappings = []
    for page in (2, 1, 2):
        backing = region.backing(page * PAGE, PAGE)
        at = page * PAGE - backing.start
        mappings.append(Mapping(backing.fd, at, PAGE, readonly=False))
        region.renew([(page * PAGE, PAGE)], keep=[(page * PAGE, PAGE)])
    assert [mapping.view[0] for mapping in mappings] == [0, 0, 0]
    assert pages_of(region.view) == [1, 2, 3, 4]
    region.renew(keep=[(0, 3 * PAGE)])
    assert pages_of(region.view) == [1, 2, 3, 0]
    (backing,) = region.backings()
    assert (backing.fd, backing.size) == (region.fd, region.size)
    for mapping in mappings:
        mapping.close()
    region.close()


@pytest.mark.parametrize("span", [(0, 10), (10, PAGE), (-PAGE, PAGE), (0, 3 * PAGE), (0, 0)])
def test_only_whole_pages_of_the_region_are_renewed(span: tuple[int, int]) -> None:
    region = patterned(2)
    with pytest.raises(ValueError, match="whole pages"):
        region.renew([(0, PAGE), span])
    assert pages_of(region.view) == [1, 2]
    region.close()


def test_a_held_span_is_settled_across_the_pieces_of_memory_that_are_below_it_now() -> None:
    region = patterned(4)
    old = Mapping(region.fd, 0, region.size, readonly=False)
    region.renew(held=[(PAGE, 2 * PAGE)])
    region.renew([(2 * PAGE, PAGE)], held=[(PAGE, 2 * PAGE)])
    assert pages_of(region.view) == pages_of(old.view) == [0, 2, 3, 0]
    region.view[2 * PAGE : 3 * PAGE] = b"\x07" * PAGE  # its holder goes on
    region.settle(PAGE, 2 * PAGE)
    assert pages_of(region.view) == [0, 2, 7, 0]
    assert pages_of(old.view) == [0, 0, 0, 0]
    for page, content in ((1, 2), (2, 7)):
        backing = region.backing(page * PAGE, PAGE)
        now = Mapping(backing.fd, page * PAGE - backing.start, PAGE, readonly=True)
        assert pages_of(now.view) == [content]
        now.close()
    region.settle(PAGE, 2 * PAGE)
    old.close()
    region.close()


def test_a_held_span_of_one_part_stays_while_another_part_is_renewed() -> None:
    region = patterned(4)
    region.renew([(0, 2 * PAGE)], held=[(0, PAGE)])
    region.renew([(2 * PAGE, 2 * PAGE)], keep=[(2 * PAGE, PAGE)])
    assert pages_of(region.view) == [1, 0, 3, 0]
    region.settle(0, PAGE)
    assert pages_of(region.view) == [1, 0, 3, 0]
    region.close()


def test_a_peer_that_sets_flags_on_the_shared_descriptor_does_not_stop_a_settle() -> None:
    region = patterned(2)
    region.renew(held=[(0, PAGE)])
    theirs = os.dup(region.fd)
    fcntl.fcntl(theirs, fcntl.F_SETFL, os.O_APPEND)
    with pytest.raises(PermissionError):
        os.pwrite(region.fd, b"x", 0)  # to the end, where the seals are
    region.settle(0, PAGE)
    mapping = Mapping(region.fd, 0, PAGE, readonly=True)
    assert pages_of(mapping.view) == [1]
    mapping.close()
    os.close(theirs)
    region.close()


def test_memory_is_read_and_written_at_any_place() -> None:
    region = patterned(3)
    write_memory(region.fd, PAGE - 2, b"abcd")
    assert read_memory(region.fd, PAGE - 3, 6) == b"\x01abcd\x02"
    assert bytes(region.view[PAGE - 3 : PAGE + 3]) == b"\x01abcd\x02"
    region.close()


def test_all_pages_are_there_from_the_beginning_and_again_when_they_are_reserved() -> None:
    region = patterned(4)
    assert allocated(region) == 4
    region.renew([(0, PAGE), (2 * PAGE, 2 * PAGE)], keep=[(2 * PAGE, PAGE)])
    assert allocated(region) == 2  # what was not taken, and what is kept
    region.reserve()
    assert allocated(region) == 4
    assert pages_of(region.view)[1] == 2
    region.close()
    region.reserve()  # of nothing


def allocated(region: Region) -> int:
    """Pages that its memfds have."""
    seen = {os.fstat(backing.fd).st_ino: os.fstat(backing.fd) for backing in region.backings()}
    return sum(about.st_blocks for about in seen.values()) * 512 // PAGE


def none_left(_fd: int, _offset: int, _length: int) -> None:
    """In the place of posix_fallocate."""
    raise OSError(errno.ENOMEM, "no memory left")


def test_a_region_that_there_is_no_memory_for_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", none_left)
    with pytest.raises(OSError, match="no memory left"):
        Region(4 * PAGE)  # the leak check sees what becomes of it


def test_what_is_to_be_kept_is_not_lost_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    region = patterned(4)
    with mmap.mmap(region.fd, region.size) as peers:
        monkeypatch.setattr(os, "posix_fallocate", none_left)
        with pytest.raises(OSError, match="no memory left"):
            region.renew(keep=[(PAGE, 2 * PAGE)])
        assert pages_of(region.view) == pages_of(memoryview(peers)) == [1, 2, 3, 4]
        monkeypatch.undo()
        region.renew(keep=[(PAGE, 2 * PAGE)])
        assert pages_of(region.view) == [0, 2, 3, 0]
        assert peers[:] == bytes(region.size)
    region.close()


def test_memory_is_taken_back_even_if_there_is_none_for_the_fresh_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    region = patterned(4)
    with mmap.mmap(region.fd, region.size) as peers:
        monkeypatch.setattr(os, "posix_fallocate", None)
        region.renew()
        assert peers[:] == bytes(region.size)
    region.close()


def test_a_region_takes_a_sealed_memfd_over() -> None:
    given = patterned(2)
    region = Region(given.size, fd=os.dup(given.fd))
    assert pages_of(region.view) == [1, 2]
    region.view[:PAGE] = b"\x08" * PAGE
    assert pages_of(given.view) == [8, 2]
    region.renew(keep=[(0, PAGE)])
    assert pages_of(region.view) == [8, 0]
    assert pages_of(given.view) == [0, 0]
    given.close()
    region.close()


@pytest.mark.parametrize("granted", [False, True])
def test_closing_frees_what_was_granted_for_whoever_still_maps_it(granted: bool) -> None:
    region = patterned(4)
    mapping = Mapping(region.fd, 0, region.size, readonly=False)
    region.backing(0, PAGE).memory = 1 if granted else None
    region.renew([(PAGE, PAGE)], held=[(PAGE, PAGE)])
    region.renew([(2 * PAGE, PAGE)])
    region.close()
    assert pages_of(mapping.view) == ([0, 0, 0, 0] if granted else [1, 2, 0, 4])
    mapping.close()


def test_closing_a_read_only_region_leaves_its_peer_the_snapshot() -> None:
    region = patterned(1, readonly_to_peers=True)
    mapping = Mapping(region.fd, 0, PAGE, readonly=True)
    region.backing(0, PAGE).memory = 1
    region.close()
    assert pages_of(mapping.view) == [1]
    mapping.close()


def test_the_memory_of_a_region_that_is_garbage_is_nobodys() -> None:
    region = Region(PAGE)
    backing = region.backing(0, PAGE)
    assert backing.region is region
    region.close()
    del region
    assert backing.region is None


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(4, 2), (0, 2)], [(0, 2), (4, 2)]),
        ([(2, 2), (0, 2), (4, 1)], [(0, 5)]),
        ([(0, 9), (2, 3)], [(0, 9)]),
        ([(0, 3), (2, 3), (7, 1)], [(0, 5), (7, 1)]),
    ],
)
def test_spans_are_merged_where_they_touch(
    spans: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert merged(spans) == expected


@given(
    st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=4, max_size=4),
            st.sets(st.integers(0, 3)),
            st.sets(st.integers(0, 3)),
        ),
        max_size=5,
    )
)
def test_any_renewals_keep_what_is_kept_or_held_and_settle_it(
    rounds: list[tuple[list[bool], set[int], set[int]]],
) -> None:
    """Page by page: what is taken and neither kept nor held is zero, all else is as it was."""
    region = patterned(4)
    expected = [1, 2, 3, 4]
    for taken, kept, held in rounds:
        spans = [(page * PAGE, PAGE) for page, gone in enumerate(taken) if gone]
        region.renew(
            spans, [(page * PAGE, PAGE) for page in kept], [(page * PAGE, PAGE) for page in held]
        )
        for page, gone in enumerate(taken):
            if gone and page not in kept | held:
                expected[page] = 0
        assert pages_of(region.view) == expected
    region.settle(0, region.size)
    assert pages_of(region.view) == expected
    for page, content in enumerate(expected):
        backing = region.backing(page * PAGE, PAGE)
        at = page * PAGE - backing.start
        assert read_memory(backing.fd, at, PAGE) == bytes([content]) * PAGE
    region.close()
