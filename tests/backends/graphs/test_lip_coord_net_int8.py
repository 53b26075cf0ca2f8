from __future__ import annotations

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import opset13 as ops

from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.backends.graphs.lip_coord_net_int8 import quantise_convolutions, store_in_int8
from inference.conversion.int8_lip_coord_net import measure_input_ranges
from inference.models import LipCoordNet


def test_weights_are_rounded_per_output_channel_by_hand():
    weights = np.array([[1.27, -0.5], [0.0, 0.0], [-254.0, 3.0]], np.float32).reshape(3, 2, 1, 1, 1)
    stored = store_in_int8(ops, weights)
    numbers = ov.Core().compile_model(ov.Model([stored], [], "stored"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])
    assert numbers[0].ravel() == pytest.approx([1.27, -0.5, 0, 0, -254, 4])


def test_only_named_convolutions_are_quantised_and_images_stay_exact():
    network = LipCoordNet().eval()
    model = build_lip_coord_net(network.state_dict())
    quantise_convolutions(model, {"conv1": 1.0})
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert kinds.count("FakeQuantize") == 1
    video = np.random.default_rng(0).integers(0, 256, (1, 3, 3, 64, 128)).astype(np.float32) / np.float32(255)
    levels = ops.fake_quantize(ops.constant(video), *(np.float32(x) for x in (0, 1, 0, 1)), 256)
    (same,) = (
        ov.Core()
        .compile_model(ov.Model([levels], [], "levels"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])
        .values()
    )
    assert same == pytest.approx(video, abs=1e-6)


def test_input_ranges_are_means_over_samples():
    network = LipCoordNet().eval()
    lips = np.zeros((1, 2, 20, 2), np.float32)
    videos = [np.full((1, 3, 2, 64, 128), level, np.float32) for level in (0.2, 0.8)]
    each = [measure_input_ranges(network, [(video, lips)]) for video in videos]
    both = measure_input_ranges(network, [(video, lips) for video in videos])
    assert both["conv1"] == 1.0
    for name in ("conv2", "conv3"):
        assert both[name] == pytest.approx((each[0][name] + each[1][name]) / 2, abs=2e-3)
    with torch.inference_mode():
        pooled = network._pool(torch.relu(network.conv1(torch.from_numpy(videos[1]))))
    assert each[1]["conv2"] == pytest.approx(float(pooled.max()), abs=1e-3)
