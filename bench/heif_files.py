"""HEIC and AVIF images, box by box as ISO/IEC 23008-12 says: FFmpeg only writes AVIF of one tile."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange

Frame = npt.NDArray[np.uint8]
Reference = tuple[bytes, int, list[int]]  # type, from an item, to items
QUIET = "log-level=none:pools=none:frame-threads=1:bframes=0"
ENCODERS = {
    "heic": ("libx265", {"x265-params": QUIET, "crf": "8"}),
    "avif": ("libsvtav1", {"crf": "10", "preset": "10", "svtav1-params": "lp=1"}),
}
ITEM_TYPES = {"heic": (b"hvc1", b"hvcC"), "avif": (b"av01", b"av1C")}


@dataclass(frozen=True)
class Item:
    """An item of a HEIF file. construction: 0 if its content is in `mdat`, 1 if in `idat`."""

    number: int
    kind: bytes
    content: bytes
    properties: tuple[bytes, ...]
    construction: int = 0
    is_hidden: bool = False


def make_heif_grid(
    image: Frame,
    tile: int = 64,
    *,
    brand: str = "heic",
    quarter_turns: int | None = None,
    mirror_axis: int | None = None,
    thumbnail: bool = True,
    alpha: npt.NDArray[np.uint8] | None = None,
) -> bytes:
    """Encode a BGR image as a grid of square tiles, as phones do: the last ones reach beyond the image.

    quarter_turns: counter-clockwise (irot). mirror_axis: 0 swaps top and bottom, 1 left and right (imir). With a
    thumbnail, as the first stream. alpha: (H, W), stored as an image of its own.
    """
    items, references = grid_items(100, image, tile, brand, turns(quarter_turns, mirror_axis))
    primary = items[-1].number
    if thumbnail:
        items.insert(0, coded_item(2, np.ascontiguousarray(image[:64, :64]), brand))
        references.append((b"thmb", 2, [primary]))
    if alpha is not None:
        planes, links = grid_items(400, as_bgr(alpha), tile, brand, (AUXILIARY_ALPHA,))
        items += planes
        references += [*links, (b"auxl", planes[-1].number, [primary])]
    return pack_heif(items, primary, references, brand)


def grid_items(
    first: int, image: Frame, tile: int, brand: str, properties: tuple[bytes, ...]
) -> tuple[list[Item], list[Reference]]:
    """Return the items of a grid, itself as the last, and the reference to its tiles. first: number of the first."""
    height, width = image.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.pad(image, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), "edge")
    corners = [(row * tile, column * tile) for row in range(rows) for column in range(columns)]
    tiles = [
        coded_item(first + i, padded[top : top + tile, left : left + tile], brand, is_hidden=True)
        for i, (top, left) in enumerate(corners)
    ]
    payload = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    grid = Item(first + len(tiles), b"grid", payload, (ispe(width, height), *properties), 1)
    return [*tiles, grid], [(b"dimg", grid.number, [one.number for one in tiles])]


def make_heif_image(
    image: Frame,
    *,
    brand: str = "heic",
    quarter_turns: int | None = None,
    mirror_axis: int | None = None,
    alpha: npt.NDArray[np.uint8] | None = None,
) -> bytes:
    """Encode a BGR image as one coded item. alpha: (H, W), as another."""
    items = [coded_item(1, image, brand, turns(quarter_turns, mirror_axis))]
    if alpha is None:
        return pack_heif(items, 1, [], brand)
    items.append(coded_item(2, as_bgr(alpha), brand, (AUXILIARY_ALPHA,)))
    return pack_heif(items, 1, [(b"auxl", 2, [1])], brand)


def as_bgr(grey: npt.NDArray[np.uint8]) -> Frame:
    return np.repeat(grey[..., None], 3, axis=2)


def coded_item(
    number: int, image: Frame, brand: str, extra: tuple[bytes, ...] = (), *, is_hidden: bool = False
) -> Item:
    kind, configuration = ITEM_TYPES[brand]
    mp4, packet = encode_intra(image, brand)
    at = mp4.index(configuration) - 4
    box_of_codec = mp4[at : at + int.from_bytes(mp4[at : at + 4], "big")]
    height, width = image.shape[:2]
    return Item(number, kind, packet, (box_of_codec, ispe(width, height), *extra), is_hidden=is_hidden)


def encode_intra(image: Frame, brand: str) -> tuple[bytes, bytes]:
    """Return an MP4 of one frame, and the packet in it."""
    codec, options = ENCODERS[brand]
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = cast("av.VideoStream", out.add_stream(codec, rate=25, options=options))
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = ColorRange.JPEG  # as phones write, and as alpha has to be
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame = frame.reformat(format="yuv420p", dst_color_range=ColorRange.JPEG)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with av.open(io.BytesIO(buffer.getvalue()), "r") as container:
        return buffer.getvalue(), bytes(next(container.demux(video=0)))


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full_box(kind: bytes, version: int, flags: int, *contents: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *contents)


def ispe(width: int, height: int) -> bytes:
    return full_box(b"ispe", 0, 0, struct.pack(">II", width, height))


AUXILIARY_ALPHA = full_box(b"auxC", 0, 0, b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")


def turns(quarter_turns: int | None, mirror_axis: int | None) -> tuple[bytes, ...]:
    rotation = () if quarter_turns is None else (box(b"irot", bytes([quarter_turns])),)
    return rotation if mirror_axis is None else (*rotation, box(b"imir", bytes([mirror_axis])))


def pack_heif(items: Sequence[Item], primary: int, references: list[Reference], brand: str) -> bytes:
    ftyp = box(b"ftyp", brand.encode(), bytes(4), b"mif1", brand.encode(), b"miaf")
    idat = b"".join(item.content for item in items if item.construction == 1)
    media = b"".join(item.content for item in items if item.construction == 0)
    n_before = len(ftyp) + len(pack_meta(items, primary, references, idat, 0)) + 8
    return ftyp + pack_meta(items, primary, references, idat, n_before) + box(b"mdat", media)


def pack_meta(items: Sequence[Item], primary: int, references: list[Reference], idat: bytes, media_at: int) -> bytes:
    infos = [
        full_box(b"infe", 2, int(item.is_hidden), struct.pack(">HH", item.number, 0), item.kind, b"\0")
        for item in items
    ]
    properties = list(dict.fromkeys(one for item in items for one in item.properties))
    associations = b"".join(
        struct.pack(">HB", item.number, len(item.properties))
        + bytes(0x80 | properties.index(one) + 1 for one in item.properties)
        for item in items
    )
    offsets = {0: media_at, 1: 0}
    locations = b""
    for item in items:
        locations += struct.pack(
            ">HHHHII", item.number, item.construction, 0, 1, offsets[item.construction], len(item.content)
        )
        offsets[item.construction] += len(item.content)
    linked = [box(kind, struct.pack(f">HH{len(to)}H", from_item, len(to), *to)) for kind, from_item, to in references]
    return full_box(
        b"meta",
        0,
        0,
        full_box(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
        full_box(b"pitm", 0, 0, struct.pack(">H", primary)),
        full_box(b"iinf", 0, 0, struct.pack(">H", len(infos)), *infos),
        *([full_box(b"iref", 0, 0, *linked)] if linked else []),
        box(
            b"iprp",
            box(b"ipco", *properties),
            full_box(b"ipma", 0, 0, struct.pack(">I", len(items)), associations),
        ),
        full_box(b"iloc", 1, 0, bytes([0x44, 0x00]), struct.pack(">H", len(items)), locations),
        *([box(b"idat", idat)] if idat else []),
    )
