from __future__ import annotations

import numpy as np
import pytest

from container.live.legacy.audio_chunks import AudioChunkEncoder
from container.live.legacy.single_frames import encode_centre_window
from inference.avatar import AvatarPackage

CHUNK = 640  # samples: 40 ms at 16 kHz
N_EARLIER = 10  # chunks that only the longer request has; windows repeat their positions every five


def with_look_ahead(package: AvatarPackage, n_windows: int) -> AvatarPackage:
    return AvatarPackage(package._manifest.model_copy(update={"look_ahead_windows": n_windows}), package._parts)


def encode_all(package: AvatarPackage, samples: np.ndarray, n_frames: int) -> list[np.ndarray]:
    chunks = [one.astype("<i2").tobytes() for one in samples.reshape(-1, CHUNK)]
    encoder = AudioChunkEncoder(package, chunks, n_frames)
    return [encoder.encode(k)[0] for k in range(n_frames)]


@pytest.mark.parametrize(("look_ahead", "n_padded"), [(1, 7), (6, 2)])
def test_rows_before_the_requests_audio_are_padded(avatar_package: AvatarPackage, look_ahead: int, n_padded: int):
    """Of the first frame; of each frame after it one row less."""
    package, rng = with_look_ahead(avatar_package, look_ahead), np.random.default_rng(0)
    samples = (rng.standard_normal((N_EARLIER + 8 + 9 + 15) * CHUNK) * 5000).astype(np.int16)
    known = encode_all(package, samples, N_EARLIER + 9)[N_EARLIER:]
    for k, rows in enumerate(encode_all(package, samples[N_EARLIER * CHUNK :], 9)):
        differing = np.abs(rows - known[k]).max(1) > 1e-6
        assert differing.tolist() == [j < n_padded - k for j in range(16)]


def test_a_single_frame_gets_the_same_rows_as_in_a_batch(avatar_package: AvatarPackage):
    package, rng = with_look_ahead(avatar_package, 1), np.random.default_rng(1)
    samples = (rng.standard_normal(16 * CHUNK) * 5000).astype(np.int16)
    np.testing.assert_allclose(
        encode_centre_window(package, samples, 16_000), encode_all(package, samples, 1)[0], atol=1e-6
    )
