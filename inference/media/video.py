"""The frames of an open video or image, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import IO, Any

import av
import av.error

from inference.errors import MediaTooLarge, MediaTruncated, UnsupportedMedia
from inference.media.alpha_decoder import make_alpha_decoder
from inference.media.audio_clock import MAX_GAP_S, MAX_LEAD_S, origin_of
from inference.media.colour import BT709_PRIMARIES, is_wide, kept_primaries
from inference.media.deinterlace import Deinterlacer
from inference.media.file_kinds import as_unsupported
from inference.media.files import size_of
from inference.media.frame_rate import MAX_LIKELY_FPS, measure_rate, read_ahead
from inference.media.frames import Clip, Frame, TimedItem, group_into_clips, resample_to_rate
from inference.media.heif import HeifImage, read_heif
from inference.media.image_size import read_image_size
from inference.media.limits import LimitCounter, MediaLimits
from inference.media.media_warnings import LONG_HEADER, TRANSPARENT
from inference.media.pixels import FrameConverter, pixel_aspect_of
from inference.media.streams import choose_video, demux, exact_duration_s, video_duration_s
from inference.media.tiles import TileComposer
from inference.media.timeline import SPLICE_GAP_S, Timeline
from inference.media.truncation import FORMATS_WITHOUT_DURATION, LOST_END_S, LOST_END_SHARE, is_whole

IMAGE_FORMATS = {"png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe"}
ANIMATED_FORMATS = {"gif", "apng"}  # of one frame, they are images
MAX_LOST_S = 10  # undecodable packets at the end that the last frame replaces


@dataclass(frozen=True)
class VideoInfo:
    """Properties that the file declares: for display only, not to be trusted."""

    format: str
    codec: str
    width: int
    height: int
    fps: float | None
    duration_s: float | None  # of the file, with its audio and subtitles
    is_still: bool
    primaries: int = BT709_PRIMARIES  # of the frames as read: H.273's number
    video_s: float | None = None  # without them, as far as the file tells


class Media:
    """An open file. Made by `open_media`; its frames can be read once."""

    def __init__(self, container: av.container.InputContainer, name: str, limits: MediaLimits, file: IO[bytes]) -> None:
        """file: what the container reads."""
        self.name = name
        self.counter = LimitCounter(name, limits, size_of(file))
        self.is_closed = False
        self._container = container
        self._limits = limits
        self._file = file
        self._origin_s = (container.start_time or 0) / av.time_base
        self._reached_s = 0.0
        self._last_position = 0  # of a packet, in the file
        self._video_end: Fraction | None = None
        self._stream = choose_video(container, name)
        self._packets = demux(container)
        self._first_packets: list[av.Packet[Any]] = []  # read ahead, to measure the rate
        self._heif = self._find_heif()
        self._composer: TileComposer | None = None
        if self._heif is not None and not self._heif.is_whole:
            self._composer = TileComposer(container, self._heif, name, self.counter)
            self._stream = self._composer.first
        self._deinterlacer = Deinterlacer(self._stream)
        self.video = self._describe()
        self._converter = FrameConverter(pixel_aspect_of(self._stream), is_still=self.video.is_still)
        self._warnings: list[str] = []
        self._check_declared()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was changed or missing in the frames decoded so far."""
        return (*self._deinterlacer.warnings, *self._converter.warnings, *self._warnings)

    def read_clips(self, fps: float) -> Iterator[Clip]:
        """Decode to clips at exactly `fps` frames a second, upright, BGR. An image is one frame.

        Raises: MediaTooLarge if a limit is exceeded, MediaTruncated if the end of the file is missing,
        UnsupportedMedia if no frame can be decoded.
        """
        with as_unsupported(self.name):
            yield from group_into_clips(self._read_frames(fps), fps)

    def _read_frames(self, fps: float) -> Iterator[Frame]:
        if self._composer is not None:
            return self._compose(self._composer)
        if self.video.is_still:
            return self._to_bgr(item.item for item in islice(self._decode(), 1))
        return self._to_bgr(resample_to_rate(self._decode(), Fraction(fps).limit_denominator(1001)))

    @property
    def is_wide(self) -> bool:
        """Whether it declares HDR or a wide gamut, which takes longer to convert."""
        context = self._stream.codec_context
        return is_wide(context.color_trc, context.color_primaries)

    @property
    def sample_bits(self) -> int:
        """The declared depth of its samples; 8 if unknown."""
        pixel_format = self._stream.codec_context.format
        return max((component.bits for component in pixel_format.components), default=8) if pixel_format else 8

    def _to_bgr(self, frames: Iterator[av.VideoFrame]) -> Iterator[Frame]:
        """Convert the frames that are shown; a repeated frame is the same array. Those made larger count as such."""
        last: av.VideoFrame | None = None
        pixels: Frame | None = None
        for frame in frames:
            if pixels is None or frame is not last:
                pixels = None  # frees it before the next is made: a frame of 8K takes 100 MB
                last, pixels = frame, self._converter.convert(frame)
                self.counter.count_pixels(max(pixels.shape[0] * pixels.shape[1] - frame.width * frame.height, 0))
            yield pixels

    def _find_heif(self) -> HeifImage | None:
        """Return the image of a HEIC or AVIF file; None if it is another file, or has a video beside the image."""
        is_video = not self._container.format.name.startswith("mov") or self._stream.frames > 1
        return None if is_video else read_heif(self._file)

    def _compose(self, composer: TileComposer) -> Iterator[Frame]:
        pixels, is_transparent = composer.compose(self._converter.to_bgr, self._decoder_options())
        if is_transparent:
            self._warnings.append(TRANSPARENT)
        yield pixels

    def _describe(self) -> VideoInfo:
        stream, container = self._stream, self._container
        rate = self._measure_rate()
        is_still = container.format.name in IMAGE_FORMATS or self._heif is not None
        is_still = is_still or (container.format.name in ANIMATED_FORMATS and stream.frames == 1)
        size = stream.width, stream.height
        if self._composer is not None and self._composer.image.width:
            size = self._composer.image.width, self._composer.image.height
        if is_still and not all(size):  # too large for FFmpeg's probe, or damaged
            size = read_image_size(self._file) or size
        duration = container.duration / av.time_base if container.duration else None
        return VideoInfo(
            format=container.format.name,
            codec=stream.codec_context.name,
            width=size[0],
            height=size[1],
            fps=float(rate) if rate else None,
            duration_s=None if is_still else duration,
            is_still=is_still,
            primaries=kept_primaries(stream.codec_context.color_primaries),
            video_s=None if is_still else video_duration_s(container, stream),
        )

    def _measure_rate(self) -> Fraction | None:
        """Return the declared frame rate, unless it is unlikely and the frames have another one."""
        declared = self._stream.average_rate
        if declared is None or declared <= MAX_LIKELY_FPS or self._composer is not None:
            return declared
        self._first_packets = read_ahead(self._packets, self._stream)
        return measure_rate(self._first_packets, self._stream, declared)

    def _check_declared(self) -> None:
        limits, video = self._limits, self.video
        if video.width * video.height > limits.max_frame_pixels:
            raise MediaTooLarge(
                f"{self.name}: frames of {video.width}x{video.height} pixels; "
                f"at most {limits.max_frame_pixels} pixels expected"
            )
        declared_s = exact_duration_s(self._container, self._stream)
        if declared_s is not None and declared_s > limits.max_duration_s:
            raise MediaTooLarge(
                f"{self.name}: declares {declared_s:.1f} s; at most {limits.max_duration_s:g} s expected"
            )

    def _decode(self) -> Iterator[TimedItem[av.VideoFrame]]:
        timeline = Timeline(self._stream)
        last: TimedItem[av.VideoFrame] | None = None
        for frame in self._deinterlacer.run(self._count(self._decode_raw())):
            span = timeline.timestamp(frame)
            if span is None:
                continue
            if last is None and (lead := self._lead_of(span[0])):
                self.counter.check_time(span[0] - lead, lead)
                yield TimedItem(span[0] - lead, lead, frame)
            self.counter.check_time(*span)
            last = TimedItem(*span, frame)
            yield last
        if last is None:
            raise UnsupportedMedia(f"{self.name}: no frame could be decoded ({self.video.codec})")
        yield from self._hold_to_end(last, timeline.offset)
        self._check_end()

    def _lead_of(self, start: Fraction) -> Fraction:
        """Return how long the first frame is shown before its time, because the audio of the file starts earlier."""
        origin_s = origin_of(self._stream, self._container.streams.audio)
        lead = Fraction(0) if origin_s is None else start - Fraction(origin_s)
        return lead if MAX_LEAD_S < lead <= MAX_GAP_S else Fraction(0)

    def _count(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for frame in frames:
            self.counter.count(frame)
            yield frame

    def _hold_to_end(self, last: TimedItem[av.VideoFrame], offset: Fraction) -> Iterator[TimedItem[av.VideoFrame]]:
        """Repeat the last frame for the duration of undecodable packets after it."""
        end = last.start + last.duration
        lost = self._video_end + offset - end if self._video_end is not None else Fraction(0)
        if 0 < lost <= MAX_LOST_S:
            yield TimedItem(end, lost, last.item)

    def _decoder_options(self) -> dict[str, str]:
        return {"max_pixels": str(self._limits.max_frame_pixels)}

    def _decode_raw(self) -> Iterator[av.VideoFrame]:
        """Yield every decodable frame; broken packets are skipped, and keep their time."""
        decoder = make_alpha_decoder(self._stream) or self._stream.codec_context
        decoder.options = self._decoder_options()
        # One thread. With frame threads, a decoder loses the good frames after a broken one at the end of the file.
        # With slice threads, its error concealment depends on the number of threads and on which is first, so that
        # each machine gets other frames. And it allocates memory for as many threads as there are cores.
        decoder.thread_count = 1
        for packet in self._read_packets():
            try:
                yield from decoder.decode(packet)
            except MemoryError:
                raise  # PyAV's is also an FFmpegError, but no broken packet: the next one fails, too
            except av.error.FFmpegError:
                continue

    def _read_packets(self) -> Iterator[av.Packet[Any]]:
        """Yield the video packets, and record how far all packets reach in time.

        Audio packets count, too: a file whose audio is longer than its video is complete.
        """
        packets = chain(self._first_packets, self._packets)
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
            self._last_position = max(self._last_position, packet.pos or 0)
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
        """Raise MediaTruncated if the end is missing; a header of a whole file that declares more is a mistake."""
        # Some containers count their duration from 0, some from the first timestamp: accept both.
        declared = self.video.duration_s
        reached = max(self._reached_s, self._reached_s - self._origin_s)
        has_duration = not self.video.format.startswith(FORMATS_WITHOUT_DURATION)
        if not has_duration or not declared or declared - reached <= max(LOST_END_S, LOST_END_SHARE * declared):
            return
        if not is_whole(self._file, self.video.format, self._last_position):
            raise MediaTruncated(
                f"{self.name}: ends after {reached:.2f} s of the {declared:.2f} s it declares; "
                "the file is truncated or damaged"
            )
        self._warnings.append(LONG_HEADER)
