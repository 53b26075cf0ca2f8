from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference.backends import Device
from inference.backends.openvino import has_bf16
from inference.errors import InvalidRequest
from inference.lip_reading.model import JOB, load_model, recorded_precision
from inference.weights import openvino_model
from inference.weights.convert import convert
from inference.weights.find import find_weights
from inference.weights.registry import STARTER, WeightSet
from inference.weights.sources import WeightSources

CPU = Device("cpu", "auto")


@pytest.fixture(scope="module")
def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.random((2, 3, 9, 64, 128), dtype=np.float32), rng.random((2, 9, 20, 2), dtype=np.float32)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    return convert(find_weights("starter", JOB, WeightSources(folder)), "openvino", "f32", folder)[-1]


def test_an_openvino_model_reads_as_the_weights_that_it_was_made_from(
    graph_file: Path, inputs: tuple[np.ndarray, np.ndarray], tmp_path: Path
):
    plain, graph = load_model("starter", Device("cpu", "f32"), tmp_path), load_model(graph_file, CPU, tmp_path)
    assert np.abs(graph.network(*inputs)[0] - plain.network(*inputs)[0]).max() < 1e-4
    assert graph.device == Device("cpu", "f32")
    assert (graph.landmarks, graph.language) == (plain.landmarks, plain.language) == ("mediapipe", "grid")
    assert graph.calibration == plain.calibration
    assert graph.info.sha256 != plain.info.sha256


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bfloat16")
def test_bf16_is_near(graph_file: Path, inputs: tuple[np.ndarray, np.ndarray], tmp_path: Path):
    (exact,) = load_model("starter", Device("cpu", "f32"), tmp_path).network(*inputs)
    for weights in ("starter", graph_file):
        (near,) = load_model(weights, Device("cpu", "bf16"), tmp_path).network(*inputs)
        assert near.dtype == np.float32
        assert 0 < np.abs(near - exact).max() < 0.05 * np.ptp(exact)


@pytest.mark.parametrize(
    ("device", "words"),
    [(Device("cuda", "f16"), "runs on a CPU, not on cuda"), (Device("cpu", "int8"), "not quantised to int8; expected")],
)
def test_an_openvino_model_is_not_run_as_what_it_is_not(graph_file: Path, tmp_path: Path, device: Device, words: str):
    with pytest.raises(InvalidRequest, match=words):
        load_model(graph_file, device, tmp_path)


def test_a_quantised_model_is_int8_and_nothing_else(
    graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: tuple[np.ndarray, np.ndarray]
):
    read = openvino_model.read_openvino(graph_file)
    marked = openvino_model.OpenVinoFile(read.model, read.sha256, True, read.made_from)
    monkeypatch.setattr("inference.lip_reading.model.read_openvino", lambda _: marked)
    assert load_model(graph_file, CPU, tmp_path).device == Device("cpu", "int8")
    with pytest.raises(InvalidRequest, match="is quantised to int8; expected precision auto or int8"):
        load_model(graph_file, Device("cpu", "f32"), tmp_path)


def test_int8_of_weights_that_are_not_says_how_to_make_them(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="viseme weights convert starter --to openvino --precision int8 -o DIR"):
        load_model("starter", Device("cpu", "int8"), tmp_path)


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bfloat16")
def test_auto_is_what_the_card_says_of_these_very_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sha256 = STARTER.files[0].sha256
    card = STARTER.read_card() | {"cpu_precision": {"sha256": sha256, "precision": "bf16"}}
    assert recorded_precision(card, "of others") == "f32"
    assert recorded_precision({}, str(sha256)) == "f32"
    monkeypatch.setattr(WeightSet, "read_card", lambda _: json.loads(json.dumps(card)))
    assert load_model("starter", CPU, tmp_path).device == Device("cpu", "bf16")
