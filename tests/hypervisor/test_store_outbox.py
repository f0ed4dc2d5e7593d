"""Events that wait for a domain: none is lost, a batch is out at a time, what waits is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.store_outbox import WAITING_MAX, Outbox

EVENTS = st.tuples(st.sampled_from(["/a", "/b", "/" + "c" * 3000]), st.sampled_from([b"1", b"2"]))


def test_one_batch_is_out_at_a_time() -> None:
    outbox = Outbox()
    assert outbox.batch() == []
    outbox.put(("/a", b"1"))
    assert outbox.batch() == [("/a", b"1")]
    outbox.put(("/a", b"1"))  # the other one is on its way and may have been looked at already
    outbox.put(("/b", b"1"))
    assert outbox.batch() == []
    outbox.taken()
    assert outbox.batch() == [("/a", b"1"), ("/b", b"1")]
    outbox.taken()
    assert outbox.batch() == []


def test_a_batch_fits_into_a_socket() -> None:
    outbox = Outbox()
    events = [(f"/{number}{'x' * 3000}", b"t" * 1000) for number in range(50)]
    for event in events:
        assert outbox.put(event)
    sent = []
    while batch := outbox.batch():
        assert sum(len(path) + len(token) for path, token in batch) < 24 << 10
        sent += batch
        outbox.taken()
    assert sent == events


def test_what_waits_is_bounded_and_equal_ones_cost_nothing() -> None:
    outbox = Outbox()
    size = 1 << 10
    for number in range(WAITING_MAX // size - 32):
        for _ in range(2):
            assert outbox.put((f"/{number:06}", b"t" * (size - 7)))
    assert not all(outbox.put((f"/more{number}", b"t" * size)) for number in range(64))


def test_what_has_left_waits_no_more() -> None:
    outbox = Outbox()
    for number in range(3 * WAITING_MAX // 1000):
        assert outbox.put((f"/{number}", b"t" * 1000))
        assert outbox.batch() == [(f"/{number}", b"t" * 1000)]
        outbox.taken()


@given(st.lists(EVENTS | st.none()))
def test_every_event_is_sent_after_it_was_put(steps: list[tuple[str, bytes] | None]) -> None:
    outbox, due = Outbox(), dict[tuple[str, bytes], None]()
    for event in steps:
        if event is not None:
            assert outbox.put(event)
            due[event] = None
        else:
            outbox.taken()
        for sent in outbox.batch():
            assert next(iter(due)) == sent  # in order
            del due[sent]
    outbox.taken()
    while batch := outbox.batch():
        for sent in batch:
            del due[sent]
        outbox.taken()
    assert not due
