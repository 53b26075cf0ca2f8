"""Deinterlacing: each frame of two fields becomes one frame without combs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
import av.error
import av.filter
from av.filter import Graph

from inference.media.media_warnings import INTERLACED
from inference.media.timeline import rate_of

# One frame out for each in, and only frames marked as interlaced are changed.
BWDIF_OPTIONS = {"mode": "send_frame", "parity": "auto", "deint": "interlaced"}


class Deinterlacer:
    """Deinterlaces with FFmpeg's bwdif from the first frame that is marked as interlaced; earlier ones pass as is."""

    def __init__(self, stream: av.VideoStream) -> None:
        self.warnings: list[str] = []
        self._stream = stream
        self._graph: Graph | None = None
        self._form: tuple[int, int, str] | None = None  # of the frames that the graph was made for

    def run(self, frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Yield every frame. One comes out after the next went in: the filter looks ahead."""
        for frame in frames:
            if self._graph is None and not frame.interlaced_frame:
                yield frame
                continue
            self.warnings = [INTERLACED]
            form = frame.width, frame.height, frame.format.name
            if form != self._form:
                yield from self._flush()
                self._graph, self._form = self._make_graph(frame), form
            assert self._graph is not None
            if frame.pts is None:
                frame.pts = frame.dts  # all that AVI has; the filter drops it
            self._graph.vpush(frame)
            yield from pull(self._graph)
        yield from self._flush()

    def _make_graph(self, frame: av.VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1  # the sandbox allows no more, and the caller decodes with one, too
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or 1 / rate_of(self._stream),
        )
        graph.link_nodes(source, graph.add("bwdif", None, **BWDIF_OPTIONS), graph.add("buffersink")).configure()
        return graph

    def _flush(self) -> Iterator[av.VideoFrame]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from pull(self._graph)
            self._graph = None


def pull(graph: Graph) -> Iterator[av.VideoFrame]:
    """Yield the frames that a graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
