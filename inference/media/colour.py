"""What the numbers of a decoded frame mean: its matrix, range, transfer and primaries, by its tags or by rule."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import av
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from inference.media.icc import primaries_of_icc
from inference.media.side_data import find_side_data

# Untagged videos larger than this in either direction are HD: BT.709. Others are BT.601. The rule of mpv.
MAX_SD_WIDTH, MAX_SD_HEIGHT = 1279, 576
UNSPECIFIED = 2  # FFmpeg's number (H.273) of an untagged matrix
MIN_PEAK_NITS, DEFAULT_PEAK_NITS, MAX_PEAK_NITS = 203.0, 1000.0, 10_000.0


class LumaWeights(NamedTuple):
    """The share of red and of blue in luma; green has the rest."""

    red: float
    blue: float


class YuvMatrix(IntEnum):
    """FFmpeg's numbers (AVColorSpace, H.273) of the matrices that are distinguished here."""

    BT709 = 1
    FCC = 4
    BT601 = 6
    SMPTE240M = 7
    BT2020 = 9

    @property
    def weights(self) -> LumaWeights:
        return LUMA_WEIGHTS[self]


LUMA_WEIGHTS = {
    YuvMatrix.BT709: LumaWeights(0.2126, 0.0722),
    YuvMatrix.FCC: LumaWeights(0.30, 0.11),
    YuvMatrix.BT601: LumaWeights(0.299, 0.114),
    YuvMatrix.SMPTE240M: LumaWeights(0.212, 0.087),
    YuvMatrix.BT2020: LumaWeights(0.2627, 0.0593),
}
# BT.470 B/G is BT.601 by another name; BT.2020 of constant luminance is read as the usual one.
TAGGED_MATRICES: dict[int, YuvMatrix] = {1: YuvMatrix.BT709, 4: YuvMatrix.FCC, 5: YuvMatrix.BT601, 6: YuvMatrix.BT601}
TAGGED_MATRICES |= {7: YuvMatrix.SMPTE240M, 9: YuvMatrix.BT2020, 10: YuvMatrix.BT2020}
# From linear light of these primaries to that of BT.709, which sRGB shares; from their chromaticities and D65.
BT2020_TO_BT709 = (
    (1.660491, -0.587641, -0.072850),
    (-0.124550, 1.132900, -0.008349),
    (-0.018151, -0.100579, 1.118730),
)
DISPLAY_P3_TO_BT709 = (
    (1.224940, -0.224940, 0.0),
    (-0.042057, 1.042057, 0.0),
    (-0.019638, -0.078636, 1.098273),
)
WIDE_PRIMARIES: dict[int, tuple[tuple[float, ...], ...]] = {
    ColorPrimaries.BT2020: BT2020_TO_BT709,
    ColorPrimaries.SMPTE432: DISPLAY_P3_TO_BT709,
}
HDR_TRANSFERS: dict[int, Literal["PQ", "HLG"]] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}


BT709_PRIMARIES = int(ColorPrimaries.BT709)
# Of BT.601, in Europe and in America: so near that frames keep them, and videos are written with their tag.
SD_PRIMARIES = (int(ColorPrimaries.BT470BG), int(ColorPrimaries.SMPTE170M))


@dataclass(frozen=True)
class Colour:
    """How the numbers of a frame become light.

    matrix, is_full: of YUV only; a full range reaches 0 to 255 in 8 bits. hdr: "PQ", "HLG" or None. to_bt709: from
    linear light of its primaries to that of BT.709; None if they are those, or near. is_srgb: whether its curve is that
    of sRGB, not of video; of SDR. peak_nits: of HDR.
    """

    matrix: YuvMatrix
    is_full: bool
    hdr: Literal["PQ", "HLG"] | None = None
    to_bt709: tuple[tuple[float, ...], ...] | None = None
    is_srgb: bool = False
    peak_nits: float = DEFAULT_PEAK_NITS

    @property
    def is_plain(self) -> bool:
        """Whether it needs no conversion of light: SDR with the primaries of BT.709 or BT.601."""
        return self.hdr is None and self.to_bt709 is None


def colour_of(frame: av.VideoFrame, *, is_still: bool) -> Colour:
    """Return the colour of a frame.

    Untagged: images are BT.601, as JPEG, WebP and HEIF say; videos BT.709 if larger than SD, else BT.601; the range is
    limited, unless the pixel format is one of full range or grey.
    """
    hdr = HDR_TRANSFERS.get(frame.color_trc)
    to_bt709 = WIDE_PRIMARIES.get(frame.color_primaries)
    if hdr is not None and to_bt709 is None and frame.color_primaries == ColorPrimaries.UNSPECIFIED:
        to_bt709 = BT2020_TO_BT709  # BT.2100 has no others
    profile = find_side_data(frame, Type.ICC_PROFILE)
    if profile is not None and hdr is None:
        to_bt709 = primaries_of_icc(profile)
    return Colour(
        matrix=TAGGED_MATRICES.get(frame.colorspace) or default_matrix(frame, hdr=hdr, is_still=is_still),
        is_full=has_full_range(frame),
        hdr=hdr,
        to_bt709=to_bt709,
        is_srgb=profile is not None or frame.color_trc == ColorTrc.IEC61966_2_1,
        peak_nits=peak_of(frame) if hdr == "PQ" else DEFAULT_PEAK_NITS,
    )


def default_matrix(frame: av.VideoFrame, *, hdr: str | None, is_still: bool) -> YuvMatrix:
    if hdr is not None:
        return YuvMatrix.BT2020
    if is_still or (frame.width <= MAX_SD_WIDTH and frame.height <= MAX_SD_HEIGHT):
        return YuvMatrix.BT601
    return YuvMatrix.BT709


def is_wide(transfer: int, primaries: int) -> bool:
    """Return whether tags are those of HDR or a wide gamut."""
    return transfer in HDR_TRANSFERS or primaries in WIDE_PRIMARIES


def kept_primaries(tag: int) -> int:
    """Return the primaries of frames of a video with this tag once they are read: those of BT.709, or of BT.601."""
    return tag if tag in SD_PRIMARIES else BT709_PRIMARIES


def has_full_range(frame: av.VideoFrame) -> bool:
    if frame.color_range == ColorRange.UNSPECIFIED:
        return frame.format.name.startswith(("yuvj", "gray"))
    return bool(frame.color_range == ColorRange.JPEG)


def peak_of(frame: av.VideoFrame) -> float:
    """Return the brightest light that a frame of PQ declares, in cd/m2: of its content, or of the display it is for."""
    light = find_side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    if light is not None and len(light) >= CONTENT_LIGHT.size and (found := CONTENT_LIGHT.unpack_from(light)[0]):
        return min(max(float(found), MIN_PEAK_NITS), MAX_PEAK_NITS)
    display = find_side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    if display is not None and len(display) >= MASTERING_DISPLAY.size:
        *_, numerator, denominator, _, has_luminance = MASTERING_DISPLAY.unpack_from(display)
        if has_luminance and denominator > 0 and numerator > 0:
            return float(min(max(numerator / denominator, MIN_PEAK_NITS), MAX_PEAK_NITS))
    return DEFAULT_PEAK_NITS


# libavutil/mastering_display_metadata.h: MaxCLL and MaxFALL; eight chromaticities, the darkest and the brightest light
# as pairs of integers, and whether there are primaries and light.
CONTENT_LIGHT = struct.Struct("=2I")
MASTERING_DISPLAY = struct.Struct("=16i 2i 2i 2i")
