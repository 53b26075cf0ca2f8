"""Protocols of media decoding: `open_media` in this process, or `SandboxedDecoder.open` in another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from inference.media.files import Source
from inference.media.frames import Clip
from inference.media.limits import MediaLimits
from inference.media.video import VideoInfo


class OpenedMedia(Protocol):
    """An open file whose frames can be read once."""

    @property
    def name(self) -> str: ...

    @property
    def video(self) -> VideoInfo: ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was changed or missing in the frames read so far."""
        ...

    def read_clips(self, fps: float) -> Iterator[Clip]: ...


class MediaOpener(Protocol):
    """Opens untrusted media within limits."""

    def __call__(self, source: Source, limits: MediaLimits | None = None, /) -> AbstractContextManager[OpenedMedia]: ...
