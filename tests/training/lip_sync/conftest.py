from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.faces import Landmarker
from training.common.face_packs import FaceClip, crop_rendered_clip
from training.lip_sync.samples import PreparedClip, own_shapes, prepare_clip, prepare_stabilised
from training.lip_sync.train_audio import make_encoder, write_encoder


@pytest.fixture(scope="session")
def clip(landmarker: Landmarker) -> FaceClip:
    return crop_rendered_clip(3, landmarker)


@pytest.fixture(scope="session")
def prepared(clip: FaceClip) -> PreparedClip:
    return prepare_clip(clip, own_shapes([clip])[clip.name])


@pytest.fixture(scope="session")
def stabilised(clip: FaceClip) -> PreparedClip:
    return prepare_stabilised(clip, own_shapes([clip])[clip.name])


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of an audio half, whose batch norms have statistics of noise."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    half = make_encoder()
    for module in half.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        half(torch.randn(8, 1, 80, 16))
    write_encoder(half, path)
    return path
