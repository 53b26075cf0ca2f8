from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from training.common.mouth_packs import MouthClip, decode_crops, place_words
from training.lip_reading.initialise import initialise_network


def make_clip(seed: int) -> MouthClip:
    """Return a clip of soft noise around a bright grey, with lip points that move by a hundredth."""
    rng = np.random.default_rng(seed)
    strip = cv2.GaussianBlur(rng.integers(120, 255, (75 * 64, 128, 3), np.uint8), (0, 0), 3)
    lips = np.linspace(0.3, 0.7, 40).reshape(20, 2) + rng.normal(0, 0.01, (75, 20, 2))
    word_indices, word_progress = place_words(np.arange(6.0) * 10 + 8, np.arange(6.0) * 10 + 18)
    words = ("BIN", "BLUE", "AT", "F", "TWO", "NOW")
    return MouthClip(
        f"c{seed}",
        "a",
        words,
        cv2.imencode(".jpg", strip)[1].ravel(),
        lips.astype(np.float32),
        word_indices,
        word_progress,
    )


@torch.no_grad()
def test_every_layer_starts_with_outputs_of_variance_one():
    clips = [make_clip(seed) for seed in range(4)]
    network = initialise_network(clips, 7)
    x = torch.from_numpy(np.stack([decode_crops(clip) for clip in clips])).permute(0, 4, 1, 2, 3).float() / 255
    for conv in (network.conv1, network.conv2, network.conv3):
        y = conv(x)
        assert y.mean((0, 2, 3, 4)).abs().max() < 1e-2
        assert (y.std((0, 2, 3, 4)) - 1).abs().max() < 1e-2
        x = torch.relu(network._pool(y))
    lips = torch.from_numpy(np.stack([clip.lips for clip in clips])).flatten(2).flatten(0, 1)
    gates = lips @ network.coord_gru.weight_ih_l0.T + network.coord_gru.bias_ih_l0
    untouched = torch.nn.GRU(40, 128).weight_ih_l0
    assert gates.mean(0).abs().max() < 0.3
    assert gates.std(0).mean() == pytest.approx(float((untouched.std() * 40**0.5).detach()), rel=0.3)


def test_initial_weights_are_the_same_for_the_same_seed():
    clips = [make_clip(0)]
    one, again, other = (initialise_network(clips, seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["FC.weight"], other["FC.weight"])
