from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.backends import Device
from inference.backends.openvino_network import has_bf16
from inference.conversion.convert import convert
from inference.errors import InvalidRequest
from inference.lip_reading.model import load_model, recorded_precisions, recorded_ranges
from inference.weights import openvino_files
from inference.weights.registry import LIP_READING, STARTER, WeightSet
from inference.weights.resolve import find_weights
from inference.weights.sources import WeightSources

CPU = Device("cpu", "auto")
PAIR = ("f32", "int8")


@pytest.fixture(scope="module")
def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.random((2, 3, 9, 64, 128), dtype=np.float32), rng.random((2, 9, 20, 2), dtype=np.float32)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    return convert(find_weights("starter", LIP_READING, WeightSources(folder)), "openvino", "f32", folder)[-1]


def test_an_openvino_model_gives_the_logits_of_its_source(
    graph_file: Path, inputs: tuple[np.ndarray, np.ndarray], tmp_path: Path
):
    plain, graph = load_model("starter", Device("cpu", "f32"), tmp_path), load_model(graph_file, CPU, tmp_path)
    assert np.abs(graph.network(*inputs)[0] - plain.network(*inputs)[0]).max() < 1e-4
    assert graph.device == Device("cpu", "f32")
    assert (graph.landmarks, graph.language) == (plain.landmarks, plain.language) == ("mediapipe", "grid")
    assert graph.calibration == plain.calibration
    assert graph.info.sha256 != plain.info.sha256


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bfloat16")
def test_bf16_is_close(graph_file: Path, inputs: tuple[np.ndarray, np.ndarray], tmp_path: Path):
    (exact,) = load_model("starter", Device("cpu", "f32"), tmp_path).network(*inputs)
    for weights in ("starter", graph_file):
        (near,) = load_model(weights, Device("cpu", "bf16"), tmp_path).network(*inputs)
        assert near.dtype == np.float32
        assert 0 < np.abs(near - exact).max() < 0.05 * np.ptp(exact)


@pytest.mark.parametrize(
    ("device", "words"),
    [(Device("cuda", "f16"), "runs on a CPU, not on cuda"), (Device("cpu", "int8"), "not quantised to int8; expected")],
)
def test_an_openvino_model_refuses_other_devices_and_precisions(
    graph_file: Path, tmp_path: Path, device: Device, words: str
):
    with pytest.raises(InvalidRequest, match=words):
        load_model(graph_file, device, tmp_path)


def test_a_quantised_model_runs_in_int8_only(
    graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: tuple[np.ndarray, np.ndarray]
):
    read = openvino_files.read_openvino(graph_file)
    marked = replace(read, is_int8=True)
    monkeypatch.setattr("inference.weights.openvino_files.read_openvino", lambda _: marked)
    assert load_model(graph_file, CPU, tmp_path).device == Device("cpu", "int8")
    with pytest.raises(InvalidRequest, match="is quantised to int8; expected precision auto or int8"):
        load_model(graph_file, Device("cpu", "f32"), tmp_path)


def with_card(monkeypatch: pytest.MonkeyPatch, **parts: dict[str, object]) -> None:
    """Give the starter a card with these parts, for its very weights."""
    for_these_weights = {key: part | {"sha256": STARTER.files[0].sha256} for key, part in parts.items()}
    card = {
        key: part for key, part in STARTER.read_card().items() if key not in ("int8", "cpu_precision")
    } | for_these_weights
    monkeypatch.setattr(WeightSet, "read_card", lambda _: json.loads(json.dumps(card)))


def test_int8_without_ranges_names_the_conversion_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with_card(monkeypatch)
    with pytest.raises(InvalidRequest, match="viseme weights convert starter --to openvino --precision int8 -o DIR"):
        load_model("starter", Device("cpu", "int8"), tmp_path)


def test_int8_with_the_ranges_of_the_card_is_close(tmp_path: Path):
    """The input is smooth, as the images are that the ranges were measured on."""
    rng = np.random.default_rng(2)
    video = np.repeat(np.repeat(rng.random((2, 3, 9, 8, 16), dtype=np.float32), 8, axis=3), 8, axis=4)
    lips = rng.random((2, 9, 20, 2), dtype=np.float32)
    exact, near = (load_model("starter", Device("cpu", name), tmp_path).network(video, lips)[0] for name in PAIR)
    assert 0 < np.abs(near - exact).max() < 0.1 * np.ptp(exact)


@pytest.mark.parametrize(
    ("flags", "expected"), [((True, True), "int8"), ((True, False), "bf16"), ((False, False), "f32")]
)
def test_auto_is_the_first_precision_of_the_card_that_the_cpu_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[bool, bool], expected: str
):
    with_card(monkeypatch, cpu_precision={"precisions": ["int8", "bf16"]}, int8={"highest": {"conv1": 1.0}})
    for name, flag in zip(("has_bf16", "has_int8"), flags, strict=True):
        monkeypatch.setattr(f"inference.backends.device.{name}", lambda flag=flag: flag)
    assert load_model("starter", CPU, tmp_path).device == Device("cpu", expected)


def test_a_card_of_other_weights_is_ignored():
    sha256 = str(STARTER.files[0].sha256)
    card = {
        "cpu_precision": {"sha256": sha256, "precisions": ["bf16"]},
        "int8": {"sha256": sha256, "highest": {"conv1": 1}},
    }
    assert (recorded_precisions(card, sha256), recorded_ranges(card, sha256)) == (["bf16"], {"conv1": 1})
    assert (recorded_precisions(card, "other weights"), recorded_ranges(card, "other weights")) == ([], {})
    assert (recorded_precisions({}, sha256), recorded_ranges({}, sha256)) == ([], {})
