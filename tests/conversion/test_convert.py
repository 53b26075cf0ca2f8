from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from safetensors import safe_open

from inference.conversion import onnx_export
from inference.conversion.convert import convert
from inference.errors import InvalidRequest, WrongWeights
from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into, read_tensors
from inference.weights.openvino_files import read_openvino
from inference.weights.registry import LIP_READING, STARTER
from inference.weights.resolve import ResolvedWeights, find_weights
from inference.weights.sources import WeightSources

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
SHAPES = [(1, 20), (2, 7), (1, 1)]  # batch and number of frames
TOLERANCE = {"f32": 1e-4, "f16": 1e-2}


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> ResolvedWeights:
    return find_weights("starter", LIP_READING, WeightSources(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def module(starter: ResolvedWeights) -> LipCoordNet:
    module = LipCoordNet().eval()
    load_into(module, starter.path)
    return module


def by_onnxruntime(path: Path) -> Run:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda video, lips: session.run(["logits"], {"video": video, "lips": lips})[0]


def by_openvino(path: Path) -> Run:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda video, lips: model({"video": video, "lips": lips})["logits"]


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize(("target", "runtime"), [("onnx", by_onnxruntime), ("openvino", by_openvino)])
def test_logits_are_the_same_for_any_batch_and_length(
    starter: ResolvedWeights,
    module: LipCoordNet,
    tmp_path: Path,
    target: str,
    runtime: Callable[[Path], Run],
    precision: str,
):
    run = runtime(convert(starter, target, precision, tmp_path)[-1])
    torch.manual_seed(7)
    for n_clips, n_frames in SHAPES:
        video, lips = torch.rand(n_clips, 3, n_frames, 64, 128), torch.rand(n_clips, n_frames, 20, 2)
        with torch.inference_mode():
            expected = module(video, lips).numpy()
        assert np.abs(run(video.numpy(), lips.numpy()) - expected).max() < TOLERANCE[precision]


@pytest.mark.parametrize(("target", "precision"), [("safetensors", "f16"), ("safetensors", "bf16"), ("onnx", "f16")])
def test_half_precision_halves_the_files(starter: ResolvedWeights, tmp_path: Path, target: str, precision: str):
    (whole,), (half,) = (convert(starter, target, one, tmp_path) for one in ("f32", precision))
    assert whole.name == f"starter.{target}"
    assert half.name == f"starter-{precision}.{target}"
    assert half.stat().st_size < 0.51 * whole.stat().st_size


def test_safetensors_contain_the_same_tensors_and_their_origin(
    starter: ResolvedWeights, module: LipCoordNet, tmp_path: Path
):
    (path,) = convert(starter, "safetensors", "f32", tmp_path)
    tensors = read_tensors(path)
    assert all(torch.equal(tensors[key], value) for key, value in module.state_dict().items())
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about["made_from_sha256"] == STARTER.files[0].sha256
    assert about["licence"] == STARTER.licence


def test_an_onnx_file_names_its_axes_and_its_origin(starter: ResolvedWeights, tmp_path: Path):
    (path,) = convert(starter, "onnx", "f32", tmp_path)
    model = onnx.load(path)
    axes = {
        port.name: [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim] for port in model.graph.input
    }
    assert axes == {"video": ["batch", 3, "time", 64, 128], "lips": ["batch", "time", 20, 2]}
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert {p.key: p.value for p in model.metadata_props}["made_from_sha256"] == STARTER.files[0].sha256


def test_a_converted_file_keeps_its_name(tmp_path: Path):
    torch.manual_seed(3)
    torch.save({"state_dict": LipCoordNet().state_dict()}, tmp_path / "mine.pt")
    found = find_weights(tmp_path / "mine.pt", LIP_READING, WeightSources(tmp_path))
    assert convert(found, "safetensors", "f32", tmp_path / "out") == [tmp_path / "out" / "mine.safetensors"]


def test_weights_of_another_network_are_refused_and_nothing_is_written(tmp_path: Path):
    torch.save({"layer": torch.zeros(3)}, tmp_path / "mine.pt")
    with pytest.raises(WrongWeights, match="another model"):
        convert(
            find_weights(tmp_path / "mine.pt", LIP_READING, WeightSources(tmp_path)), "onnx", "f32", tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "precision", "words"),
    [("tflite", "f32", "--to"), ("onnx", "int8", "--precision for onnx"), ("openvino", "bf16", "--precision")],
)
def test_an_unknown_format_or_precision_is_refused(
    starter: ResolvedWeights, tmp_path: Path, target: str, precision: str, words: str
):
    with pytest.raises(InvalidRequest, match=rf"{words} .*expected one of"):
        convert(starter, target, precision, tmp_path)


def test_a_write_that_fails_leaves_nothing(starter: ResolvedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(model, path: str) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(onnx, "save_model", fail)
    with pytest.raises(OSError, match="no space"):
        convert(starter, "onnx", "f32", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_int8_logits_are_close_and_need_samples(starter: ResolvedWeights, module: LipCoordNet, tmp_path: Path):
    pytest.importorskip("nncf")
    with pytest.raises(InvalidRequest, match="needs samples"):
        convert(starter, "openvino", "int8", tmp_path)
    rng = np.random.default_rng(0)
    # Smooth, as images are: noise would give other value ranges.
    video = np.repeat(np.repeat(rng.random((1, 3, 12, 8, 16), dtype=np.float32), 8, axis=3), 8, axis=4)
    lips = rng.random((1, 12, 20, 2), dtype=np.float32)
    paths = convert(starter, "openvino", "int8", tmp_path, lambda _: [(video, lips)])
    assert [path.name for path in paths] == ["starter-int8.bin", "starter-int8.xml"]
    read = read_openvino(paths[-1])
    assert read.is_int8
    assert read.made_from == STARTER.files[0].sha256
    with torch.inference_mode():
        expected = module(torch.from_numpy(video), torch.from_numpy(lips)).numpy()
    difference = np.abs(by_openvino(paths[-1])(video, lips) - expected)
    assert 0 < difference.max() < 0.1 * np.ptp(expected)


def test_the_error_names_the_extra_if_onnx_is_missing(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without_onnx(name, *rest):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(InvalidRequest, match=r"pip install 'viseme\[onnx\]'"):
        onnx_export.import_onnx()
