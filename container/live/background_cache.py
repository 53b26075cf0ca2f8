"""Encoded background frames, so that many clients that load the same avatar do not decode its video again."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from cachetools import LRUCache

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

MAX_CACHED_BYTES = 32 << 20  # of all avatars: 600 frames of 1280x720, or 24 s


@dataclass(frozen=True)
class EncodedBackground:
    """A frame as an image file, and its entity tag."""

    image: bytes
    etag: str
    media_type: str = "image/jpeg"

    @classmethod
    def of(cls, image: bytes, media_type: str = "image/jpeg") -> EncodedBackground:
        return cls(image, f'"{hashlib.sha256(image).hexdigest()}"', media_type)


class BackgroundCache:
    """The encoded frames that were requested last, of all avatars. Use it in one thread only."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._encoded: LRUCache[tuple[int, int, bool], EncodedBackground] = LRUCache(
            max_bytes, lambda one: len(one.image)
        )
        # Numbers, because a key with the package itself would keep it in memory.
        self._numbers: WeakKeyDictionary[AvatarPackage, int] = WeakKeyDictionary()
        self._next_number = itertools.count()

    def get(self, package: AvatarPackage, index: int, *, with_alpha: bool = False) -> EncodedBackground | None:
        return self._encoded.get((self._number_of(package), index, with_alpha))

    def add(self, package: AvatarPackage, index: int, encoded: EncodedBackground, *, with_alpha: bool = False) -> None:
        """Add a frame, and drop the ones that were not requested for the longest time."""
        if len(encoded.image) <= self._encoded.maxsize:
            self._encoded[self._number_of(package), index, with_alpha] = encoded

    def _number_of(self, package: AvatarPackage) -> int:
        number = self._numbers.get(package)
        if number is None:
            number = self._numbers[package] = next(self._next_number)
        return number
