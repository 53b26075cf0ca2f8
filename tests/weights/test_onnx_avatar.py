"""Conversion of the avatar's networks, and their import from ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.avatar_source import NARROW, NARROW_ENCODER
from support.golden_weights import rng_for, seeded_state, uniform

from inference.backends import OpenVinoNetwork
from inference.conversion.convert import convert
from inference.errors import WrongWeights
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.weights.architectures import to_module
from inference.weights.onnx_avatar import encoder_from_onnx, unet_from_onnx
from inference.weights.openvino_files import read_openvino
from inference.weights.resolve import from_path


@pytest.fixture(scope="module")
def unet() -> AvatarUNet:
    unet = AvatarUNet("ave", NARROW, 2).eval()
    unet.load_state_dict(seeded_state(unet, 0.9))
    return unet


@pytest.fixture(scope="module")
def encoder() -> AudioVisualEncoder:
    encoder = AudioVisualEncoder(NARROW_ENCODER).eval()
    encoder.load_state_dict(seeded_state(encoder, 1.0))
    return encoder


@pytest.fixture(scope="module")
def folder(unet: AvatarUNet, encoder: AudioVisualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    torch.save({"model_state_dict": unet.state_dict()}, folder / "unet.pth")
    torch.save({k.removeprefix("audio_encoder."): v for k, v in encoder.state_dict().items()}, folder / "encoder.pth")
    return folder


def inputs(unet: AvatarUNet) -> tuple[np.ndarray, np.ndarray]:
    return uniform("face", (2, 6, 320, 320)), rng_for("audio").standard_normal((2, *unet.audio_shape), np.float32)


def test_a_unet_survives_export_and_import(unet: AvatarUNet, folder: Path, tmp_path: Path):
    """Other tools run the exported file, and packages of the seed engine contain one."""
    (path,) = convert(from_path(folder / "unet.pth", "unet"), "onnx", "f32", tmp_path)
    face, audio = inputs(unet)
    with torch.inference_mode():
        expected = unet(torch.from_numpy(face), torch.from_numpy(audio)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(["output"], {"input": face, "audio": audio})
    np.testing.assert_allclose(output, expected, atol=5e-5)
    tensors, mode = unet_from_onnx(path)
    again = to_module(AvatarUNet.like(tensors, mode), tensors)
    with torch.inference_mode():
        np.testing.assert_allclose(again(torch.from_numpy(face), torch.from_numpy(audio)), expected, atol=5e-5)


def test_float16_weights_are_imported(folder: Path, tmp_path: Path):
    (path,) = convert(from_path(folder / "unet.pth", "unet"), "onnx", "f16", tmp_path)
    assert unet_from_onnx(path)[1] == "ave"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["hubert", "wenet"])
def test_the_mode_follows_from_the_strides(mode: str, tmp_path: Path):
    unet = AvatarUNet(mode, NARROW, 4).eval()
    examples = torch.zeros(1, 6, 320, 320), torch.zeros(1, *unet.audio_shape)
    torch.onnx.export(unet, examples, tmp_path / "unet.onnx", opset_version=17, dynamo=False)
    assert unet_from_onnx(tmp_path / "unet.onnx")[1] == mode


def test_an_audio_encoder_survives_export_and_import(encoder: AudioVisualEncoder, folder: Path, tmp_path: Path):
    (path,) = convert(from_path(folder / "encoder.pth", "encoder"), "onnx", "f32", tmp_path)
    tensors = encoder_from_onnx(path)
    again = to_module(AudioVisualEncoder.like(tensors), tensors)
    mel = torch.from_numpy(uniform("mel", (2, 1, 80, 16)) * 8 - 4)
    with torch.inference_mode():
        np.testing.assert_allclose(again(mel), encoder(mel), atol=1e-4)
    with pytest.raises(WrongWeights, match="another network: found"):
        unet_from_onnx(path)


@pytest.mark.parametrize("name", ["unet", "encoder"])
def test_openvino_files_equal_the_modules_and_are_recognised(
    unet: AvatarUNet, encoder: AudioVisualEncoder, folder: Path, tmp_path: Path, name: str
):
    path = next(
        p for p in convert(from_path(folder / f"{name}.pth", name), "openvino", "f32", tmp_path) if p.suffix == ".xml"
    )
    given = inputs(unet) if name == "unet" else (uniform("mel", (2, 1, 80, 16)) * 8 - 4,)
    module = unet if name == "unet" else encoder
    with torch.inference_mode():
        expected = module(*map(torch.from_numpy, given)).numpy()
    np.testing.assert_allclose(OpenVinoNetwork(read_openvino(path, None).model)(*given)[0], expected, atol=1e-4)
