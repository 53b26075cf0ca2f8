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
from training.avatar import train_audio_encoder, train_unet
from training.avatar.assemble import assemble
from training.avatar.identity_init import (
    WIDEN,
    fusion_layers,
    generate,
    initialise_as_identity,
    measure_statistics,
    weight_of,
)
from training.avatar.split_unet import find_basis, split
from training.avatar.train_audio_encoder import ENCODER_WIDTHS, N_SHAPES, UNET_WIDTHS, AvatarAudioNetwork
from training.make_weights import main

WIDTHS = (8, 8, 8, 16, 16)
needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed")


def make_unet() -> AvatarUNet:
    torch.manual_seed(0)
    return AvatarUNet("ave", WIDTHS, 1)


def draw_faces(side: int) -> torch.Tensor:
    """Return smooth images, (3, 6, side, side)."""
    small = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    faces = torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic").clamp(0, 1)
    return torch.cat([faces, torch.zeros_like(faces)], dim=1)


def test_generation_is_the_network_from_the_branch_on():
    unet = make_unet().eval()
    face, audio = torch.rand(1, 6, 320, 320), torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(generate(unet, face, unet.audio_model(audio)), unet(face, audio))


def test_the_initial_network_outputs_its_input_face():
    unet, face = make_unet(), draw_faces(64)
    shape_map = torch.rand(3, WIDTHS[-1], 2, 2)
    with torch.no_grad():
        before = (generate(unet, face, shape_map) - face[:, :3]).abs().mean()
        initialise_as_identity(unet, face, shape_map, 2)
        after = (generate(unet.eval(), face, shape_map) - face[:, :3]).abs()
    assert before > 0.1
    assert after.max() < 0.105  # the largest difference of the sigmoid from a line
    assert after.mean() < 0.06


@torch.no_grad()
def test_the_shape_reaches_every_scale_of_the_decoder():
    unet, face = make_unet(), draw_faces(192)
    shape_map = torch.zeros(3, WIDTHS[-1], 6, 6)
    shape_map[:, :2] = torch.tensor([[0.1, 0.9], [0.5, 0.3], [1.2, 0.0]])[:, :, None, None]
    initialise_as_identity(unet, face, shape_map, 2)
    seen = []
    for part in (unet.fuse_conv, unet.up1, unet.up2, unet.up3, unet.up4):
        part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    generate(unet.eval(), face, shape_map)
    assert [one.shape[2] for one in seen] == [6, 12, 24, 48, 96]
    for one in seen:
        middle = one.shape[2] // 2
        assert torch.allclose(one[:, :2, middle, middle], shape_map[:, :2, 0, 0], atol=0.06)


def test_statistics_are_those_of_the_batch_and_momentum_is_restored():
    unet, face = make_unet(), draw_faces(64)
    shape_map = torch.rand(3, WIDTHS[-1], 2, 2)
    measure_statistics(unet, face, shape_map)
    with torch.no_grad():
        widened = unet.inc.inconv[0].conv[0](face)
    norm = unet.inc.inconv[0].conv[1]
    assert torch.allclose(norm.running_mean, widened.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, widened.var((0, 2, 3)), atol=1e-6)
    assert {norm.momentum for norm in unet.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {0.1}


def test_windows_of_the_face_and_of_the_map_match():
    pixels, places = train_unet.window_at((train_unet.N_WINDOWS - 1, 0))
    assert pixels[2:] == (slice(192, 320), slice(0, 128))
    assert places[2:] == (slice(6, 10), slice(0, 4))


def test_a_jittered_box_stays_a_square_in_the_frame():
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = train_unet.jitter(FaceBox(142, 280, 362, 500), rng)
        assert box.width == box.height
        assert 0 <= box.left < box.right <= 512
        assert 0 <= box.top < box.bottom <= 512


def test_images_differ_at_the_mouth_and_weigh_more_there():
    mouth = np.array([1.2, 0, 0, 0, 0, 0, 0], np.float32)
    pair = train_unet.PortraitCrops().render_pair(3, mouth, None)
    rest, target = (train_unet.to_unit_range(torch.from_numpy(one.copy())[None]) for one in pair)
    weights = train_unet.change_weights(rest, target)
    moved = (target - rest).abs().mean(1, keepdim=True)
    assert moved[..., :40, :].max() < 0.2
    assert weights[moved > train_unet.CHANGE].min() > 2
    assert weights.min() == 1
    assert train_unet.compute_loss(target, target, weights) == 0
    assert train_unet.compute_loss(rest, target, weights) > train_unet.compute_loss(
        rest, target, torch.ones_like(weights)
    )


def test_drawn_mouths_are_within_bounds():
    rng = np.random.default_rng(0)
    mouths = np.stack([train_unet.draw_mouth(rng) for _ in range(300)])
    assert mouths.min() == 0
    assert (mouths <= train_unet.MAX_SHAPE).all()
    assert 0.08 < (mouths == 0).all(axis=1).mean() < 0.25
    assert (mouths.max(axis=0) > 0.8).all()
    assert len(train_unet.sentence_mouths(12, 1)) == 12


@torch.no_grad()
def test_an_assembled_unet_uses_the_shape_that_is_read_out():
    torch.manual_seed(0)
    audio_network, unet = AvatarAudioNetwork().eval(), train_unet.make_unet().eval()
    nn.init.normal_(audio_network.shape.bias)
    nn.init.normal_(audio_network.shape.weight)
    train_unet.boost_shape_weights(unet)
    deepest, audio = torch.rand(1, UNET_WIDTHS[-1], 10, 10), torch.rand(1, 16, 16, 16)
    shape_map = torch.zeros(1, UNET_WIDTHS[-1], 10, 10)
    shape_map[:, :N_SHAPES] = audio_network.shape(audio_network.branch(audio))
    shape_map[:, 0] = 1.2 * shape_map[:, 0] - 0.3 - 0.4 * shape_map[:, 3]
    expected = unet.fuse_conv(torch.cat([deepest, shape_map], dim=1))
    tensors = {key: value for key, value in unet.state_dict().items() if not key.startswith(train_unet.AUDIO_BRANCH)}
    assembled = assemble(audio_network, tensors, gain=1.2, bias=-0.3, press=0.4)
    output, without_audio = (
        assembled.fuse_conv(torch.cat([deepest, assembled.audio_model(x)], dim=1)) for x in (audio, audio * 0)
    )
    assert (output - expected).abs().max() < 0.01 * (without_audio - expected).abs().max()


@torch.no_grad()
def test_the_numbers_of_a_mouth_are_in_the_span_of_an_assembled_unet():
    """With their places in the span known, splitting undoes assembling."""
    torch.manual_seed(0)
    audio_network, unet = AvatarAudioNetwork().eval(), train_unet.make_unet().eval()
    nn.init.normal_(audio_network.shape.bias)
    train_unet.boost_shape_weights(unet)
    tensors = {key: value for key, value in unet.state_dict().items() if not key.startswith(train_unet.AUDIO_BRANCH)}
    assembled = assemble(audio_network, tensors)
    basis, merged = find_basis(assembled)
    widen = weight_of(fusion_layers(unet)[WIDEN])[:, -UNET_WIDTHS[-1] :, 0, 0]
    true = widen[:, :N_SHAPES]
    assert torch.allclose(basis.columns @ (basis.columns.T @ merged), merged, atol=1e-4)
    basis.mixing.copy_(basis.columns.T @ true)
    basis.offset.copy_(-basis.columns.T @ true @ audio_network.shape.bias)
    found = split(assembled, basis)
    layers, expected = fusion_layers(found), fusion_layers(unet)
    assert torch.allclose(weight_of(layers[WIDEN])[:, -UNET_WIDTHS[-1] :, 0, 0][:, :N_SHAPES], true, atol=1e-4)
    assert torch.allclose(layers[WIDEN + 1].running_mean, expected[WIDEN + 1].running_mean, atol=1e-4)


def rounds_of(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert np.isfinite([line["loss"] for line in lines]).all()
    return [line["round"] for line in lines]


@needs_espeak
def test_a_tiny_run_makes_an_avatar_and_resumes(tmp_path: Path):
    main(["avatar", "--tiny", "-o", str(tmp_path)])
    audio_run, unet_run, assembled = (tmp_path / "avatar" / name for name in ("audio", "unet", "assembled"))
    unet, encoder = read_unet(assembled / "network.safetensors"), read_encoder(assembled / "audio_encoder.safetensors")
    assert (unet.sizes.widths, unet.sizes.audio_shape) == (UNET_WIDTHS, (16, 16, 16))
    assert encoder.sizes == ENCODER_WIDTHS
    few = ["--batch", "1", "--steps", "2"]
    audio_arguments = ["-o", str(audio_run), "--n-utterances", "2", "--look-ahead", "1", *few]
    unet_arguments = ["-o", str(unet_run), "--n-scored", "1", *few]
    for module, arguments, run in (
        (train_audio_encoder, audio_arguments, audio_run),
        (train_unet, unet_arguments, unet_run),
    ):
        assert rounds_of(run) == [1]
        module.main(arguments)
        assert rounds_of(run) == [1, 2]
