from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.face_networks import make_s3fd, make_wav2lip, run_module, s3fd_input, wav2lip_inputs
from support.golden_weights import seeded_state

from inference.backends import OpenVinoNetwork
from inference.backends.graphs.wav2lip import build_s3fd, build_wav2lip, smooth_audio
from inference.errors import WrongWeights
from inference.models import Wav2Lip
from inference.models.wav2lip import SmoothedWav2Lip


@pytest.mark.parametrize("n", [1, 3])
def test_the_graph_of_wav2lip_equals_the_module(n: int):
    wav2lip = make_wav2lip()
    (expected,) = run_module(wav2lip, *wav2lip_inputs(n))
    (found,) = OpenVinoNetwork(build_wav2lip(wav2lip.state_dict()))(*wav2lip_inputs(n))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("n", [1, 3])
def test_smoothed_audio_averages_the_embeddings_of_three_windows(n: int):
    wav2lip, smoothing = make_wav2lip(), 0.2
    audio, face = wav2lip_inputs(n)
    windows = np.stack([audio[:, 0] + shift for shift in (-0.5, 0, 0.5)], 1)
    before, own, after = (wav2lip.audio_encoder(torch.from_numpy(windows[:, i : i + 1])) for i in range(3))
    mean = smoothing * before + (1 - 2 * smoothing) * own + smoothing * after
    expected = wav2lip.draw(mean, torch.from_numpy(face)).detach().numpy()

    (of_module,) = run_module(SmoothedWav2Lip(wav2lip, smoothing), windows, face)
    (of_graph,) = OpenVinoNetwork(smooth_audio(build_wav2lip(wav2lip.state_dict()), smoothing))(windows, face)

    np.testing.assert_allclose(of_module, expected, atol=1e-6)
    np.testing.assert_allclose(of_graph, expected, atol=1e-5)
    assert np.abs(expected - run_module(wav2lip, audio, face)[0]).max() > 1e-3


def test_no_smoothing_leaves_the_graph_as_it_is():
    model = build_wav2lip(make_wav2lip().state_dict())
    assert smooth_audio(model, 0) is model


def test_a_graph_with_other_names_is_refused():
    model = build_wav2lip(make_wav2lip().state_dict())
    for node in model.get_ops():
        node.set_friendly_name(f"my {node.get_friendly_name()}")
    with pytest.raises(WrongWeights, match=r"no layer 'face_decoder_blocks\.0\.0'"):
        smooth_audio(model, 0.1)


@pytest.mark.parametrize("size", [(160, 128), (97, 131)])
def test_the_graph_of_s3fd_equals_the_module(size: tuple[int, int]):
    s3fd = make_s3fd()
    expected = run_module(s3fd, s3fd_input(*size))
    for one, other in zip(OpenVinoNetwork(build_s3fd(s3fd.state_dict()))(s3fd_input(*size)), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_full_size_network_agrees_with_upstream(shared: Path):
    module = Wav2Lip().eval()
    module.load_state_dict(seeded_state(module))
    with np.load(shared / "golden" / "wav2lip.npz") as golden:
        output = OpenVinoNetwork(build_wav2lip(module.state_dict()))(*wav2lip_inputs())[0]
        np.testing.assert_allclose(output, golden["output"], atol=1e-4)
