"""Looks up the colours of frames in a cube, by FFmpeg's `haldclut` filter."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.reformatter import Interpolation, VideoReformatter

SAMPLES = "gbrp12le"  # of the frames that go in and come out: planar, so that FFmpeg uses vector instructions
TIME_BASE = Fraction(1, 25)  # any: each frame is looked up by itself


class ColourCube:
    """A cube of colours for frames of one size."""

    def __init__(self, width: int, height: int, cube: npt.NDArray[np.uint16]) -> None:
        """cube: a HALD image, (L^3, L^3, 3) RGB."""
        self._reformatter, self._n_frames = VideoReformatter(), 0
        self._graph = Graph()
        self._graph.threads = 1  # the sandbox allows no more
        side = cube.shape[0]
        self._source, colours = (
            self._graph.add_buffer(width=across, height=down, format=av.VideoFormat(SAMPLES), time_base=TIME_BASE)
            for across, down in ((width, height), (side, side))
        )
        lookup = self._graph.add("haldclut", interp="tetrahedral", clut="first")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(lookup, 0, 0)
        colours.link_to(lookup, 0, 1)
        lookup.link_to(self._sink)
        self._graph.configure()
        # FFmpeg 8.1 takes the planes of the cube for red, green and blue (`update_clut_planar`), those of frames for
        # green, blue and red, as they are named.
        planes = cube[..., [2, 0, 1]]
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="rgb48le")
        colours.push(with_time(image.reformat(format=SAMPLES, threads=1), 0))
        colours.push(None)

    def convert(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame in bgr24. frame: gbrp12le, of the size given."""
        self._source.push(with_time(frame, self._n_frames))
        self._n_frames += 1
        found = self._sink.pull()
        assert isinstance(found, av.VideoFrame)
        planar = self._reformatter.reformat(found, format="gbrp", interpolation=Interpolation.POINT, threads=1)
        return planar.reformat(format="bgr24", threads=1)  # in two steps: at once, it takes twice as long


def with_time(frame: av.VideoFrame, index: int) -> av.VideoFrame:
    frame.pts, frame.time_base = index, TIME_BASE
    return frame
