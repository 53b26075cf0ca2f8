from __future__ import annotations

import numpy as np
import pytest

from training.common.espeak import has_library
from training.lip_sync.audio_samples import (
    AudioExample,
    draw_audio_batch,
    draw_silence,
    make_clip_mels,
    scale_frequencies,
    synthesise_examples,
    vary_mel,
)
from training.lip_sync.face_packs import (
    FaceClip,
)
from training.lip_sync.samples import (
    PreparedClip,
)


def test_audio_batches_have_the_shapes_of_their_frames(prepared: PreparedClip):
    numbers = np.repeat(np.arange(prepared.n_frames, dtype=np.float32)[:, None], 3, 1)
    measured = AudioExample(prepared.audio, numbers, np.ones(3, np.float32), (5,))
    gap_only = AudioExample(
        prepared.audio, numbers * np.array([1, 0, 0], np.float32), np.array([1, 0, 0], np.float32), (7,)
    )
    mels, shapes, known = draw_audio_batch([[measured], [gap_only]], 300, np.random.default_rng(3))
    assert mels.shape == (300, 1, 80, 16)
    assert shapes.shape == known.shape == (300, 3)
    assert {tuple(row) for row in known.tolist()} == {(1, 1, 1), (1, 0, 0)}
    assert (shapes[:, 1] == shapes[:, 0] * known[:, 1]).all()
    at_rest = (shapes[:, 0] == 5) | (shapes[:, 0] == 7)
    assert 0.06 < at_rest.float().mean() < 0.2  # a tenth of each kind is silence
    loudest = mels.flatten(1).amax(1)
    assert loudest[at_rest].median() < loudest[~at_rest].median() - 1


def test_audio_has_degraded_copies_of_its_length(clip: FaceClip):
    audio, again = (make_clip_mels(clip.samples, 75, (1, 2)) for _ in range(2))
    assert len({mel.shape for mel in audio.mels}) == 1
    assert all(np.array_equal(a, b) for a, b in zip(audio.mels, again.mels, strict=True))
    plain, *others = (mel.astype(np.float32) for mel in audio.mels)
    assert all(0.05 < np.abs(other - plain).mean() < 4 for other in others)


@pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")
def test_only_the_gap_is_known_of_synthetic_voices():
    examples = synthesise_examples(3, seed=1)
    assert all(len(one.audio.mels[0][0]) > len(one.shapes) for one in examples)
    all_shapes = np.concatenate([one.shapes for one in examples])
    assert all_shapes[:, 0].mean() == pytest.approx(0, abs=1e-3)
    assert all_shapes[:, 0].std() == pytest.approx(1, abs=1e-3)
    assert not all_shapes[:, 1:].any()
    assert all(one.known.tolist() == [1, 0, 0] for one in examples)


def test_mels_vary_within_their_scale():
    rng = np.random.default_rng(2)
    mel = rng.uniform(-4, 4, (80, 16)).astype(np.float32)
    for _ in range(30):
        changed = vary_mel(mel, rng)
        assert changed.shape == mel.shape
        assert -4 <= changed.min() <= changed.max() <= 4
        assert draw_silence(rng).max() < 1
    tone = np.full((80, 16), -4, np.float32)
    tone[40] = 2
    assert scale_frequencies(tone, 1.1).mean(1).argmax() == 44
    assert np.array_equal(scale_frequencies(tone, 1.0), tone)
