"""Audio that comes with a request for consecutive frames, in chunks of 40 ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from container.live.frame_clock import FPS
from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.audio.avatar_features import Features
    from inference.avatar import AvatarPackage

CHUNKS_BEFORE = 8  # chunks required before that of the first frame
CHUNKS_AFTER = 7  # chunks required after that of the last frame
LOOK_AHEAD_CHUNKS = 6  # further chunks that the audio encoder uses for the last frames if they are sent
# Frames at the start of a batch that a client which joins batches requests again and drops, because their first windows
# begin before the request's audio: 2 frames of avatars that look 6 windows ahead, 7 of those that look 1 ahead, 9 at
# most. A multiple of five, because the spectrogram's windows repeat their positions every five frames.
OVERLAP_FRAMES = 10


class AudioChunkEncoder:
    """Encodes chunks of audio around consecutive frames to the audio features of each frame."""

    def __init__(self, package: AvatarPackage, chunks: Sequence[bytes], n_frames: int) -> None:
        """Take the chunks of a request.

        chunks: int16 little-endian mono, all of the same length: 8 before the first frame, one for each frame, and at
        least 7 after the last frame.
        Raises: InvalidRequest if there are too few chunks, or their lengths are invalid.
        """
        from inference.avatar.utterance import Utterance

        sample_rate = sample_rate_of(chunks)
        n_expected = CHUNKS_BEFORE + n_frames + CHUNKS_AFTER
        if len(chunks) < n_expected:
            raise InvalidRequest(
                f"{len(chunks)} chunks of audio for {n_frames} frames; expected at least {n_expected}: "
                f"{CHUNKS_BEFORE} before the first frame, one for each frame, {CHUNKS_AFTER} after the last"
            )
        self._package = package
        self._utterance = Utterance(sample_rate, package.look_ahead_windows)
        self._utterance.push(np.frombuffer(b"".join(chunks), np.dtype("<i2")).astype(np.int16))
        self._utterance.end()
        self._n_encoded = 0  # chunks

    def encode(self, k: int) -> tuple[Features, str]:
        """Return the (16, n_features) audio features of frame k of the request, and their source, "request".

        k must not be lower than in the call before.
        """
        while self._n_encoded < CHUNKS_BEFORE + k:
            self._encode_next()
        return self._encode_next(), "request"

    def _encode_next(self) -> Features:
        rows = [self._package.encode_audio(window) for window in self._utterance.take_windows()]
        features = self._utterance.stack_rows(rows)
        self._utterance.advance(rows)
        self._n_encoded += 1
        return features


def sample_rate_of(chunks: Sequence[bytes]) -> int:
    """Return the sample rate at which each chunk is 40 ms long. Raises: InvalidRequest if the lengths are invalid."""
    lengths = sorted({len(chunk) for chunk in chunks})
    if len(lengths) != 1 or lengths[0] == 0 or lengths[0] % 2:
        sizes = ", ".join(map(str, lengths[:4]))
        found = f"audio chunks of {sizes} bytes" if sizes else "no audio chunks"
        raise InvalidRequest(f"{found}; expected 40 ms of s16le mono in each, such as 1280 bytes at 16 kHz")
    return lengths[0] // 2 * FPS
