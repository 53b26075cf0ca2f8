"""Speech that comes with a request, for frames in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from container.live.frame_clock import FPS
from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.audio.features import Features
    from inference.avatar import AvatarPackage

LEAD, TAIL = 8, 7  # chunks before the first frame and behind the last one


class Speech:
    """Sound in chunks of 40 ms around some frames in a row, and what each of the frames hears of it."""

    def __init__(self, package: AvatarPackage, chunks: Sequence[bytes], n_frames: int) -> None:
        """chunks: s16le mono, all of one length, 8 before the first frame, one for each, and 7 or more behind.

        Raises: InvalidRequest.
        """
        from inference.avatar.utterance import Utterance

        rate = rate_of_chunks(chunks)
        if len(chunks) < LEAD + n_frames + TAIL:
            raise InvalidRequest(
                f"{len(chunks)} chunks of audio for {n_frames} frames; expected {LEAD + n_frames + TAIL} at least: "
                f"{LEAD} before the first frame, one for each, {TAIL} behind the last"
            )
        self._package = package
        self._utterance = Utterance(rate)
        self._utterance.push(np.frombuffer(b"".join(chunks), np.dtype("<i2")).astype(np.int16))
        self._utterance.end()
        self._n_heard = 0  # chunks

    def listen(self, k: int) -> tuple[Features, str]:
        """What the frame k after the first one hears, (16, numbers), and whose sound that is. k never falls."""
        while self._n_heard < LEAD + k:
            self._step()
        return self._step(), "request"

    def _step(self) -> Features:
        new = [self._package.hear(window) for window in self._utterance.take_windows()]
        features = self._utterance.rows_with(new)
        self._utterance.advance(new)
        self._n_heard += 1
        return features


def rate_of_chunks(chunks: Sequence[bytes]) -> int:
    """Samples a second, by what 40 ms of them take."""
    lengths = sorted({len(chunk) for chunk in chunks})
    if len(lengths) != 1 or lengths[0] == 0 or lengths[0] % 2:
        found = ", ".join(map(str, lengths[:4])) or "none"
        raise InvalidRequest(f"chunks of {found} bytes; expected 40 ms of s16le mono in each, 1280 bytes at 16 kHz")
    return lengths[0] // 2 * FPS
