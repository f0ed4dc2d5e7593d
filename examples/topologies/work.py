"""What is done with the notes: each writes some, and finds all of them again."""

from __future__ import annotations

from transport import FrontEnd

NOTES = 8


def write_and_read(notes: FrontEnd, first: int = 0) -> None:
    """``first``: the number of the first note; others' are not touched."""
    written = {first + number: f"note {number}" for number in range(NOTES)}
    for number, text in written.items():
        answer = notes.call([number, text])
        assert answer == text, f"note {number} is {answer!r}"
    for number, text in written.items():
        found = notes.call([number, None])
        assert found == text, f"note {number} was lost: there is {found!r}"


def left(notes: FrontEnd) -> None:
    """One of two that share the notes."""
    write_and_read(notes)


def right(notes: FrontEnd) -> None:
    """The other one."""
    write_and_read(notes, NOTES)


def through_all(*stages: FrontEnd) -> None:
    """Each stage gets its notes, from the lowest to the highest."""
    for stage in stages:
        write_and_read(stage)
