"""Encoding of session frames. Idle frames are cached, because all silent sessions share them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cachetools import LRUCache

from container.live.frame_messages import PATCH, WHOLE, FrameMessage
from container.live.jpeg import PATCH_QUALITY, WHOLE_QUALITY, encode_jpeg, encode_png, encode_webp

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage, TimedFrame

MAX_CACHED = 256  # images of idle frames: 10 s, or 5 s if clients use both kinds


class FrameEncoder:
    """The encoder of one avatar's frames, and its cache. Thread-safe."""

    def __init__(self, package: AvatarPackage) -> None:
        self._package = package
        self._cache: LRUCache[tuple[int, int, bool], bytes] = LRUCache(MAX_CACHED)
        self._lock = threading.Lock()

    def encode(self, timed: TimedFrame, kind: int, *, with_alpha: bool = False) -> bytes:
        """Encode a frame as JPEG, or with alpha a patch as WebP and a whole frame as PNG.

        kind: PATCH for the face's box, WHOLE for the composed frame.
        """
        if timed.is_speaking:
            return self._encode(timed, kind, with_alpha=with_alpha)
        key = timed.background, kind, with_alpha  # in silence, frames differ in nothing else
        with self._lock:
            jpeg = self._cache.get(key)
        if jpeg is None:
            jpeg = self._encode(timed, kind, with_alpha=with_alpha)
            with self._lock:
                self._cache[key] = jpeg
        return jpeg

    def make_message(
        self, timed: TimedFrame, kind: int, *, with_background: bool = False, with_alpha: bool = False
    ) -> FrameMessage:
        """Encode a frame as a message.

        with_background: whether it contains the index of its background frame. with_alpha: whether its image has
        no background, which needs a package with mattes.
        """
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
            self.encode(timed, kind, with_alpha=with_alpha),
            timed.pcm.astype("<i2").tobytes(),
            timed.background if with_background else 0,
            timed.visemes,
        )

    def _encode(self, timed: TimedFrame, kind: int, *, with_alpha: bool) -> bytes:
        if with_alpha:
            matte = self._package.matte(timed.background)
            if kind == PATCH:
                left, top, right, bottom = map(int, (timed.box.left, timed.box.top, timed.box.right, timed.box.bottom))
                return encode_webp(timed.patch, matte[top:bottom, left:right])
            return encode_png(self._package.compose_frame(timed), matte)
        if kind == PATCH:
            return encode_jpeg(timed.patch, PATCH_QUALITY)
        return encode_jpeg(self._package.compose_frame(timed), WHOLE_QUALITY)
