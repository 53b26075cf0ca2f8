"""What a file is by its bytes, for messages about files that are not taken or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

import av.error

from inference.errors import MediaTruncated, UnsupportedMedia

EXPECTED = "expected a video, an image (JPEG, PNG, WebP, BMP, HEIC, AVIF) or audio"
# First bytes of kinds that are not taken. Camera raw images are TIFF files, too.
OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    *((magic, "a TIFF or a camera's raw image") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((magic, "a camera's raw image") for magic in (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"qoif", "a QOI image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "a Wave64 (W64) file"),
    (b"wvpk", "a WavPack file"),
    (b"MAC ", "a Monkey's Audio file"),
    (b"TTA1", "a True Audio file"),
    (b"MPCK", "a Musepack file"),
    (b"MP+", "a Musepack file"),
    (b"DSD ", "a DSD file"),
    (b"FRM8", "a DSD file"),
    (b"MThd", "a MIDI file"),
    (b".RMF", "a RealMedia file"),
    *((magic, "a Flash file") for magic in (b"FWS", b"CWS", b"ZWS")),
)
ANIMATED_WEBP_FLAG = 0x02  # of the extended header


def refuse_other_kinds(file: IO[bytes], name: str) -> None:
    """Raise UnsupportedMedia, with the kind, for a file of a known kind that is not taken. Leaves the position."""
    position = file.tell()
    file.seek(0)
    head = file.read(32)
    file.seek(position)
    kind = next((kind for magic, kind in OTHER_KINDS if head.startswith(magic)), None)
    if is_animated_webp(head):
        kind = "an animated WebP image"
    if kind is not None:
        raise UnsupportedMedia(f"{name}: is {kind}; {EXPECTED}")


class SeekableFile(Protocol):
    """What is needed of a file to look at its first bytes."""

    def read(self, n_bytes: int, /) -> bytes: ...
    def seek(self, position: int, /) -> int: ...
    def tell(self) -> int: ...


def is_image(file: SeekableFile) -> bool:
    """Return whether a file starts like a JPEG, PNG, WebP, BMP or GIF image. Leaves the position."""
    position = file.tell()
    file.seek(0)
    head = file.read(12)
    file.seek(position)
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8")) or is_webp(head)


def is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def is_animated_webp(head: bytes) -> bool:
    return is_webp(head) and head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & ANIMATED_WEBP_FLAG)


@contextmanager
def as_unsupported(name: str) -> Iterator[None]:
    """Turn FFmpeg's errors into UnsupportedMedia: that no filter, converter or resampler takes what was decoded."""
    try:
        yield
    except MemoryError:
        raise  # PyAV's is also an FFmpegError, but not about the file
    except av.error.FFmpegError as err:
        raise UnsupportedMedia(f"{name}: cannot be decoded ({err.strerror})") from err


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
