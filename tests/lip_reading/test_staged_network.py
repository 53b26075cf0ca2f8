from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.backends.lazy_network import LazyNetwork
from inference.lip_reading.staged_network import stage_openvino
from inference.models import LipCoordNet


def fail():
    raise AssertionError("a stored network needs no graph")


def test_a_stored_network_for_long_videos_is_loaded_when_it_is_needed(tmp_path: Path):
    torch.manual_seed(3)
    graph = build_lip_coord_net(LipCoordNet().eval().state_dict())
    x = np.random.default_rng(0).random((1, 3, 2, 64, 128), np.float32)
    compiled = stage_openvino(lambda: graph, "key", "f32", 1, tmp_path / "compiled")
    assert not isinstance(compiled.hold, LazyNetwork)
    stored = stage_openvino(fail, "key", "f32", 1, tmp_path / "compiled")
    assert isinstance(stored.hold, LazyNetwork)
    np.testing.assert_array_equal(stored.hold(x)[0], compiled.hold(x)[0])
