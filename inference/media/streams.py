"""Which stream of a file is its video."""

from __future__ import annotations

import av


def is_cover_art(stream: av.video.stream.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
