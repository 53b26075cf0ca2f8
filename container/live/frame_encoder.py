"""The pictures of timed frames, encoded; those of silence once for all who listen to it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from container.live.frame_messages import PATCH, WHOLE, FrameMessage
from container.live.jpeg import PATCH_QUALITY, WHOLE_QUALITY, encode_jpeg

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage, TimedFrame

N_KEPT = 256  # pictures of silence: 10 s of them, or half of that in both kinds


class Pictures:
    """JPEGs of one avatar. To be used by any threads at once."""

    def __init__(self, package: AvatarPackage) -> None:
        self._package = package
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, timed: TimedFrame, kind: int) -> bytes:
        """kind: PATCH the box region, WHOLE the frame with it."""
        if timed.is_speaking:
            return self._encode(timed, kind)
        key = timed.background, kind  # nothing else makes a difference in silence
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        jpeg = self._encode(timed, kind)
        with self._lock:
            self._kept[key] = jpeg
            while len(self._kept) > N_KEPT:
                self._kept.popitem(last=False)
        return jpeg

    def message(self, timed: TimedFrame, kind: int, *, tells_background: bool = False) -> FrameMessage:
        """The frame as it goes to a client."""
        box = timed.box
        x, y, w, h = int(box.left), int(box.top), int(box.width), int(box.height)
        if kind == WHOLE:
            x, y, w, h = 0, 0, self._package.width, self._package.height
        return FrameMessage(
            kind,
            timed.is_speaking,
            timed.generation,
            timed.frame,
            timed.pts_ms,
            x,
            y,
            w,
            h,
            self.encode(timed, kind),
            timed.pcm.astype("<i2").tobytes(),
            timed.background if tells_background else 0,
        )

    def _encode(self, timed: TimedFrame, kind: int) -> bytes:
        if kind == PATCH:
            return encode_jpeg(timed.patch, PATCH_QUALITY)
        return encode_jpeg(self._package.whole(timed), WHOLE_QUALITY)
