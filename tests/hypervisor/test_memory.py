"""Regions, mappings and the memory half of a revocation, seen from both sides."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from hypervisor import GrantRevoked, Mapping, Region

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
