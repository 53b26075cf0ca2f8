"""Decoding of untrusted media: within limits, from listed formats only, with no other file and no network."""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import av.error
import numpy as np

from inference.errors import MediaNotFound, MediaTooLarge, MediaTruncated, UnsupportedMedia
from inference.media.frames import Clip, Frame, TimedItem, group_into_clips, resample_to_rate
from inference.media.limits import MediaLimits

Source = str | Path | bytes

# Demuxers that read one self-contained file. Playlists and scripts (HLS, DASH, concat, SDP, ...) are left out: they
# refer to other files and addresses.
FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,ivf,mxf,dv,mjpeg,gif,"  # video
    "apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,"  # images
    "wav,mp3,aac,flac,amr,aiff,caf,ac3,au"  # audio
)
IMAGE_FORMATS = {"png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp"}
MAX_PIXEL_ASPECT = 4
# A file is truncated if its declared duration exceeds its content by more than both.
LOST_END_S = 0.25
LOST_END_SHARE = 0.02
SPLICE_GAP_S = Fraction(1, 2)  # timestamps that go back further than this belong to another video
MAX_LOST_S = 10  # undecodable packets at the end that the last frame replaces
# FFmpeg estimates their duration from the bytes it finds, so that it cannot show what is missing.
FORMATS_WITHOUT_DURATION = ("mpeg", "h264", "hevc", "m4v", "mjpeg", "ivf", "ogg")


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


class Timeline:
    """Timestamps of frames, for files whose own timestamps may repeat or start again."""

    def __init__(self, stream: av.video.stream.VideoStream) -> None:
        self.offset = Fraction(0)
        self._stream = stream
        self._last: tuple[Fraction, Fraction] | None = None

    def timestamp(self, frame: av.VideoFrame) -> tuple[Fraction, Fraction] | None:
        """Return start and duration in seconds; None for a second frame at the same time.

        Timestamps that go back belong to another video spliced on, which follows the last frame.
        """
        duration = duration_of(frame, self._stream)
        if self._last is None:
            start = start_of(frame, None, self._stream)
        else:
            last_start, last_duration = self._last
            start = start_of(frame, last_start - self.offset, self._stream) + self.offset
            if start < last_start - SPLICE_GAP_S:
                spliced = last_start + last_duration
                self.offset += spliced - start
                start = spliced
            if start <= last_start:
                return None
        self._last = start, duration
        return self._last


class LimitCounter:
    """Counts decoded frames and pixels, used or not, and raises if a limit is exceeded."""

    def __init__(self, name: str, limits: MediaLimits, n_bytes: int) -> None:
        """n_bytes: size of the file, which limits its pixels."""
        self.n_frames = 0
        self.n_pixels = 0
        self._n_bytes = n_bytes
        self._max_total_pixels = limits.total_pixels_of(n_bytes)
        self._origin: Fraction | None = None
        self._elapsed_s = 0.0
        self._name = name
        self._limits = limits

    def count(self, frame: av.VideoFrame) -> None:
        """Count one more frame. Raises: MediaTooLarge, UnsupportedMedia."""
        limits = self._limits
        self.n_frames += 1
        self.n_pixels += frame.width * frame.height
        if min(frame.width, frame.height) < limits.min_side:
            raise UnsupportedMedia(
                f"{self._name}: a frame of {frame.width}x{frame.height} pixels; "
                f"at least {limits.min_side} on each side expected"
            )
        if frame.width * frame.height > limits.max_frame_pixels:
            raise MediaTooLarge(
                f"{self._name}: a frame of {frame.width}x{frame.height} pixels; "
                f"at most {limits.max_frame_pixels} pixels expected"
            )
        if self.n_pixels > self._max_total_pixels:
            raise MediaTooLarge(
                f"{self._name}: over {self._max_total_pixels} pixels in {self.n_frames} frames; that is the limit "
                f"for a file of {self._n_bytes} bytes"
            )
        if self.n_frames > limits.max_fps * (self._elapsed_s + 1):
            raise MediaTooLarge(f"{self._name}: over {limits.max_fps:g} frames a second; that is the limit")

    def check_time(self, start: Fraction, duration: Fraction) -> None:
        """Check how far the video reaches in time. Raises: MediaTooLarge."""
        if self._origin is None:
            self._origin = start
        self._elapsed_s = float(start - self._origin)
        if self._elapsed_s + float(duration) > self._limits.max_duration_s:
            raise MediaTooLarge(f"{self._name}: lasts over {self._limits.max_duration_s:g} s; that is the limit")


@contextmanager
def open_media(source: Source, limits: MediaLimits | None = None) -> Iterator[Media]:
    """Open an untrusted video or image.

    source: a path, or the bytes of the file. Nothing else is ever opened: no address, no playlist, no file that this
    one refers to.

    Raises: MediaNotFound, MediaTooLarge, UnsupportedMedia, MediaTruncated, also while frames are read; MemoryError if
    the decoder gets no memory.
    """
    limits = limits or MediaLimits()
    with open_bytes(source, limits) as (file, name), open_file(file, name, limits) as media:
        yield media


@contextmanager
def open_file(file: IO[bytes], name: str, limits: MediaLimits) -> Iterator[Media]:
    """Open a seekable file object as `open_media` does. name: for messages."""
    with open_container(file, name, limits) as container:
        media = Media(container, name, limits, size_of(file))
        try:
            yield media
        finally:
            media.is_closed = True  # a later read would use freed memory


@contextmanager
def open_container(file: IO[bytes], name: str, limits: MediaLimits) -> Iterator[av.container.InputContainer]:
    """Open a container of video, images or audio."""
    try:
        container = av.open(
            without_image_name(without_tags(file)),
            mode="r",
            options=probe_bounds(limits),
            container_options=OPEN_OPTIONS,
            metadata_errors="replace",
        )
    except MemoryError:
        raise  # PyAV's is also an FFmpegError, but not about the file
    except (av.error.FFmpegError, ValueError) as err:
        raise explain_unreadable(file, name, err) from err
    if container.format.name == "mpeg" and is_cut_off(file):
        container.close()
        raise MediaTruncated(f"{name}: its last packet is cut off; the file is truncated")
    with container:
        yield container


class UnnamedFile:
    """A file object without its name."""

    def __init__(self, file: IO[bytes] | OffsetFile) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


class OffsetFile:
    """A file object that starts at an offset of another."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self.name = getattr(file, "name", None)
        self.read = file.read
        self._file = file
        self._offset = offset
        self.seek(0)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it."""
        if whence == io.SEEK_SET:
            position += self._offset
        return self._file.seek(position, whence) - self._offset

    def tell(self) -> int:
        return self._file.tell() - self._offset


def without_tags(file: IO[bytes]) -> IO[bytes] | OffsetFile:
    """Skip the ID3 tags at the start: nothing here uses them, and FFmpeg unpacks all that they contain."""
    n_bytes, offset = size_of(file), 0
    for _ in range(MAX_TAGS):
        file.seek(offset)
        head = file.read(ID3_HEADER_BYTES)
        end = offset + ID3_HEADER_BYTES + id3_size(head) if head[:3] == b"ID3" else offset
        if end == offset or end >= n_bytes:
            break
        offset = end
    file.seek(0)
    return OffsetFile(file, offset) if offset else file


def id3_size(head: bytes) -> int:
    """Return the size of a tag after its header: four times 7 bits, and a footer if bit 4 of the flags is set."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + (ID3_HEADER_BYTES if len(head) > 5 and head[5] & 0x10 else 0)


ID3_HEADER_BYTES = 10
MAX_TAGS = 16  # skipped at the start


def size_of(file: IO[bytes]) -> int:
    """Return the size of a seekable file in bytes, and leave its position."""
    position = file.tell()
    n_bytes = file.seek(0, io.SEEK_END)
    file.seek(position)
    return n_bytes


def without_image_name(file: IO[bytes] | OffsetFile) -> IO[bytes] | OffsetFile | UnnamedFile:
    """Hide the name of an image: by it FFmpeg picks `image2`, which reads numbered files and is not allowed here."""
    name = getattr(file, "name", None)
    is_image = isinstance(name, str) and Path(name).suffix.lower() in IMAGE_SUFFIXES
    return UnnamedFile(file) if is_image else file


OPEN_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none", "enable_drefs": "0"}


def probe_bounds(limits: MediaLimits) -> dict[str, str]:
    """Return options that limit the size of frames decoded while opening a file: FFmpeg probes the first ones."""
    return {"max_pixels": str(limits.max_frame_pixels)}


@contextmanager
def open_bytes(source: Source, limits: MediaLimits) -> Iterator[tuple[IO[bytes], str]]:
    """Yield the source as a seekable binary file of limited size, and its name for messages."""
    if isinstance(source, bytes):
        check_size(len(source), "input", limits)
        yield io.BytesIO(source), "input"
        return
    path = Path(source)
    name = path.name or str(path)
    try:
        status = path.stat()
    except OSError as err:
        raise MediaNotFound(f"{name}: {err.strerror or err}") from err
    except ValueError as err:  # a NUL in the path
        raise MediaNotFound(f"{name!r}: {err}") from err
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise MediaNotFound(f"{name}: is {kind}; expected a video file")
    check_size(status.st_size, name, limits)
    try:
        file = path.open("rb")
    except OSError as err:
        raise MediaNotFound(f"{name}: {err.strerror or err}") from err
    with file:
        yield file, name


def check_size(n_bytes: int, name: str, limits: MediaLimits) -> None:
    if n_bytes == 0:
        raise UnsupportedMedia(f"{name}: is empty (0 bytes); expected a video")
    if n_bytes > limits.max_bytes:
        raise MediaTooLarge(f"{name}: {n_bytes} bytes; at most {limits.max_bytes} expected")


def explain_unreadable(file: IO[bytes], name: str, err: Exception) -> UnsupportedMedia:
    """Return an error that describes the bytes: the decoder only reports that it cannot read them."""
    file.seek(0)
    head = file.read(512)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return MediaTruncated(f"{name}: an MP4 whose index cannot be read; the file is truncated or damaged")
    if head.lstrip()[:1] == b"<":
        return UnsupportedMedia(f"{name}: looks like an HTML or XML page; expected a video")
    if head.lstrip().startswith((b"#EXTM3U", b"ffconcat", b"[playlist]", b"v=0")):
        return UnsupportedMedia(f"{name}: is a playlist, and no playlist is followed; expected a video")
    if all(32 <= byte < 127 or byte in b"\t\r\n\f" for byte in head):
        return UnsupportedMedia(f"{name}: looks like text; expected a video")
    reason = getattr(err, "strerror", None) or str(err)
    return UnsupportedMedia(f"{name}: not a media file ({reason})")


def is_cut_off(file: IO[bytes]) -> bool:
    """Return whether an MPEG program stream ends inside a packet: such a file declares no duration to compare."""
    position = file.tell()
    start = max(file.seek(0, io.SEEK_END) - PS_TAIL_BYTES, 0)
    file.seek(start)
    tail = file.read()
    file.seek(position)
    at = tail.find(PS_PACK)
    while 0 <= at < len(tail) - 4:
        if tail[at : at + 3] != b"\x00\x00\x01":
            return False  # padding or unknown bytes after the last packet
        kind = tail[at + 3]
        if kind == PS_END:
            return False
        if kind == PS_PACK[3]:
            is_mpeg2 = len(tail) > at + 13 and tail[at + 4] >> 6 == 1
            at += 14 + (tail[at + 13] & 7) if is_mpeg2 else 12
        else:
            at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
    return at > len(tail)


PS_PACK = b"\x00\x00\x01\xba"
PS_END = 0xB9
PS_TAIL_BYTES = 256 << 10  # several packets: one has at most 64 KiB


def is_cover_art(stream: av.video.stream.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def start_of(frame: av.VideoFrame, last: Fraction | None, stream: av.video.stream.VideoStream) -> Fraction:
    """Return a frame's start in seconds; without a timestamp it follows the last frame at the stream's rate."""
    pts = frame.pts if frame.pts is not None else frame.dts
    if pts is not None and frame.time_base:
        return pts * frame.time_base
    return Fraction(0) if last is None else last + 1 / rate_of(stream)


def duration_of(frame: av.VideoFrame, stream: av.video.stream.VideoStream) -> Fraction:
    if frame.duration and frame.time_base:
        return frame.duration * frame.time_base
    return 1 / rate_of(stream)


def rate_of(stream: av.video.stream.VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def pixel_aspect_of(stream: av.video.stream.VideoStream) -> Fraction:
    """Return a pixel's width over its height: 1 unless the video is anamorphic (DV, DVD, HDV) or the value absurd."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)


def to_upright_bgr(frame: av.VideoFrame, pixel_aspect: Fraction) -> Frame:
    """Return (H, W, 3) uint8 BGR in square pixels, rotated by the file's metadata."""
    width = round(frame.width * pixel_aspect)
    quarter_turns = math.floor(frame.rotation / 90 + 0.5) % 4  # counter-clockwise
    pixels = frame.to_ndarray(format="bgr24", width=width, height=frame.height).astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels
