"""A long speech: nothing drifts, nothing grows."""

from __future__ import annotations

import numpy as np
import pytest

from inference.audio.avatar_features import LAST_WINDOW
from inference.avatar import AvatarSession
from inference.avatar.manifest import IdleRange
from inference.faces import FaceBox

MINUTES = 2
PATCH = np.zeros((8, 8, 3), np.uint8)


class Mannequin:
    """A package without networks; the features and the frames do not matter here."""

    n_frames = 250
    look_ahead_windows = LAST_WINDOW
    idle = IdleRange(first=0, last=99, is_shut=True)

    def box(self, i: int) -> FaceBox:
        return FaceBox(i, 0, i + 8, 8)

    def encode_audio(self, window: np.ndarray) -> np.ndarray:
        return np.zeros(2, np.float32)

    def render(self, i: int, rows: np.ndarray) -> np.ndarray:
        assert rows.shape == (16, 2)
        return PATCH

    def silent_patch(self, i: int) -> np.ndarray:
        return PATCH


@pytest.mark.parametrize("rate", [16_000, 44_100, 11_024])
def test_minutes_of_speech_neither_drift_nor_grow(rate: int):
    session = AvatarSession(Mannequin(), rate)
    piece = np.arange(rate * 3 + 7, dtype=np.int64).astype(np.int16)  # an uneven length
    n_pieces = MINUTES * 60 // 3
    n_frames = n_samples = most_kept = 0
    last = -1
    for _ in range(n_pieces):
        session.push_audio(piece)
        for frame in session.frames():
            start = n_frames * rate // 25
            assert len(frame.pcm) == (n_frames + 1) * rate // 25 - start
            assert frame.pcm[0] == piece[start % len(piece)]  # its own audio, to the sample
            assert frame.frame == last + 1
            last = frame.frame
            n_frames += 1
            n_samples += len(frame.pcm)
        utterance = session._utterances[0]
        most_kept = max(most_kept, len(utterance._pcm._bytes) + len(utterance._resampled._bytes))
    session.flush()
    rest = list(session.frames())
    n_frames += len(rest)
    n_samples += sum(len(frame.pcm) for frame in rest)
    assert n_frames == -(-n_pieces * len(piece) * 25 // rate)
    assert n_samples == n_frames * rate // 25
    assert rest[-1].pts_ms == 40 * (n_frames - 1)
    assert most_kept < 2 * 2 * (rate + 16_000)  # under two seconds of either buffer
    assert session.queued_s == 0
    assert not session.has_speech
