from __future__ import annotations

import ctypes.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inference.avatar.network import read_encoder, read_unet
from inference.faces import FaceBox
from inference.models import AvatarUNet
from training.avatar import train_audio_encoder as ear
from training.avatar import train_unet as avatar
from training.avatar.assemble import join
from training.avatar.identity_init import measure_levels, paint, start_as_copy
from training.make_weights import main

WIDTHS = (8, 8, 8, 16, 16)
needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed")


def make_unet() -> AvatarUNet:
    torch.manual_seed(0)
    return AvatarUNet("ave", WIDTHS, 1)


def draw_faces(side: int) -> torch.Tensor:
    """Smooth pictures, (3, 6, side, side)."""
    small = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    faces = torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic").clamp(0, 1)
    return torch.cat([faces, torch.zeros_like(faces)], dim=1)


def test_painting_is_the_network_from_the_branch_on():
    unet = make_unet().eval()
    face, audio = torch.rand(1, 6, 320, 320), torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(paint(unet, face, unet.audio_model(audio)), unet(face, audio))


def test_a_copy_gives_the_face_back_before_it_learned_anything():
    unet, face = make_unet(), draw_faces(64)
    heard = torch.rand(3, WIDTHS[-1], 2, 2)
    with torch.no_grad():
        before = (paint(unet, face, heard) - face[:, :3]).abs().mean()
        start_as_copy(unet, face, heard, 2)
        after = (paint(unet.eval(), face, heard) - face[:, :3]).abs()
    assert before > 0.1
    assert after.max() < 0.105  # the sigmoid against its tangent, at its worst; on the whole it is nearer
    assert after.mean() < 0.06


@torch.no_grad()
def test_what_is_told_comes_to_every_size_of_the_way_up():
    unet, face = make_unet(), draw_faces(192)
    told = torch.zeros(3, WIDTHS[-1], 6, 6)
    told[:, :2] = torch.tensor([[0.1, 0.9], [0.5, 0.3], [1.2, 0.0]])[:, :, None, None]
    start_as_copy(unet, face, told, 2)
    seen = []
    for part in (unet.fuse_conv, unet.up1, unet.up2, unet.up3, unet.up4):
        part.register_forward_hook(lambda *given: seen.append(given[2]))
    paint(unet.eval(), face, told)
    assert [one.shape[2] for one in seen] == [6, 12, 24, 48, 96]
    for one in seen:
        middle = one.shape[2] // 2
        assert torch.allclose(one[:, :2, middle, middle], told[:, :2, 0, 0], atol=0.06)


def test_levels_are_those_of_the_batch_and_momentum_comes_back():
    unet, face = make_unet(), draw_faces(64)
    heard = torch.rand(3, WIDTHS[-1], 2, 2)
    measure_levels(unet, face, heard)
    with torch.no_grad():
        widened = unet.inc.inconv[0].conv[0](face)
    norm = unet.inc.inconv[0].conv[1]
    assert torch.allclose(norm.running_mean, widened.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, widened.var((0, 2, 3)), atol=1e-6)
    assert {norm.momentum for norm in unet.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {0.1}


def test_windows_of_a_face_and_of_the_map_belong_together():
    pixels, places = avatar.window_at((avatar.N_WINDOWS - 1, 0))
    assert pixels[2:] == (slice(192, 320), slice(0, 128))
    assert places[2:] == (slice(6, 10), slice(0, 4))


def test_a_jittered_box_stays_a_square_in_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = avatar.jitter(FaceBox(142, 280, 362, 500), rng)
        assert box.width == box.height
        assert 0 <= box.left < box.right <= 512
        assert 0 <= box.top < box.bottom <= 512


def test_pictures_differ_by_the_mouth_and_weigh_more_there():
    mouth = np.array([1.2, 0, 0, 0, 0, 0, 0], np.float32)
    pair = avatar.Studio().pair(3, mouth, None)
    rest, target = (avatar.to_numbers(torch.from_numpy(one.copy())[None]) for one in pair)
    weights = avatar.weigh(rest, target)
    moved = (target - rest).abs().mean(1, keepdim=True)
    assert moved[..., :40, :].max() < 0.2
    assert weights[moved > avatar.CHANGE].min() > 2
    assert weights.min() == 1
    assert avatar.loss_of(target, target, weights) == 0
    assert avatar.loss_of(rest, target, weights) > avatar.loss_of(rest, target, torch.ones_like(weights))


def test_mouths_to_paint_are_within_what_a_mouth_can_do():
    rng = np.random.default_rng(0)
    mouths = np.stack([avatar.draw_mouth(rng) for _ in range(300)])
    assert mouths.min() == 0
    assert (mouths <= avatar.MOST).all()
    assert 0.08 < (mouths == 0).all(axis=1).mean() < 0.25
    assert (mouths.max(axis=0) > 0.8).all()
    assert len(avatar.draw_sentences(12, 1)) == 12


@torch.no_grad()
def test_an_ear_and_a_painter_joined_paint_what_the_ear_reads():
    torch.manual_seed(0)
    listener, unet = ear.Ear().eval(), avatar.make_unet().eval()
    nn.init.normal_(listener.shape.bias)
    nn.init.normal_(listener.shape.weight)
    avatar.boost_mouth(unet)
    deepest, audio = torch.rand(1, ear.UNET_WIDTHS[-1], 10, 10), torch.rand(1, 16, 16, 16)
    told = torch.zeros(1, ear.UNET_WIDTHS[-1], 10, 10)
    told[:, : ear.N_SHAPES] = listener.shape(listener.branch(audio))
    told[:, 0] = 1.2 * told[:, 0] - 0.3
    expected = unet.fuse_conv(torch.cat([deepest, told], dim=1))
    painter = {key: value for key, value in unet.state_dict().items() if not key.startswith(avatar.BRANCH)}
    joined = join(listener, painter, gain=1.2, shut=0.3)
    heard, silence = (joined.fuse_conv(torch.cat([deepest, joined.audio_model(x)], dim=1)) for x in (audio, audio * 0))
    assert (heard - expected).abs().max() < 0.01 * (silence - expected).abs().max()


def rounds_of(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert np.isfinite([line["loss"] for line in lines]).all()
    return [line["round"] for line in lines]


@needs_espeak
def test_a_tiny_run_makes_an_avatar_and_goes_on_where_it_stopped(tmp_path: Path):
    main(["avatar", "--tiny", "-o", str(tmp_path)])
    heard, painted, made = (tmp_path / "avatar" / name for name in ("ear", "painter", "made"))
    unet, encoder = read_unet(made / "network.safetensors"), read_encoder(made / "audio_encoder.safetensors")
    assert (unet.widths, unet.audio_shape) == (ear.UNET_WIDTHS, (16, 16, 16))
    assert encoder.widths == ear.EAR_WIDTHS
    few = ["--batch", "1", "--steps", "2"]
    listen = ["-o", str(heard), "--n-utterances", "2", "--n-held-out", "1", *few]
    for module, words, run in ((ear, listen, heard), (avatar, ["-o", str(painted), "--n-scored", "1", *few], painted)):
        assert rounds_of(run) == [1]
        module.train(module.read_recipe(words))
        assert rounds_of(run) == [1, 2]
