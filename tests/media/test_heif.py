from __future__ import annotations

import io
import struct

import pytest

from bench.heif_files import box, full_box
from inference.media import heif
from inference.media.heif import MAX_META_BYTES, BoxReader, HeifImage, read_heif

FTYP = box(b"ftyp", b"heic", bytes(4), b"heic")
PRIMARY = full_box(b"pitm", 0, 0, struct.pack(">H", 7))
INFOS = full_box(b"iinf", 0, 0, struct.pack(">H", 1), full_box(b"infe", 2, 0, struct.pack(">HH", 7, 0), b"hvc1", b"\0"))


def read_meta(*boxes: bytes) -> HeifImage | None:
    return read_heif(io.BytesIO(FTYP + full_box(b"meta", 0, 0, *boxes)))


def test_an_image_of_one_item():
    assert read_meta(PRIMARY, INFOS) == HeifImage("hvc1", (7,))


@pytest.mark.parametrize("kind", [b"pitm", b"iinf", b"iref", b"iloc", b"iprp"])
@pytest.mark.parametrize("content", [b"\0", b"\0\0\0\0", b"\1\0\0\0\xff", bytes(4) + b"\xff" * 20])
def test_a_damaged_index_is_none(kind: bytes, content: bytes):
    inner = box(b"ipma", content) if kind == b"iprp" else content
    assert read_meta(PRIMARY, INFOS, box(kind, inner)) in (None, HeifImage("hvc1", (7,)))


@pytest.mark.parametrize("kind", [b"pitm", b"iinf", b"iref", b"iloc"])
def test_an_empty_box_of_the_index_is_damage(kind: bytes):
    assert read_meta(PRIMARY, INFOS, box(kind)) is None


def test_empty_associations_are_damage():
    assert read_meta(PRIMARY, INFOS, box(b"iprp", box(b"ipma"))) is None


def test_a_box_smaller_than_its_head_is_damage():
    assert read_meta(PRIMARY, INFOS, struct.pack(">I", 7) + b"iref") is None


def test_extents_of_no_bytes_take_no_time(monkeypatch: pytest.MonkeyPatch):
    n_numbers = 0

    class CountingReader(BoxReader):
        def number(self, n_bytes: int) -> int:
            nonlocal n_numbers
            n_numbers += 1
            return super().number(n_bytes)

    monkeypatch.setattr(heif, "BoxReader", CountingReader)
    items = b"".join(struct.pack(">HHH", number, 0, 0xFFFF) for number in range(100))
    assert read_meta(PRIMARY, INFOS, full_box(b"iloc", 0, 0, b"\0\0", struct.pack(">H", 100), items)) is not None
    assert n_numbers < 1000


def test_only_the_first_extent_counts():
    extents = struct.pack(">HHHH", 100, 8, 500, 16)
    reader = BoxReader(b"\x22\x00" + struct.pack(">H", 2) + (struct.pack(">HHH", 7, 0, 2) + extents) * 2)
    assert list(heif.read_places(0, reader)) == [(7, (0, 100, 8))] * 2


def test_an_index_is_of_limited_size():
    padding = box(b"free", bytes(MAX_META_BYTES))
    assert read_meta(PRIMARY, INFOS, padding) is None
    assert (
        read_meta(PRIMARY, INFOS, padding[:8].replace(padding[:4], struct.pack(">I", 1008)) + bytes(1000)) is not None
    )


def test_sizes_beyond_the_file_are_damage():
    whole = FTYP + full_box(b"meta", 0, 0, PRIMARY, INFOS)
    assert read_heif(io.BytesIO(whole)) is not None
    for n_bytes in range(len(whole)):
        assert read_heif(io.BytesIO(whole[:n_bytes])) is None
    huge = FTYP + struct.pack(">I", 1) + b"meta" + struct.pack(">Q", 1 << 63) + bytes(40)
    assert read_heif(io.BytesIO(huge)) is None
