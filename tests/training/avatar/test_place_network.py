from __future__ import annotations

import numpy as np
import torch
from torch import nn

from inference.audio.avatar_features import FEATURE_ROWS
from training.avatar.place_network import PlaceNetwork, number_at
from training.avatar.train_audio_encoder import (
    ENCODER_WIDTHS,
    N_SHAPES,
    UNET_WIDTHS,
    bundled_speech_encoder,
    join_networks,
    load_layers,
)


def make_network() -> PlaceNetwork:
    torch.manual_seed(0)
    network = PlaceNetwork(ENCODER_WIDTHS[-1], UNET_WIDTHS, N_SHAPES).eval()
    for layer in (network.conv4, network.conv6, network.conv7):
        nn.init.normal_(layer.narrow.weight, std=0.1)
        nn.init.normal_(layer.narrow.bias)
    return network


def test_features_repeat_in_a_pattern_of_two_by_two():
    assert [number_at(feature) for feature in (0, 1, 2, 15, 16, 17, 32, 255)] == [0, 1, 0, 1, 2, 3, 0, 3]


@torch.no_grad()
def test_the_published_layout_computes_it_at_every_place_inside_the_edge():
    network, layers = make_network(), load_layers(bundled_speech_encoder())
    mels = torch.from_numpy(np.random.default_rng(0).uniform(-4, 4, (18, 80, 16)).astype(np.float32))
    rows = layers(mels[:, None]).flatten(1)
    expected = network(torch.stack([rows[i : i + FEATURE_ROWS] for i in range(3)]))
    places = join_networks(layers, network)(mels[None])[0]  # (3, 7, 10, 10)
    assert expected.std(0).min() > 1e-4
    inside = places[..., 1:9, 1:9]
    assert torch.allclose(inside, expected[..., None, None].expand_as(inside), atol=1e-3)
    edges = places.flatten(-2)[..., [0, 5, 9, 90, 99]]
    assert (edges - edges[:1]).abs().max() < 1e-5  # they have no audio
