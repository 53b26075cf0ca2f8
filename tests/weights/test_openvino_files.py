from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.conversion.convert import write_openvino
from inference.errors import WeightsNotFound, WrongWeights
from inference.models import LipCoordNet
from inference.weights import cache
from inference.weights.checkpoint import read_tensors
from inference.weights.openvino_files import MADE_FROM, read_openvino
from inference.weights.registry import LIP_READING
from inference.weights.resolve import find_weights
from inference.weights.sources import WeightSources


@pytest.fixture(scope="module")
def network() -> LipCoordNet:
    torch.manual_seed(5)
    return LipCoordNet().eval()


@pytest.fixture
def graph(network: LipCoordNet) -> openvino.Model:
    return build_lip_coord_net(network.state_dict())


def node_of(graph: openvino.Model, kind: str):
    return next(node for node in graph.get_ordered_ops() if node.get_type_name() == kind)


def write(graph: openvino.Model, folder: Path) -> Path:
    return write_openvino(graph, folder / "net.xml", {MADE_FROM: "abc"}, is_half=False)[-1]


def run(graph: openvino.Model, *inputs: np.ndarray) -> np.ndarray:
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(dict(enumerate(inputs)))[0]


@pytest.mark.parametrize("is_half", [False, True])
def test_our_own_files_are_accepted_and_name_their_origin(graph: openvino.Model, tmp_path: Path, is_half: bool):
    xml, contents = tmp_path / "net.xml", b""
    for path in reversed(write_openvino(graph, xml, {MADE_FROM: "abc"}, is_half=is_half)):
        contents += path.read_bytes()
    read = read_openvino(xml)
    assert (read.is_int8, read.made_from) == (False, "abc")
    assert read.sha256 == hashlib.sha256(contents).hexdigest()
    assert find_weights(xml, LIP_READING, WeightSources(tmp_path)).sha256 == read.sha256
    assert find_weights(tmp_path, LIP_READING, WeightSources(tmp_path)).path == xml


def swap_relu(graph: openvino.Model) -> None:
    relu = node_of(graph, "Relu")
    openvino.utils.replace_node(relu, ops.sigmoid(relu.input(0).get_source_output()))


def insert_doubling(graph: openvino.Model) -> None:
    relu = node_of(graph, "Relu")
    targets = relu.output(0).get_target_inputs()
    doubled = ops.multiply(relu, np.float32(2))
    for target in targets:
        target.replace_source_output(doubled.output(0))


def swap_axes(graph: openvino.Model) -> None:
    transpose = node_of(graph, "Transpose")
    transpose.input(1).replace_source_output(ops.constant(np.array([0, 2, 3, 1, 4])).output(0))


def cross_wires(graph: openvino.Model) -> None:
    """Compute weights from the input instead of storing them."""
    video = graph.get_parameters()[0]
    bias = node_of(graph, "Add")
    mean = ops.reduce_mean(video, np.array([0, 1, 2, 3, 4]), keep_dims=True)
    stored = bias.input(1).get_source_output()
    bias.input(1).replace_source_output(ops.multiply(stored, mean).output(0))


@pytest.mark.parametrize("change", [swap_relu, insert_doubling, swap_axes, cross_wires])
def test_any_other_graph_is_refused(graph: openvino.Model, tmp_path: Path, change: Callable[[openvino.Model], None]):
    change(graph)
    graph.validate_nodes_and_infer_types()
    with pytest.raises(WrongWeights, match=r"another graph than LipCoordNet's .*: found \w+ .*; expected \w+ there"):
        read_openvino(write(graph, tmp_path))


def test_a_network_with_other_inputs_is_refused(tmp_path: Path):
    x = ops.parameter([1, 3], np.float32)
    x.output(0).get_tensor().set_names({"x"})
    other = openvino.Model([ops.relu(x)], [x], "other")
    with pytest.raises(WrongWeights, match=r"another network than LipCoordNet: it has x \[1,3\] f32.*expected video"):
        read_openvino(write(other, tmp_path))


def test_missing_damaged_and_foreign_files_are_refused(graph: openvino.Model, tmp_path: Path):
    xml = write(graph, tmp_path)
    numbers = xml.with_suffix(".bin")
    whole = numbers.read_bytes()
    numbers.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WrongWeights, match="not an OpenVINO model, or a damaged one"):
        read_openvino(xml)
    numbers.unlink()
    with pytest.raises(WeightsNotFound, match=r"two files, and net\.bin is missing"):
        read_openvino(xml)
    numbers.write_bytes(whole)
    with pytest.raises(WrongWeights, match="is an OpenVINO model, not tensors"):
        read_tensors(xml)
    xml.write_text("<!doctype html><html></html>")
    with pytest.raises(WrongWeights, match="not an OpenVINO model"):
        read_openvino(xml)


def test_files_too_large_are_refused_before_they_are_read(
    graph: openvino.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    xml = write(graph, tmp_path)
    monkeypatch.setattr(cache, "MAX_GRAPH_BYTES", 1000)
    with pytest.raises(WrongWeights, match=r"net\.xml: \d+ bytes; at most 1000 expected"):
        read_openvino(xml)
