"""The frames of an open video or image, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from inference.errors import MediaTooLarge, MediaTruncated, UnsupportedMedia
from inference.media.frames import Clip, Frame, TimedItem, group_into_clips, resample_to_rate
from inference.media.limits import LimitCounter, MediaLimits
from inference.media.pixels import pixel_aspect_of, to_upright_bgr
from inference.media.streams import is_cover_art
from inference.media.timeline import SPLICE_GAP_S, Timeline
from inference.media.truncation import FORMATS_WITHOUT_DURATION, LOST_END_S, LOST_END_SHARE

IMAGE_FORMATS = {"png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe"}
MAX_LOST_S = 10  # undecodable packets at the end that the last frame replaces


@dataclass(frozen=True)
class VideoInfo:
    """Properties that the file declares: for display only, not to be trusted."""

    format: str
    codec: str
    width: int
    height: int
    fps: float | None
    duration_s: float | None
    is_still: bool


class Media:
    """An open file. Made by `open_media`; its frames can be read once."""

    def __init__(self, container: av.container.InputContainer, name: str, limits: MediaLimits, n_bytes: int) -> None:
        """n_bytes: size of the file."""
        self.name = name
        self.counter = LimitCounter(name, limits, n_bytes)
        self._container = container
        self._limits = limits
        self._origin_s = (container.start_time or 0) / av.time_base
        self._reached_s = 0.0
        self._video_end: Fraction | None = None
        self.is_closed = False
        self._stream = self._find_stream()
        self.video = self._describe()
        self._check_declared()

    def read_clips(self, fps: float) -> Iterator[Clip]:
        """Decode to clips at exactly `fps` frames a second, upright, BGR.

        Raises: MediaTooLarge if a limit is exceeded, MediaTruncated if the end of the file is missing,
        UnsupportedMedia if no frame can be decoded.
        """
        rate = Fraction(fps).limit_denominator(1001)
        return group_into_clips(self._to_bgr(resample_to_rate(self._decode(), rate)), fps)

    @property
    def sample_bits(self) -> int:
        """The declared depth of its samples; 8 if unknown."""
        pixel_format = self._stream.codec_context.format
        return max((component.bits for component in pixel_format.components), default=8) if pixel_format else 8

    def _to_bgr(self, frames: Iterator[av.VideoFrame]) -> Iterator[Frame]:
        """Convert the frames that are shown; a repeated frame is the same array."""
        pixel_aspect = pixel_aspect_of(self._stream)
        last: av.VideoFrame | None = None
        pixels: Frame | None = None
        for frame in frames:
            if pixels is None or frame is not last:
                pixels = None  # frees it before the next is made: a frame of 8K takes 100 MB
                last, pixels = frame, to_upright_bgr(frame, pixel_aspect)
            yield pixels

    def _find_stream(self) -> av.video.stream.VideoStream:
        videos = [s for s in self._container.streams.video if not is_cover_art(s)]
        decodable = [s for s in videos if s.codec_context is not None]
        if videos and not decodable:
            raise UnsupportedMedia(f"{self.name}: its video is in an unknown codec")
        if not decodable:
            found = sorted({str(s.type) for s in self._container.streams}) or ["nothing"]
            raise UnsupportedMedia(
                f"{self.name}: contains {' and '.join(found)} only ({self._container.format.name}); "
                "expected a video or an image"
            )
        return decodable[0]

    def _describe(self) -> VideoInfo:
        stream, container = self._stream, self._container
        rate = stream.average_rate
        duration = container.duration / av.time_base if container.duration else None
        return VideoInfo(
            format=container.format.name,
            codec=stream.codec_context.name,
            width=stream.width,
            height=stream.height,
            fps=float(rate) if rate else None,
            duration_s=duration,
            is_still=container.format.name in IMAGE_FORMATS,
        )

    def _check_declared(self) -> None:
        limits, video = self._limits, self.video
        if video.width * video.height > limits.max_frame_pixels:
            raise MediaTooLarge(
                f"{self.name}: frames of {video.width}x{video.height} pixels; "
                f"at most {limits.max_frame_pixels} pixels expected"
            )
        if video.duration_s is not None and video.duration_s > limits.max_duration_s:
            raise MediaTooLarge(
                f"{self.name}: declares {video.duration_s:.1f} s; at most {limits.max_duration_s:g} s expected"
            )

    def _decode(self) -> Iterator[TimedItem[av.VideoFrame]]:
        timeline = Timeline(self._stream)
        last: TimedItem[av.VideoFrame] | None = None
        for frame in self._decode_raw():
            self.counter.count(frame)
            span = timeline.timestamp(frame)
            if span is None:
                continue
            self.counter.check_time(*span)
            last = TimedItem(*span, frame)
            yield last
        if last is None:
            raise UnsupportedMedia(f"{self.name}: no frame could be decoded ({self.video.codec})")
        yield from self._hold_to_end(last, timeline.offset)
        self._check_end()

    def _hold_to_end(self, last: TimedItem[av.VideoFrame], offset: Fraction) -> Iterator[TimedItem[av.VideoFrame]]:
        """Repeat the last frame for the duration of undecodable packets after it."""
        end = last.start + last.duration
        lost = self._video_end + offset - end if self._video_end is not None else Fraction(0)
        if 0 < lost <= MAX_LOST_S:
            yield TimedItem(end, lost, last.item)

    def _decode_raw(self) -> Iterator[av.VideoFrame]:
        """Yield every decodable frame; broken packets are skipped, and keep their time."""
        self._stream.codec_context.options = {"max_pixels": str(self._limits.max_frame_pixels)}
        # One thread. With frame threads, a decoder loses the good frames after a broken one at the end of the file.
        # With slice threads, its error concealment depends on the number of threads and on which is first, so that
        # each machine gets other frames. And it allocates memory for as many threads as there are cores.
        self._stream.thread_count = 1
        for packet in self._read_packets():
            try:
                yield from packet.decode()
            except MemoryError:
                raise  # PyAV's is also an FFmpegError, but no broken packet: the next one fails, too
            except av.error.FFmpegError:
                continue

    def _read_packets(self) -> Iterator[av.Packet[Any]]:
        """Yield the video packets, and record how far all packets reach in time.

        Audio packets count, too: a file whose audio is longer than its video is complete.
        """
        packets = self._container.demux()
        while True:
            if self.is_closed:
                raise ValueError(f"{self.name}: read after it was closed")
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                return  # broken from here on: `_check_end` reports a missing end
            stamp = packet.pts if packet.pts is not None else packet.dts  # AVI only has the latter
            if stamp is not None and packet.time_base:
                end = (stamp + (packet.duration or 0)) * packet.time_base
                self._reached_s = max(self._reached_s, float(end))
                if packet.stream is self._stream:
                    is_spliced = self._video_end is None or end < self._video_end - SPLICE_GAP_S
                    self._video_end = end if is_spliced else max(end, self._video_end or end)
            if packet.stream is self._stream:
                yield packet

    def _check_end(self) -> None:
        # Some containers count their duration from 0, some from the first timestamp: accept both.
        declared = self.video.duration_s
        reached = max(self._reached_s, self._reached_s - self._origin_s)
        has_duration = not self.video.format.startswith(FORMATS_WITHOUT_DURATION)
        if has_duration and declared and declared - reached > max(LOST_END_S, LOST_END_SHARE * declared):
            raise MediaTruncated(
                f"{self.name}: ends after {reached:.2f} s of the {declared:.2f} s it declares; "
                "the file is truncated or damaged"
            )
