from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.lips import landmark_gap
from training.lip_sync.lip_regressor import (
    LipRegressor,
    change_gap,
    draw_faces,
    gap_of,
    point_error,
    train_lip_regressor,
)
from training.lip_sync.samples import PreparedClip


def test_the_regressor_learns_where_lips_are(stabilised: PreparedClip):
    faces, lips = draw_faces([stabilised], 24, np.random.default_rng(9))
    assert faces.shape == (24, 3, FACE_SIZE, FACE_SIZE)
    assert lips.shape == (24, 20, 2)
    beginner, trained = (train_lip_regressor([stabilised], steps, 16, seed=1) for steps in (1, 40))
    with torch.no_grad():
        errors = [point_error(network(faces), lips).item() for network in (beginner, trained)]
    assert errors[1] < 0.6 * errors[0]
    assert not any(weight.requires_grad for weight in trained.parameters())
    again = train_lip_regressor([stabilised], 40, 16, seed=1)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in trained.state_dict().items())


def test_the_gap_is_the_measured_one(stabilised: PreparedClip):
    lips = torch.from_numpy(stabilised.lips)
    assert np.allclose(gap_of(lips).numpy(), landmark_gap(stabilised.lips), atol=1e-4)
    opened = lips.clone()
    opened[:, 17:20, 1] += 2
    assert point_error(opened, lips) > point_error(lips + 0.3, lips) > point_error(lips, lips) == 0


def test_a_gap_is_changed_at_the_inner_lips_only(stabilised: PreparedClip):
    lips = torch.from_numpy(stabilised.lips[:2])
    changed = change_gap(lips, torch.tensor([0.0, -1.5]))
    assert torch.equal(changed[0], lips[0])
    assert (gap_of(changed) - gap_of(lips)).tolist() == pytest.approx([0, -1.5], abs=1e-4)
    assert torch.equal(changed[:, :12], lips[:, :12])


def test_light_does_not_move_lips():
    torch.manual_seed(2)
    network = LipRegressor().eval()
    faces = torch.rand(2, 3, FACE_SIZE, FACE_SIZE)
    with torch.no_grad():
        assert torch.allclose(network(faces), network(0.5 * faces + 0.2), atol=0.05)


def test_images_teach_through_the_regressor(stabilised: PreparedClip):
    faces, lips = draw_faces([stabilised], 2, np.random.default_rng(9))
    network = LipRegressor().eval().requires_grad_(False)
    faces.requires_grad_()
    point_error(network(faces), lips).backward()
    assert faces.grad is not None
    assert faces.grad[:, :, 60:].abs().sum() > 0
    assert not faces.grad[:, :, :40].any()
