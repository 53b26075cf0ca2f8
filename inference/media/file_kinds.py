"""What a file is by its bytes, for messages about files that cannot be read."""

from __future__ import annotations

from typing import IO

from inference.errors import MediaTruncated, UnsupportedMedia


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
