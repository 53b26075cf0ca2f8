"""The avatar's networks in other forms, and out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from drawn_avatar import NARROW, NARROW_EAR
from golden_weights import rng_for, seeded_state, uniform

from inference.backends import OpenVinoNetwork
from inference.conversion.convert import convert
from inference.conversion.onnx_avatar_import import encoder_from_onnx, unet_from_onnx
from inference.conversion.onnx_reader import read_onnx
from inference.conversion.openvino_files import read_openvino
from inference.errors import WrongWeights
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.weights.resolve import from_path


@pytest.fixture(scope="module")
def unet() -> AvatarUNet:
    unet = AvatarUNet("ave", NARROW, 2).eval()
    unet.load_state_dict(seeded_state(unet, 0.9))
    return unet


@pytest.fixture(scope="module")
def ear() -> AudioVisualEncoder:
    ear = AudioVisualEncoder(NARROW_EAR).eval()
    ear.load_state_dict(seeded_state(ear, 1.0))
    return ear


@pytest.fixture(scope="module")
def folder(unet: AvatarUNet, ear: AudioVisualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    torch.save({"model_state_dict": unet.state_dict()}, folder / "unet.pth")
    torch.save({k.removeprefix("audio_encoder."): v for k, v in ear.state_dict().items()}, folder / "ear.pth")
    return folder


def inputs(unet: AvatarUNet) -> tuple[np.ndarray, np.ndarray]:
    return uniform("face", (2, 6, 320, 320)), rng_for("voice").standard_normal((2, *unet.audio_shape), np.float32)


def test_a_unet_goes_to_onnx_and_back(unet: AvatarUNet, folder: Path, tmp_path: Path):
    """As other tools are given it, and as a package of the seed engine holds it."""
    (path,) = convert(from_path(folder / "unet.pth", "unet"), "onnx", "f32", tmp_path)
    face, audio = inputs(unet)
    with torch.inference_mode():
        expected = unet(torch.from_numpy(face), torch.from_numpy(audio)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (said,) = session.run(["output"], {"input": face, "audio": audio})
    np.testing.assert_allclose(said, expected, atol=5e-5)
    tensors, mode = unet_from_onnx(path)
    again = AvatarUNet.like(tensors, mode).eval()
    again.load_state_dict(tensors)
    with torch.inference_mode():
        np.testing.assert_allclose(again(torch.from_numpy(face), torch.from_numpy(audio)), expected, atol=5e-5)


def test_halved_numbers_are_read_too(folder: Path, tmp_path: Path):
    (path,) = convert(from_path(folder / "unet.pth", "unet"), "onnx", "f16", tmp_path)
    assert unet_from_onnx(path)[1] == "ave"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["hubert", "wenet"])
def test_strides_tell_the_mode(mode: str, tmp_path: Path):
    unet = AvatarUNet(mode, NARROW, 4).eval()
    examples = torch.zeros(1, 6, 320, 320), torch.zeros(1, *unet.audio_shape)
    torch.onnx.export(unet, examples, tmp_path / "unet.onnx", opset_version=17, dynamo=False)
    assert unet_from_onnx(tmp_path / "unet.onnx")[1] == mode


def test_an_ear_goes_to_onnx_and_back(ear: AudioVisualEncoder, folder: Path, tmp_path: Path):
    (path,) = convert(from_path(folder / "ear.pth", "ear"), "onnx", "f32", tmp_path)
    tensors = encoder_from_onnx(path)
    again = AudioVisualEncoder.like(tensors).eval()
    again.load_state_dict(tensors)
    mel = torch.from_numpy(uniform("mel", (2, 1, 80, 16)) * 8 - 4)
    with torch.inference_mode():
        np.testing.assert_allclose(again(mel), ear(mel), atol=1e-4)
    with pytest.raises(WrongWeights, match="another network: found"):
        unet_from_onnx(path)


@pytest.mark.parametrize("name", ["unet", "ear"])
def test_openvino_files_say_the_same_and_are_known_again(
    unet: AvatarUNet, ear: AudioVisualEncoder, folder: Path, tmp_path: Path, name: str
):
    path = next(
        p for p in convert(from_path(folder / f"{name}.pth", name), "openvino", "f32", tmp_path) if p.suffix == ".xml"
    )
    given = inputs(unet) if name == "unet" else (uniform("mel", (2, 1, 80, 16)) * 8 - 4,)
    module = unet if name == "unet" else ear
    with torch.inference_mode():
        expected = module(*map(torch.from_numpy, given)).numpy()
    np.testing.assert_allclose(OpenVinoNetwork(read_openvino(path, None).model)(*given)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "not an ONNX model"),
        (b"hello, this is no model at all", "not an ONNX model"),
        (b"\x3a\xff\xff\xff\xff\x0f", "not an ONNX model"),  # a graph longer than the file
        (b"\x3a\x02\x0a\x05", "not an ONNX model"),  # a node longer than the graph
        (b"\xff" * 11, "not an ONNX model"),  # a number without an end
    ],
)
def test_what_is_no_onnx_is_said(tmp_path: Path, blob: bytes, words: str):
    (tmp_path / "model.onnx").write_bytes(blob)
    with pytest.raises(WrongWeights, match=words):
        read_onnx(tmp_path / "model.onnx")


def test_numbers_in_another_file_are_not_fetched(tmp_path: Path):
    import onnx

    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    (tmp_path / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(WrongWeights, match="are in another file"):
        read_onnx(tmp_path / "model.onnx")
