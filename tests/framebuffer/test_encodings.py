"""Every encoding, in every kind of pixel format, gives exactly the pixels that there are."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.framebuffer.cursor import cursor_rectangle
from examples.framebuffer.encodings import KNOWN, Encoders, chosen
from examples.framebuffer.pixels import NATIVE, Converter, PixelFormat
from tests.framebuffer import decoding
from tests.framebuffer.decoding import Decoder, Format, reader

Grid = npt.NDArray[np.uint32]

FORMATS = {
    "native": Format(),
    "bgr": Format(shifts=(0, 8, 16)),
    "big-endian": Format(big=True),
    "high bytes": Format(shifts=(24, 16, 8)),
    "high bytes, big-endian": Format(shifts=(24, 16, 8), big=True),
    "spread": Format(depth=32, shifts=(24, 12, 0)),
    "30 bits": Format(depth=30, tops=(1023, 1023, 1023), shifts=(20, 10, 0)),
    "depth 16 in 32": Format(depth=16, tops=(31, 63, 31), shifts=(11, 5, 0)),
    "rgb565": Format(16, 16, tops=(31, 63, 31), shifts=(11, 5, 0)),
    "rgb565, big-endian": Format(16, 16, big=True, tops=(31, 63, 31), shifts=(11, 5, 0)),
    "bgr233": Format(8, 8, tops=(7, 7, 3), shifts=(0, 3, 6)),
    "odd maxima": Format(8, 8, tops=(5, 6, 2), shifts=(5, 2, 0)),
    "grey-blind": Format(16, 12, tops=(15, 0, 15), shifts=(8, 4, 0)),
}


def noise(height: int, width: int, colours: int, seed: int = 1) -> Grid:
    """Pixels of at most so many different colours."""
    random = np.random.default_rng(seed)
    palette = random.integers(0, 1 << 24, colours, dtype=np.uint32)
    return palette[random.integers(0, colours, (height, width))]


def stripes(height: int, width: int, colours: int) -> Grid:
    """Long runs, which do not end with the rows."""
    flat = noise(1, max(height * width // 300, 1), colours)[0].repeat(307)
    return np.resize(flat, (height, width)).astype(np.uint32)


def three_tiles() -> Grid:
    """Two colours, then four, then the two of the first again: what does a viewer remember?"""
    tiles = np.full((16, 48), 5, dtype=np.uint32)
    tiles[3, 3:6] = tiles[3, 35:38] = 6
    tiles[3, 18:21] = [6, 7, 8]
    return tiles


PICTURES = {
    "three tiles": three_tiles(),
    "eleven bytes": noise(11, 8, 2),
    "twelve bytes": noise(12, 8, 2),
    "one pixel": noise(1, 1, 1),
    "solid": noise(70, 130, 1),
    "two colours": noise(65, 131, 2),
    "two colours, few": stripes(65, 131, 2),
    "three": noise(33, 65, 3),
    "four": noise(17, 7, 4),
    "sixteen": noise(64, 64, 16),
    "seventeen": stripes(64, 64, 17),
    "a hundred": stripes(100, 100, 100),
    "127 and long": stripes(128, 300, 127),
    "256": noise(60, 60, 256),
    "noise": noise(129, 70, 1 << 20),
    "a column": noise(100, 1, 3),
    "a row": noise(1, 100, 3),
    "mostly one": np.where(noise(48, 48, 20) % 7 == 0, np.uint32(0xFF00FF), np.uint32(0x102030)),
}


def decoded(encoding: int, ours: Grid, wanted: Format, encoders: Encoders, to: Decoder) -> Grid:
    """What a viewer has after one rectangle; nothing may be left over."""
    converter = Converter(PixelFormat.parse(wanted.pack()))
    body = encoders.encode(encoding, ours, converter)
    height, width = ours.shape
    read = reader(struct.pack(">HHHHi", 0, 0, width, height, encoding) + body)
    to.rectangle(read)
    assert read.empty
    return to.picture[:height, :width]


@pytest.mark.parametrize("encoding", KNOWN)
@pytest.mark.parametrize("name", FORMATS)
def test_a_viewer_has_exactly_the_pixels(encoding: int, name: str) -> None:
    """All pictures go through the same zlib streams, one after the other."""
    wanted, encoders, viewer = FORMATS[name], Encoders(), Decoder(300, 300, FORMATS[name])
    for what, picture in PICTURES.items():
        got = decoded(encoding, picture, wanted, encoders, viewer)
        assert np.array_equal(got, wanted.of(picture)), what


@given(
    encoding=st.sampled_from(KNOWN),
    height=st.integers(1, 70),
    width=st.integers(1, 140),
    colours=st.sampled_from([1, 2, 3, 5, 16, 17, 127, 128, 300]),
    runs=st.integers(1, 600),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150)
def test_any_picture_is_exact(
    encoding: int, height: int, width: int, colours: int, runs: int, seed: int
) -> None:
    flat = noise(1, height * width // runs + 1, colours, seed)[0].repeat(runs)
    picture = flat[: height * width].reshape(height, width)
    got = decoded(encoding, picture, Format(), Encoders(), Decoder(width, height))
    assert np.array_equal(got, picture)


@pytest.mark.parametrize(("encoding", "most"), [(5, 4000), (7, 600), (16, 600), (6, 3000)], ids=str)
def test_what_is_simple_becomes_short(encoding: int, most: int) -> None:
    picture = np.full((64, 1280), 0x204060, dtype=np.uint32)
    picture[10:12, 100:900] = 0xFFFFFF
    body = Encoders().encode(encoding, picture, Converter(NATIVE))
    assert len(body) < most


@pytest.mark.parametrize("encoding", [5, 16])
def test_what_is_not_simple_becomes_little_longer_than_raw(encoding: int) -> None:
    picture = noise(64, 1280, 1 << 23)
    raw = picture.size * 4
    assert len(Encoders().encode(encoding, picture, Converter(NATIVE))) < raw * 1.01


def test_the_first_encoding_that_we_have_is_chosen() -> None:
    assert chosen([-239, 21, 5, 16]) == 5
    assert chosen([16, 5]) == 16
    assert chosen([1, -223]) == 0
    assert chosen([]) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_the_cursor_is_a_rectangle_that_a_viewer_understands(name: str) -> None:
    viewer = Decoder(1, 1, FORMATS[name])
    read = reader(cursor_rectangle(Converter(PixelFormat.parse(FORMATS[name].pack()))))
    viewer.rectangle(read)
    assert read.empty
    assert viewer.seen == [decoding.CURSOR]
    assert viewer.cursor == (11, 14)
