"""Reads OpenVINO models that users supply: untrusted files, so they are checked node by node.

Such a file holds a graph besides weights, and a graph could compute anything. Only the graphs of our own networks are
accepted; their weights may differ in value, in stored type, and by being quantised.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.backends.telemetry import import_openvino
from inference.errors import WrongWeights
from inference.weights.architectures import ARCHITECTURES, LIP_COORD_NET, Architecture, sizes_from_json
from inference.weights.cache import read_openvino_files

if TYPE_CHECKING:
    import openvino as ov

RT_INFO = "viseme"  # our section of a model's runtime info
MADE_FROM, ARCHITECTURE, WIDTHS, WEIGHTS = "made_from_sha256", "architecture", "widths", "weights"
Node = Any  # openvino.Node
DECOMPRESSION_OPS = {"Convert", "Multiply", "Subtract", "FakeQuantize"}  # between a stored weight and its use


@dataclass(frozen=True)
class OpenVinoFile:
    """A model that was read and checked.

    sha256: of the .xml followed by the .bin.
    made_from: SHA-256 of the weights it was converted from, as the file claims; None if it claims nothing.
    weights: their name in the registry, likewise.
    """

    architecture: Architecture
    model: ov.Model
    sha256: str
    is_int8: bool
    made_from: str | None
    weights: str | None


def read_openvino(path: Path, architecture: Architecture | None = LIP_COORD_NET) -> OpenVinoFile:
    """Read a network from the two files of an OpenVINO model.

    architecture: the expected network; None takes the one that the file names.
    Raises: WeightsNotFound if a file is missing; WrongWeights if they are damaged or of another network.
    """
    graph, weights = read_openvino_files(path)
    openvino = import_openvino()
    try:
        model = openvino.Core().read_model(graph, openvino.Tensor(np.frombuffer(weights, np.uint8)))
    except RuntimeError as err:  # the only type that OpenVINO raises
        raise WrongWeights(f"{path}: not an OpenVINO model, or a damaged one") from err
    found = architecture or ARCHITECTURES.get(read_metadata(model, ARCHITECTURE) or "", LIP_COORD_NET)
    check_graph(model, found, path)
    is_int8 = any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    sha256 = hashlib.sha256(graph + weights).hexdigest()
    return OpenVinoFile(found, model, sha256, is_int8, read_metadata(model, MADE_FROM), read_metadata(model, WEIGHTS))


def read_metadata(model: ov.Model, key: str) -> str | None:
    """Return an entry of our section of the model's runtime info; None if it is missing."""
    return str(model.get_rt_info([RT_INFO, key]).astype(str)) if model.has_rt_info([RT_INFO, key]) else None


def check_graph(model: ov.Model, architecture: Architecture, path: Path) -> None:
    """Walk a model's graph from its results to its inputs, in parallel with the graph that we would write.

    Raises: WrongWeights naming the first node that differs.
    """
    name = architecture.name
    try:
        sizes = sizes_from_json(architecture, read_metadata(model, WIDTHS))
        shapes = architecture.shapes(sizes)
        expected = architecture.build({key: np.zeros(shape, np.float32) for key, shape in shapes.items()}, sizes)
    except ValueError as err:
        raise WrongWeights(f"{path}: not {name} as `viseme weights convert` writes it: {err}") from err
    found, wanted = describe_ports(model), describe_ports(expected)
    if found != wanted:
        raise WrongWeights(f"{path}: another network than {name}: it has {found}; expected {wanted}")
    matches: dict[str, str] = {}  # names of the model's nodes, by those of the expected nodes
    waiting = list(zip(expected.get_results(), model.get_results(), strict=True))
    while waiting:
        ours, theirs = waiting.pop()
        is_new = ours.get_name() not in matches
        if matches.setdefault(ours.get_name(), theirs.get_name()) != theirs.get_name() or not is_alike(ours, theirs):
            raise WrongWeights(
                f"{path}: another graph than {name}'s as `viseme weights convert` writes it: found "
                f"{theirs.get_type_name()} {theirs.get_friendly_name()!r}; expected {ours.get_type_name()} there"
            )
        if is_new and ours.get_type_name() != "Constant":
            waiting += zip(input_nodes(ours), input_nodes(theirs), strict=True)


def describe_ports(model: ov.Model) -> str:
    """Return the names, shapes and types of inputs and outputs, for comparison and for messages."""
    return ", ".join(
        f"{'/'.join(sorted(port.get_names()))} {port.get_partial_shape()} {port.get_element_type().get_type_name()}"
        for port in (*model.inputs, *model.outputs)
    )


def is_alike(ours: Node, theirs: Node) -> bool:
    """Return whether two nodes compute the same from their inputs."""
    if ours.get_type_name() == "Constant":
        return is_stored(ours, theirs)
    return bool(
        ours.get_type_name() == theirs.get_type_name()
        and ours.get_attributes() == theirs.get_attributes()
        and ours.get_input_size() == theirs.get_input_size()
        and [port.get_source_output().get_index() for port in ours.inputs()]
        == [skip_quantisation(port.get_source_output()).get_index() for port in theirs.inputs()]
    )


def is_stored(ours: Node, theirs: Node) -> bool:
    """Return whether a node is computed from constants only and has our constant's shape.

    Integers, which are shapes and axes, must have our values, too.
    """
    if ours.get_element_type().is_integral():
        return theirs.get_type_name() == "Constant" and np.array_equal(ours.get_data(), theirs.get_data())
    if theirs.get_output_partial_shape(0) != ours.get_output_partial_shape(0):
        return False
    waiting = [theirs]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() not in {"Constant", *DECOMPRESSION_OPS}:
            return False
        waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return True


def input_nodes(node: Node) -> list[Node]:
    """Return the nodes whose values this one takes, skipping quantisation."""
    return [skip_quantisation(port.get_source_output()).get_node() for port in node.inputs()]


def skip_quantisation(output: Any) -> Any:
    """Return the value that an output quantises between constant bounds; the output itself if it does not."""
    node = output.get_node()
    while node.get_type_name() == "FakeQuantize":
        value, *bounds = (port.get_source_output() for port in node.inputs())
        if any(bound.get_node().get_type_name() != "Constant" for bound in bounds):
            break
        if value.get_node().get_type_name() in {"Constant", *DECOMPRESSION_OPS - {"FakeQuantize"}}:
            break  # it quantises a weight
        output, node = value, value.get_node()
    return output
