from __future__ import annotations

import numpy as np
import pytest
import torch
from support.avatar_source import NARROW, NARROW_ENCODER
from support.golden_weights import rng_for, seeded_state, uniform

from inference.avatar.network import make_generator
from inference.backends import Device, OpenVinoNetwork
from inference.backends.graphs.avatar import build_encoder, build_generator, build_unet
from inference.dimensions.avatar import FACE_SIDE, UNetDimensions
from inference.models import AudioVisualEncoder, AvatarGenerator, AvatarUNet
from inference.weights.architectures import weights_of

CPU = Device("cpu", "f32")


def make_unet(mode: str) -> AvatarUNet:
    unet = AvatarUNet(mode, NARROW, 8).eval()
    unet.load_state_dict(seeded_state(unet, 0.9))
    return unet


def sizes_of(unet: AvatarUNet) -> UNetDimensions:
    return UNetDimensions(unet.mode, unet.widths, unet.audio_shape[0])


def audio_input(unet: AvatarUNet, n: int) -> np.ndarray:
    return rng_for("audio").standard_normal((n, *unet.audio_shape), dtype=np.float32)


@pytest.mark.parametrize("mode", ["ave", "hubert", "wenet"])
def test_the_graph_of_the_unet_equals_the_module(mode: str):
    unet = make_unet(mode)
    face, audio = uniform("face", (2, 6, 320, 320)), audio_input(unet, 2)
    with torch.inference_mode():
        expected = unet(torch.from_numpy(face), torch.from_numpy(audio)).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(
        OpenVinoNetwork(build_unet(unet.state_dict(), sizes_of(unet)))(face, audio)[0], expected, atol=1e-5
    )


def test_the_graph_of_the_generator_takes_and_returns_images():
    painter = AvatarGenerator(make_unet("ave")).eval()
    face = (uniform("levels", (1, 320, 320, 3)) * 256).astype(np.uint8)
    audio = audio_input(painter.unet, 1)
    with torch.inference_mode():
        expected = painter(torch.from_numpy(face), torch.from_numpy(audio)).numpy()
    output = OpenVinoNetwork(build_generator(painter.unet.state_dict(), sizes_of(painter.unet)))(face, audio)[0]
    assert output.dtype == np.uint8
    apart = np.abs(output.astype(int) - expected)
    assert apart.max() <= 1  # values at the edge between two levels
    assert (apart > 0).mean() < 1e-3


def test_the_graph_of_the_encoder_equals_the_module():
    encoder = AudioVisualEncoder(NARROW_ENCODER).eval()
    encoder.load_state_dict(seeded_state(encoder, 1.2))
    mel = uniform("mel", (3, 1, 80, 16)) * 8 - 4
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(mel)).numpy()
    assert expected.shape == (3, 32)
    assert expected.std() > 0.01
    np.testing.assert_allclose(OpenVinoNetwork(build_encoder(encoder.state_dict()))(mel)[0], expected, atol=1e-4)


def test_frames_of_several_sessions_in_one_call_are_those_of_each_alone():
    unet, n = make_unet("ave"), 3
    alone, batching = (make_generator(weights_of(unet), CPU, n_threads=1, max_batch=most) for most in ("auto", n))
    faces = rng_for("faces").integers(0, 256, (n, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    audio = audio_input(unet, n)
    together = batching._network(faces, audio)[0]
    for i in range(n):
        (one,) = alone(faces[i : i + 1], audio[i : i + 1])
        assert np.abs(one[0].astype(int) - together[i]).max() <= 1
    assert (alone._most, batching._most) == (1, n)
