"""From decoded frames of any colour to BGR of BT.709 and sRGB, 8 bits."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from inference.media.colour import Colour, YuvMatrix, colour_of
from inference.media.colour_cube import SAMPLES, ColourCube
from inference.media.frames import Frame
from inference.media.media_warnings import TONE_MAPPED_HLG, TONE_MAPPED_PQ
from inference.media.tone_map import make_cube

TONE_MAPPED = {"PQ": TONE_MAPPED_PQ, "HLG": TONE_MAPPED_HLG}
COLORSPACES = {  # swscale's names
    YuvMatrix.BT709: Colorspace.ITU709,
    YuvMatrix.FCC: Colorspace.FCC,
    YuvMatrix.BT601: Colorspace.ITU601,
    YuvMatrix.SMPTE240M: Colorspace.SMPTE240M,
    YuvMatrix.BT2020: Colorspace.BT2020,
}
# FFmpeg's default, and OpenCV's: rounds down, and repeats the colours of 4:2:0. The networks were trained with it.
FAST = Interpolation.BILINEAR
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP


class ColourConverter:
    """Converts the colours of the frames of one stream."""

    def __init__(self, warnings: dict[str, None], *, is_still: bool) -> None:
        """warnings: what it had to do is added to them."""
        self._warnings = warnings
        self._is_still = is_still
        self._reformatter = VideoReformatter()
        self._cube: ColourCube | None = None
        self._cube_for: tuple[int, int, Colour] | None = None

    def to_bgr(self, frame: av.VideoFrame, width: int, height: int) -> Frame:
        """Return (height, width, 3) uint8 BGR, of sRGB."""
        colour = colour_of(frame, is_still=self._is_still)
        if colour.is_plain:
            converted = self._reformat(frame, colour, "bgr24", width, height, FAST)
        else:
            if colour.hdr is not None:
                self._warnings[TONE_MAPPED[colour.hdr]] = None
            cube = self._find_cube(width, height, colour)
            converted = cube.convert(self._reformat(frame, colour, SAMPLES, width, height, EXACT))
        return converted.to_ndarray().astype(np.uint8, copy=False)

    def _find_cube(self, width: int, height: int, colour: Colour) -> ColourCube:
        """Return the cube of the last frame if it fits this one, too."""
        wanted = width, height, colour
        if self._cube is None or wanted != self._cube_for:
            self._cube, self._cube_for = ColourCube(width, height, make_cube(colour)), wanted
        return self._cube

    def _reformat(
        self, frame: av.VideoFrame, colour: Colour, name: str, width: int, height: int, method: Interpolation
    ) -> av.VideoFrame:
        is_rgb = frame.format.is_rgb or frame.format.has_palette
        source_range = ColorRange.JPEG if colour.is_full else ColorRange.MPEG
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=name,
            src_colorspace=None if is_rgb else COLORSPACES[colour.matrix],
            dst_colorspace=None if is_rgb else COLORSPACES[colour.matrix],
            src_color_range=None if is_rgb else source_range,
            dst_color_range=ColorRange.JPEG,
            interpolation=method,
            threads=1,
        )
