"""Conversion of Wav2Lip and S3FD."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from openvino import opset13 as ops
from safetensors import safe_open
from support.face_networks import run_module, s3fd_input, wav2lip_inputs
from support.small_wav2lip import NARROW

from container.cli import main
from inference.backends import Device
from inference.backends.graphs.wav2lip import build_wav2lip
from inference.conversion.convert import convert, find_convertible, write_openvino
from inference.dimensions.wav2lip import Wav2LipWidths
from inference.errors import InvalidRequest, WeightsNotFound, WrongWeights
from inference.lip_sync import LipSyncer
from inference.lip_sync.model import load_generator, load_s3fd
from inference.models import S3FD, Wav2Lip
from inference.settings import Settings
from inference.weights.architectures import S3FD_DETECTOR, WAV2LIP
from inference.weights.openvino_files import read_openvino
from inference.weights.registry import LIP_SYNC, REGISTRY, WeightFile, WeightSet
from inference.weights.resolve import from_path
from inference.weights.sources import WeightSources

CPU = Device("cpu", "f32")


@pytest.mark.parametrize(("target", "precision"), [("openvino", "f16"), ("openvino", "f32"), ("onnx", "f16")])
def test_wav2lip_converts(wav2lip: Wav2Lip, files: dict[str, Path], tmp_path: Path, target: str, precision: str):
    path = convert(from_path(files["wav2lip"], "wav2lip.pth"), target, precision, tmp_path)[-1]
    if target == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(["faces"], dict(zip(("audio", "face"), wav2lip_inputs(), strict=True)))[0]
    else:
        assert path.name == f"wav2lip{'' if precision == 'f32' else '-f16'}.xml"
        found = load_generator(str(tmp_path), CPU, WeightSources(tmp_path)).generate_faces(*wav2lip_inputs())
    (expected,) = run_module(wav2lip, *wav2lip_inputs())
    assert np.abs(found - expected).max() < (1e-5 if precision == "f32" else 0.02)
    if target == "openvino":
        n_bytes = sum(value.numel() for value in wav2lip.state_dict().values()) * (4 if precision == "f32" else 2)
        assert path.with_suffix(".bin").stat().st_size < n_bytes * 1.1


def test_s3fd_converts(s3fd: S3FD, files: dict[str, Path], tmp_path: Path):
    found = from_path(files["s3fd"], "s3fd.pth")
    paths = convert(found, "openvino", "f16", tmp_path)
    assert [path.name for path in paths] == ["s3fd-f16.bin", "s3fd-f16.xml"]
    assert 42e6 < sum(path.stat().st_size for path in paths) < 46e6
    detector = load_s3fd(from_path(tmp_path, "s3fd"), CPU)
    expected = run_module(s3fd, s3fd_input(96, 96))
    for one, other in zip(detector._network(s3fd_input(96, 96)), expected, strict=True):
        assert np.abs(one - other).max() < 0.02 * max(np.abs(other).max(), 1)
    with pytest.raises(InvalidRequest, match="int8: not for S3FD"):
        convert(found, "openvino", "int8", tmp_path)


def test_safetensors_halve_a_checkpoint_and_record_its_origin(files: dict[str, Path], tmp_path: Path, weights_cache):
    (path,) = convert(from_path(files["wav2lip"], "a"), "safetensors", "bf16", tmp_path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["architecture"] == "Wav2Lip"
        assert json.loads(file.metadata()["widths"]) == json.loads(json.dumps(NARROW))
        assert file.get_tensor("output_block.1.weight").dtype == torch.bfloat16
        assert file.get_tensor("output_block.0.conv_block.1.num_batches_tracked").dtype == torch.int64
    assert LipSyncer([path], device="cpu", precision="f32").generators[0].name == "wav2lip-bf16"


def swap_relu(graph: openvino.Model) -> None:
    relu = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Relu")
    openvino.utils.replace_node(relu, ops.tanh(relu.input(0).get_source_output()))


@pytest.mark.parametrize(
    ("change", "widths", "words"),
    [
        (swap_relu, json.dumps(NARROW), "another graph than Wav2Lip's"),
        (lambda _: None, None, "not Wav2Lip as"),
        (lambda _: None, json.dumps(Wav2LipWidths()), "another (graph|network) than Wav2Lip"),
        (lambda _: None, "[[100000000]]", "its widths are"),
        (lambda _: None, "{", "not Wav2Lip as"),
    ],
    ids=["another graph", "no widths", "other widths", "huge widths", "no JSON"],
)
def test_any_other_openvino_file_is_refused(
    wav2lip: Wav2Lip, tmp_path: Path, change: Callable, widths: str | None, words: str
):
    graph = build_wav2lip(wav2lip.state_dict())
    change(graph)
    about = {"architecture": "Wav2Lip"} | ({"widths": widths} if widths is not None else {})
    path = write_openvino(graph, tmp_path / "a.xml", about, is_half=False)[-1]
    with pytest.raises(WrongWeights, match=words):
        read_openvino(path, WAV2LIP)


def test_one_network_is_not_accepted_as_another(files: dict[str, Path], tmp_path: Path):
    path = convert(from_path(files["wav2lip"], "a"), "openvino", "f16", tmp_path)[-1]
    assert read_openvino(path, None).architecture is WAV2LIP
    with pytest.raises(WrongWeights, match="another network than S3FD"):
        read_openvino(path, S3FD_DETECTOR)
    with pytest.raises(WrongWeights, match="another network than LipCoordNet"):
        read_openvino(path)
    with pytest.raises(InvalidRequest, match="runs on a CPU, not on cuda"):
        load_generator(str(path), Device("cuda", "f16"), WeightSources(tmp_path))


def test_the_command_converts_user_supplied_weights(
    files: dict[str, Path], settings: Settings, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SM_MODEL_DIR", str(files["wav2lip"].parent))
    assert main(["weights", "convert", "wav2lip", "--to", "openvino", "--precision", "f16", "-o", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert out.split() == [str(tmp_path / "wav2lip-f16.bin"), str(tmp_path / "wav2lip-f16.xml")]
    assert "exclude commercial use" in err
    generator = load_generator(str(tmp_path), CPU, WeightSources(tmp_path))
    assert generator.notice is not None
    assert main(["weights", "verify", str(tmp_path / "wav2lip-f16.xml")]) == 0
    out, err = capfd.readouterr()
    assert out == f"{generator.sha256}  {tmp_path / 'wav2lip-f16.xml'}\n"
    assert "a whole Wav2Lip" in err
    assert main(["weights", "verify", str(files["s3fd"])]) == 0
    assert "a whole S3FD" in capfd.readouterr().err


def test_the_error_says_how_to_supply_a_missing_set(tmp_path: Path):
    with pytest.raises(WeightsNotFound, match=r"s3fd\.pth does not come with Viseme"):
        find_convertible("s3fd", WeightSources(tmp_path))


def test_a_set_of_another_task_resolves_by_its_name(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contents = files["wav2lip"].read_bytes()
    ours = WeightSet(
        name="ours",
        task=LIP_SYNC,
        architecture="Wav2Lip",
        files=(WeightFile("wav2lip.pth", hashlib.sha256(contents).hexdigest()),),
        source="here",
        licence="ours",
        shipped_in=files["wav2lip"].parent,
    )
    monkeypatch.setitem(REGISTRY, "ours", ours)
    assert find_convertible("ours", WeightSources(tmp_path)).weight_set is ours
    with pytest.raises(WeightsNotFound, match="no such set"):
        find_convertible("mediapipe", WeightSources(tmp_path))
