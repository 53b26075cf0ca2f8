"""The stages of the network, one after another, against the whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from inference.backends import OpenVinoNetwork
from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.backends.graphs.lip_coord_net_int8 import quantise_convolutions
from inference.backends.graphs.lip_coord_net_stages import split_stages
from inference.conversion.convert import write_openvino
from inference.models import LipCoordNet

INT8 = {"conv1": 1.0, "conv2": 0.5, "conv3": 0.5}
VIDEO = np.random.default_rng(1).random((2, 3, 6, 64, 128), dtype=np.float32)
LIPS = np.random.default_rng(2).random((2, 6, 20, 2), dtype=np.float32)


@pytest.fixture(scope="module")
def network() -> LipCoordNet:
    torch.manual_seed(5)
    return LipCoordNet().eval()


def build(network: LipCoordNet, ranges: Mapping[str, float]) -> ov.Model:
    graph = build_lip_coord_net(network.state_dict())
    quantise_convolutions(graph, ranges)
    return graph


def run_stages(graph: ov.Model) -> np.ndarray:
    graphs = split_stages(graph)
    x = VIDEO
    for stage in (*graphs.convolutions, graphs.projection):
        (x,) = OpenVinoNetwork(stage)(x)
    return OpenVinoNetwork(graphs.recurrence)(x, LIPS)[0]


def test_the_stages_are_the_network(network: LipCoordNet):
    with torch.inference_mode():
        expected = network(torch.from_numpy(VIDEO), torch.from_numpy(LIPS)).numpy()
    assert np.abs(run_stages(build(network, {})) - expected).max() < 1e-5


def test_the_stages_of_a_quantised_network_are_quantised_alike(network: LipCoordNet):
    graph = build(network, INT8)
    (expected,) = OpenVinoNetwork(build(network, INT8))(VIDEO, LIPS)
    exact = run_stages(build(network, {}))
    found = run_stages(graph)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - exact).max() > 1e-5


@pytest.mark.parametrize(("ranges", "tolerance"), [({}, 1e-5), (INT8, 0.2)])
def test_a_held_frame_has_the_features_of_a_video_of_it(
    network: LipCoordNet, ranges: Mapping[str, float], tolerance: float
):
    """In int8 its weights are rounded differently."""
    graphs = split_stages(build(network, ranges))
    x = np.repeat(VIDEO[:, :, :1], 7, 2)
    for stage in graphs.convolutions:
        (x,) = OpenVinoNetwork(stage)(x)
    (found,) = OpenVinoNetwork(graphs.held)(VIDEO)
    assert found.shape == (2, 6, x.shape[2])
    assert np.abs(found[:, 0] - x[:, 3]).max() < tolerance * np.ptp(x)
    assert np.abs(found[:, 1] - x[:, 3]).max() > tolerance * np.ptp(x)


def test_weights_stored_in_half_precision_are_read(network: LipCoordNet, tmp_path: Path):
    path = write_openvino(build(network, {}), tmp_path / "net.xml", {}, is_half=True)[-1]
    stored = ov.Core().read_model(path)
    assert np.abs(run_stages(stored) - run_stages(build(network, {}))).max() < 2e-3
