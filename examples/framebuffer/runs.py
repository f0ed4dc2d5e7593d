"""Runs of equal pixels, which the encodings count, sort and write. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from examples.framebuffer.pixels import Octets, Values

Numbers = npt.NDArray[np.intp]


class Runs(NamedTuple):
    """Equal pixels next to each other: what they are, where each run starts, how long it is."""

    values: Values
    starts: Numbers
    lengths: Numbers


def runs_of(flat: Values) -> Runs:
    """The runs of a row of at least one pixel."""
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return Runs(flat[starts], starts, _lengths(starts, len(flat)))


def runs_by_row(tile: Values) -> Runs:
    """The runs of a tile that end with their row at the latest."""
    breaks = np.ones(tile.shape, dtype=bool)
    np.not_equal(tile[:, 1:], tile[:, :-1], out=breaks[:, 1:])
    starts = np.flatnonzero(breaks)
    return Runs(tile.reshape(-1)[starts], starts, _lengths(starts, tile.size))


def _lengths(starts: Numbers, end: int) -> Numbers:
    """How far it is from each start to the next, and from the last one to the end."""
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = end - starts[-1]
    return lengths


def packed(indices: npt.NDArray[np.uint8], bits: int) -> bytes:
    """Rows of palette indices, so many bits each, the leftmost highest; rows are whole bytes."""
    if bits == 8:
        return indices.tobytes()
    if bits == 1:
        return np.packbits(indices, axis=1).tobytes()
    rows, width = indices.shape
    each = 8 // bits
    padded = np.zeros((rows, -(-width // each) * each), dtype=np.uint8)
    padded[:, :width] = indices
    groups = padded.reshape(rows, -1, each)
    out = groups[:, :, 0]
    for place in range(1, each):
        out = out << bits | groups[:, :, place]
    return out.astype(np.uint8).tobytes()


def joined(*columns: Octets) -> bytes:
    """Byte rows side by side, as bytes."""
    return np.concatenate(columns, axis=1).tobytes()
