from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from inference.faces import Landmarker
from inference.lip_sync.model import find_checkpoint
from inference.models import Wav2Lip
from inference.settings import Settings
from inference.weights.architectures import WAV2LIP, load_module
from training.common.lips import landmark_gap
from training.lip_sync.drawn_clips import draw_clip, draw_clips, draw_faces, find_lips, set_openings
from training.lip_sync.samples import PreparedClip
from training.lip_sync.shape_encoding import ShapeEncoding
from training.lip_sync.train import LipSyncRecipe


@pytest.fixture(scope="module")
def network() -> Wav2Lip:
    found = find_checkpoint("starter", Settings.from_env().weight_sources)
    return cast(Wav2Lip, load_module(found.path, WAV2LIP)[1]).float().eval()


@pytest.fixture(scope="module")
def encoding() -> ShapeEncoding:
    return ShapeEncoding(LipSyncRecipe.seed)


def test_wider_shapes_are_drawn_and_found_wider(
    network: Wav2Lip, encoding: ShapeEncoding, prepared: PreparedClip, landmarker: Landmarker
):
    shapes = set_openings(prepared.shapes[[0, 0, 0]], np.array([-0.1, 0.6, 1.4], np.float32))
    faces = draw_faces(network, encoding, [prepared.faces[0]] * 3, shapes)
    assert faces[0].shape == (120, 120, 3)
    gaps = [float(landmark_gap(lips)) for _, lips in find_lips(faces, landmarker)]
    assert gaps == sorted(gaps)
    assert gaps[2] > 2 * gaps[0]


def test_lips_are_placed_as_in_packs(prepared: PreparedClip, landmarker: Landmarker):
    (_, lips), *_ = find_lips([prepared.faces[10]], landmarker)
    assert np.abs(lips - prepared.lips[10]).mean() < 2


def test_the_same_seed_draws_the_same_clips(
    network: Wav2Lip, encoding: ShapeEncoding, prepared: PreparedClip, landmarker: Landmarker
):
    (one,), (again,) = (draw_clips(network, encoding, [prepared], landmarker, seed=4) for _ in range(2))
    assert np.array_equal(one.faces, again.faces)
    assert len(one.faces) == len(one.lips) == len(one.gaps) > 8
    assert one.gaps.max() > 2 * one.gaps.min()


def test_a_clip_without_faces_is_left_out(
    network: Wav2Lip,
    encoding: ShapeEncoding,
    prepared: PreparedClip,
    landmarker: Landmarker,
    monkeypatch: pytest.MonkeyPatch,
):
    grey = np.full_like(prepared.faces[0], 128)
    monkeypatch.setattr("training.lip_sync.drawn_clips.draw_faces", lambda *_: [grey, prepared.faces[4]])
    drawn = draw_clip(network, encoding, prepared, landmarker, np.random.default_rng(1))
    assert drawn is not None
    assert np.array_equal(drawn.faces, prepared.faces[4:5])
    monkeypatch.setattr("training.lip_sync.drawn_clips.draw_faces", lambda *_: [grey])
    assert draw_clips(network, encoding, [prepared], landmarker, seed=1) == []
