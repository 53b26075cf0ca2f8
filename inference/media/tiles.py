"""Images of several coded parts: a grid of tiles, and the plane of alpha beside an image (HEIC, AVIF)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av
import av.error
import numpy as np
import numpy.typing as npt

from inference.errors import UnsupportedMedia
from inference.media.frames import Frame
from inference.media.heif import CODED_KINDS, HeifImage
from inference.media.limits import LimitCounter
from inference.media.pixels import lay_over_white


class TileComposer:
    """Decodes the parts of a HEIF image and puts them together."""

    def __init__(
        self, container: av.container.InputContainer, image: HeifImage, name: str, counter: LimitCounter
    ) -> None:
        """Find the parts. Raises: UnsupportedMedia if some are missing, or the image is derived in another way."""
        if image.kind not in (*CODED_KINDS, "grid"):
            expected = ", ".join((*CODED_KINDS, "grid"))
            raise UnsupportedMedia(f"{name}: a HEIF image of kind {image.kind!r}; expected one of {expected}")
        for part in (image, image.alpha):
            if part is not None:
                counter.check_size(part.width, part.height)
        self._container = container
        self.image = image
        self._name = name
        self._counter = counter
        streams = {stream.id: stream for stream in container.streams.video if stream.codec_context is not None}
        if any(item not in streams for item in image.items):
            raise UnsupportedMedia(f"{name}: parts of the image are missing, or in an unknown codec")
        self._streams = {item: streams[item] for item in image.items}
        self.first = streams[image.tiles[0]]

    def compose(self, to_bgr: Callable[[av.VideoFrame], Frame], options: dict[str, str]) -> tuple[Frame, bool]:
        """Return (H, W, 3) uint8 BGR, upright and over white, and whether any part is transparent.

        to_bgr: converts a part. options: of the decoders. Raises: UnsupportedMedia if a part cannot be decoded.
        """
        image = self.image
        tiles = {item: number for number, item in enumerate(image.tiles)}
        alpha_tiles = {} if image.alpha is None else {item: number for number, item in enumerate(image.alpha.tiles)}
        canvas: Frame | None = None
        alpha: npt.NDArray[np.uint8] | None = None
        n_placed = 0
        for item, frame in self._decode(options):
            n_placed += 1
            if item in tiles:
                canvas = self._place(canvas, image, tiles[item], to_bgr(frame))
            elif image.alpha is not None:
                alpha = self._place(alpha, image.alpha, alpha_tiles[item], luma_of(frame))
        if canvas is None or n_placed < len(self._streams):
            raise UnsupportedMedia(
                f"{self._name}: {n_placed} of {len(self._streams)} parts of the image could be decoded; "
                "the file is truncated or damaged"
            )
        if alpha is None:
            return image.orientation.apply(canvas), False
        flat = lay_over_white(canvas, enlarge(alpha, *canvas.shape[:2]))
        return image.orientation.apply(flat), flat is not canvas

    def _decode(self, options: dict[str, str]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the first frame of each part."""
        for stream in self._streams.values():
            stream.codec_context.options = options
            stream.thread_count = 1
        waiting = {stream.index: item for item, stream in self._streams.items()}
        for packet in self._container.demux(list(self._streams.values())):
            if packet.size == 0 or packet.stream.index not in waiting:
                continue
            stream = self._streams[waiting[packet.stream.index]]
            try:
                frames = [*packet.decode(), *stream.decode(None)]
            except MemoryError:
                raise
            except av.error.FFmpegError:
                continue
            frame = frames[0] if frames else None
            if isinstance(frame, av.VideoFrame):
                self._counter.count_pixels(frame.width * frame.height)
                yield waiting.pop(packet.stream.index), frame

    def _place(
        self, canvas: npt.NDArray[np.uint8] | None, image: HeifImage, number: int, tile: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """Copy a tile to its place. canvas: None before the first tile, which defines the size of all."""
        height, width = tile.shape[:2]
        if image.kind != "grid":
            return tile
        if not is_covered(image.width, width, image.columns) or not is_covered(image.height, height, image.rows):
            raise UnsupportedMedia(
                f"{self._name}: {image.columns}x{image.rows} tiles of {width}x{height} pixels for an image of "
                f"{image.width}x{image.height}; the file is damaged"
            )
        if canvas is None:
            canvas = np.zeros((image.height, image.width, *tile.shape[2:]), np.uint8)
        top, left = number // image.columns * height, number % image.columns * width
        part = canvas[top : top + height, left : left + width]
        part[:] = tile[: part.shape[0], : part.shape[1]]
        return canvas


def is_covered(length: int, tile: int, n_tiles: int) -> bool:
    """Return whether so many tiles cover a length, and all are needed."""
    return (n_tiles - 1) * tile < length <= n_tiles * tile


def enlarge(plane: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a plane in another size, by the nearest pixels; the same array if it has that size."""
    own_height, own_width = plane.shape
    if (own_height, own_width) == (height, width):
        return plane
    rows, columns = np.arange(height) * own_height // height, np.arange(width) * own_width // width
    return np.asarray(plane[rows][:, columns], np.uint8)


def luma_of(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Return (H, W) uint8: the first plane, whose whole range counts in a plane of alpha."""
    if frame.format.components[0].bits > 8:
        return frame.to_ndarray(format="gray").astype(np.uint8, copy=False)
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return np.array(rows[: frame.height, : frame.width])
