"""Features of windows that share frames, against the whole network on each window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.backends import Device
from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.backends.graphs.lip_coord_net_int8 import quantise_convolutions
from inference.lip_reading.preprocess import WINDOW_FRAMES, MouthCrop
from inference.lip_reading.staged_network import StagedNetwork, stage_openvino, stage_torch
from inference.lip_reading.window_features import MANY, N_LAYERS, PaddedSpan, WindowFeatures
from inference.lip_reading.windows import to_network_input
from inference.models import LipCoordNet

FIRST = 1000
N_FRAMES = 90
INT8 = {"conv1": 1.0, "conv2": 0.5, "conv3": 0.5}


@pytest.fixture(scope="module")
def mouths() -> list[MouthCrop]:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (N_FRAMES, 64, 128, 3), np.uint8)
    return [MouthCrop(crop, rng.random((20, 2), np.float32)) for crop in crops]


@pytest.fixture(scope="module", params=["torch", "f32", "int8"])
def network(request: pytest.FixtureRequest) -> StagedNetwork:
    torch.manual_seed(3)
    module = LipCoordNet().eval()
    if request.param == "torch":
        return stage_torch(module, Device("cpu", "f32"))
    graph = build_lip_coord_net(module.state_dict())
    if request.param == "int8":
        quantise_convolutions(graph, INT8)
    return stage_openvino(lambda: graph, "", request.param, 1)


def run_whole(network: StagedNetwork, mouths: list[MouthCrop], span: PaddedSpan) -> np.ndarray:
    own = mouths[span.start - FIRST : span.end - FIRST]
    clip = [own[0]] * span.n_before + own + [own[-1]] * span.n_after
    video = to_network_input(np.stack([mouth.crop for mouth in clip])[None])
    return network(video, np.stack([mouth.lips for mouth in clip])[None])[0][0]


def run_shared(
    network: StagedNetwork, features: WindowFeatures, mouths: list[MouthCrop], span: PaddedSpan
) -> np.ndarray:
    own = np.stack([mouth.lips for mouth in mouths[span.start - FIRST : span.end - FIRST]])
    lips = np.pad(own, ((span.n_before, span.n_after), (0, 0), (0, 0)), "edge")
    return network.recur(features.compute([span]), lips[None])[0][0]


@pytest.mark.parametrize("length", [25, 61, 62, 63, 64, 65, 70, 73, 74, 75])
def test_a_window_has_the_logits_of_the_whole_network(network: StagedNetwork, mouths: list[MouthCrop], length: int):
    """Repeats: 25 on each side, a few more or fewer than MANY, and none."""
    features = WindowFeatures(network, FIRST)
    for start, end in ((0, 40), (40, 41), (41, N_FRAMES)):
        features.append(mouths[start:end])
    for start in (0, 5):
        features.drop_before(FIRST + start)
        span = PaddedSpan(FIRST + start, FIRST + start + length)
        expected = run_whole(network, mouths, span)
        assert np.ptp(expected) > 0.1
        assert np.abs(run_shared(network, features, mouths, span) - expected).max() < 1e-5


def test_windows_of_one_call_are_independent(network: StagedNetwork, mouths: list[MouthCrop]):
    features = WindowFeatures(network, FIRST)
    features.append(mouths)
    spans = [PaddedSpan(FIRST + start, FIRST + end) for start, end in ((0, 30), (0, 60), (0, 70), (15, 90), (0, 75))]
    both = features.compute(spans)
    assert both.shape[:2] == (len(spans), WINDOW_FRAMES)
    for span, one in zip(spans, both, strict=True):
        assert np.abs(one - features.compute([span])[0]).max() < 1e-4


def test_estimates_are_exact_if_the_last_frame_is_held(network: StagedNetwork, mouths: list[MouthCrop]):
    """Then the frames after the span show what its repeats do."""
    span = PaddedSpan(FIRST, FIRST + 40)
    features = WindowFeatures(network, FIRST)
    features.append([*mouths[:40], *[mouths[39]] * 10])
    (exact,), (near,) = features.compute([span]), features.estimate([span])
    # The first repeats still see motion; in int8 the summed weights of held frames are rounded once more.
    repeats = np.arange(WINDOW_FRAMES - span.n_after, WINDOW_FRAMES - N_LAYERS)
    assert np.abs(near - exact)[repeats].max() < 0.25 * np.ptp(exact)
    assert np.abs(np.delete(near - exact, repeats, 0)).max() < 1e-4


def test_estimates_differ_only_beside_the_ends(network: StagedNetwork, mouths: list[MouthCrop]):
    features = WindowFeatures(network, FIRST)
    features.append(mouths)
    spans = [PaddedSpan(FIRST, FIRST + length) for length in (40, 72, 75)]
    for span, exact, near in zip(spans, features.compute(spans), features.estimate(spans), strict=True):
        kept = slice(max(span.n_before, N_LAYERS), span.n_before + 40 - N_LAYERS)
        assert np.abs(near - exact)[kept].max() < 1e-4
        assert np.ptp(near - exact) > 1e-3


def test_estimates_up_to_the_last_frames_are_exact(network: StagedNetwork, mouths: list[MouthCrop]):
    features = WindowFeatures(network, FIRST)
    features.append(mouths)
    spans = [PaddedSpan(FIRST + 15, FIRST + N_FRAMES - i) for i in range(N_LAYERS)]
    assert np.abs(features.estimate(spans) - features.compute(spans)).max() < 1e-5


def test_frames_after_all_were_dropped_start_afresh(network: StagedNetwork, mouths: list[MouthCrop]):
    features = WindowFeatures(network, FIRST)
    features.append(mouths[:30])
    features.drop_before(FIRST + 30)
    features.append(mouths[30:])
    span = PaddedSpan(FIRST + 30, FIRST + 90)
    assert np.abs(run_shared(network, features, mouths, span) - run_whole(network, mouths, span)).max() < 1e-5


@pytest.mark.parametrize("length", [25, 40, 74, 75])
def test_the_frames_of_a_span_are_in_the_middle_of_its_window(length: int):
    span = PaddedSpan(10, 10 + length)
    assert span.n_before + length + span.n_after == WINDOW_FRAMES
    assert 0 <= span.n_after - span.n_before <= 1
    assert MANY < WINDOW_FRAMES // 4
