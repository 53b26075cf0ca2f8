"""Opening of untrusted media: within limits, from listed formats only, with no other file and no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import av
import av.error
from av.stream import Stream

from inference.errors import MediaTooLarge, MediaTruncated
from inference.media.file_kinds import explain_unreadable, refuse_other_kinds
from inference.media.files import Source, open_bytes, without_image_name, without_tags
from inference.media.limits import MediaLimits
from inference.media.streams import choose_video, demux
from inference.media.truncation import is_cut_off
from inference.media.video import Media

# Demuxers that read one self-contained file. Playlists and scripts (HLS, DASH, concat, SDP, ...) are left out: they
# refer to other files and addresses.
FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,ivf,mxf,dv,mjpeg,gif,"  # video
    "apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,"  # images
    "wav,mp3,aac,flac,amr,aiff,caf,ac3,au"  # audio
)
OPEN_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none", "enable_drefs": "0"}


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
        media = Media(container, name, limits, file)
        if (media.video.duration_s or 0) > limits.max_duration_s:
            check_length(file, name, limits, choose_video)
        try:
            yield media
        finally:
            media.is_closed = True  # a later read would use freed memory


@contextmanager
def open_container(file: IO[bytes], name: str, limits: MediaLimits) -> Iterator[av.container.InputContainer]:
    """Open a container of video, images or audio."""
    refuse_other_kinds(file, name)
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


def probe_bounds(limits: MediaLimits) -> dict[str, str]:
    """Return options that limit the size of frames decoded while opening a file: FFmpeg probes the first ones."""
    return {"max_pixels": str(limits.max_frame_pixels)}


def check_length(file: IO[bytes], name: str, limits: MediaLimits, choose: Callable[..., Stream]) -> None:
    """Look for a packet beyond the limit, so that a long file is refused before an hour of it is decoded.

    What the file declares is not enough: it may be a guess, a mistake, or the time of a subtitle.
    choose: returns the stream that counts. Raises: MediaTooLarge if there is such a packet. Leaves the position.
    """
    position = file.tell()
    with open_container(file, name, limits) as container:
        if reaches(container, choose(container, name), limits.max_duration_s):
            raise MediaTooLarge(f"{name}: lasts over {limits.max_duration_s:g} s; that is the limit")
    file.seek(position)


def reaches(container: av.container.InputContainer, stream: Stream, duration_s: float) -> bool:
    """Return whether seeking finds a packet of a stream so long after its start. False if the file cannot tell."""
    if not stream.time_base:
        return False
    target = (stream.start_time or 0) + round(duration_s / stream.time_base)
    try:
        container.seek(target, backward=False, stream=stream)
        packet = next(demux(container, stream))
    except (av.error.FFmpegError, StopIteration, OverflowError):
        return False
    return packet.pts is not None and packet.pts > target
