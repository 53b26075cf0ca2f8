from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.correlation import correlate
from training.common.face_packs import (
    FaceClip,
)
from training.common.lips import landmark_gap
from training.lip_sync.samples import (
    MOST_PRESSED,
    PRESSED_SHARE,
    PreparedClip,
    draw_batch,
    draw_sample,
    join_halves,
    measure_shapes,
    own_shapes,
    prepare_clip,
)
from training.lip_sync.shape_encoding import SHUT, WIDEST, spread


def test_lip_points_are_in_the_mouth_and_part_in_speech(prepared: PreparedClip):
    assert prepared.lips[..., 0].min() > 0.2 * FACE_SIZE
    assert prepared.lips[..., 0].max() < 0.8 * FACE_SIZE
    assert prepared.lips[..., 1].min() > 0.5 * FACE_SIZE
    gaps = landmark_gap(prepared.lips)
    assert gaps.max() > gaps.min() + 2


def test_the_window_of_a_frame_starts_one_frame_earlier(clip: FaceClip):
    loud = np.zeros(48000, np.int16)
    loud[16000:17600] = np.random.default_rng(0).integers(-9000, 9000, 1600)  # from 1.0 to 1.1 s: frames 25 to 27
    shapes = own_shapes([clip])[clip.name]
    mels = [prepare_clip(replace(clip, samples=loud), shapes).audio.window(i) for i in (19, 23, 26, 29, 30)]
    assert [mel.shape for mel in mels] == [(80, 16)] * 5
    assert [bool(mel.max() > 0) for mel in mels] == [False, True, True, True, False]


def test_a_batch_never_shows_the_target_mouth(stabilised: PreparedClip):
    batch = draw_batch([stabilised], 16, np.random.default_rng(5))
    assert batch.shapes.shape == (16, 3)
    assert batch.faces.shape == (16, 6, FACE_SIZE, FACE_SIZE)
    assert batch.targets.shape == (16, 3, FACE_SIZE, FACE_SIZE)
    assert batch.lips.shape == (16, 20, 2)
    assert not batch.faces[:, :3, FACE_SIZE // 2 :].any()
    assert torch.equal(batch.faces[:, :3, : FACE_SIZE // 2], batch.targets[:, :, : FACE_SIZE // 2])
    shown = batch.faces[:, 3:]
    assert ((shown - batch.targets).abs().flatten(1).amax(1) > 0.05).all()
    seen = batch.lips[:, 19, 1] - batch.lips[:, 13, 1]  # on faces of other sizes, bent and turned
    asked = seen + batch.gap_changes
    assert correlate(asked.numpy(), batch.shapes[:, 0].numpy()) > 0.9
    again = draw_batch([stabilised], 16, np.random.default_rng(5))
    assert torch.equal(again.faces, batch.faces)
    assert torch.equal(again.shapes, batch.shapes)


def test_some_samples_ask_for_pressed_lips_on_a_closed_mouth(stabilised: PreparedClip):
    samples = [draw_sample(stabilised, np.random.default_rng(i)) for i in range(60)]
    pressed = [one for one in samples if one.gap_change]
    assert 0.5 * PRESSED_SHARE < len(pressed) / len(samples) < 2 * PRESSED_SHARE
    for one in pressed:
        assert MOST_PRESSED <= one.shape[0] <= 0
        assert one.gap_change < 0
    true = stabilised.shapes[:, 0]
    assert min(one.shape[0] for one in pressed) < min(true.min(), 0)
    of_opening_1 = stabilised.gaps[true.argmax()] - stabilised.gaps[true.argmin()]
    assert stabilised.gap_unit == pytest.approx(of_opening_1 / (true.max() - true.min()), rel=0.1)
    ordinary = [one for one in samples if not one.gap_change]
    assert all((one.shape == stabilised.shapes).all(1).any() for one in ordinary)


def test_lips_that_never_close_are_not_pressed(stabilised: PreparedClip):
    still = replace(stabilised, shapes=np.full((75, 3), 0.5, np.float32))
    assert still.gap_unit == 0
    assert not any(draw_sample(still, np.random.default_rng(i)).gap_change for i in range(20))


def test_a_target_has_the_upper_half_of_its_input():
    upper, lower = np.full((FACE_SIZE, FACE_SIZE, 3), 200, np.uint8), np.full((FACE_SIZE, FACE_SIZE, 3), 40, np.uint8)
    joined = join_halves(upper, lower)[:, 0, 0]
    assert (joined[:44] == 200).all()
    assert (joined[53:] == 40).all()
    assert joined[48] == 120
    assert (np.diff(joined.astype(int)) <= 0).all()


def test_shapes_describe_motion_and_not_the_person(prepared: PreparedClip):
    shapes = measure_shapes(prepared.lips)
    assert shapes.shape == (75, 3)
    assert np.array_equal(shapes[:, 0], prepared.gaps)
    assert np.allclose(shapes[:, 1:].mean(0), 0, atol=1e-4)
    assert correlate(shapes[:, 1], prepared.gaps) > 0.8  # an opening mouth grows taller
    thicker = prepared.lips.copy()
    thicker[:, 9, 1] += 3
    assert np.allclose(measure_shapes(thicker), shapes, atol=1e-4)


def test_an_opening_is_counted_in_that_of_its_person(clip: FaceClip):
    wider = clip.lips.copy()
    wider[..., 13:16, 1] -= 1.5  # the gap that is measured of closed lips differs between people
    wider[..., 1] *= 1.2
    wider[..., 0] *= 1.1
    shapes = own_shapes([clip, replace(clip, name="b", person="b", lips=wider)])
    assert shapes[clip.name].shape == (len(clip.lips), 3)
    assert np.allclose(shapes["b"], shapes[clip.name], atol=1e-3)
    assert np.percentile(shapes["b"][:, 0], 8) == pytest.approx(0, abs=0.02)
    assert np.percentile(shapes["b"][:, 0], 97) == pytest.approx(1, abs=0.02)
    alone = own_shapes([clip])[clip.name]
    calm = replace(clip, name="calm", lips=np.repeat(clip.lips[:1], len(clip.lips), axis=0))  # of the same person
    assert not np.allclose(own_shapes([clip, calm])[clip.name], alone, atol=0.05)


def test_shapes_are_spread_about_evenly():
    spread_shapes = spread(torch.tensor([[0.0, 0.5, -2.0], [1.0, 0, 0]]))
    assert torch.allclose(spread_shapes, torch.tensor([[SHUT, 0.5, -2.0], [WIDEST, 0, 0]]))
