"""OpenVINO models that a user brings: files that nobody vouches for, so checked node by node.

Such a file is a graph besides numbers, and could ask for any computation. Only our networks' own graphs are taken, in
which numbers alone may differ: in value, in the type they are stored in, and by being quantised.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.conversion.architectures import ARCHITECTURES, LIP_COORD_NET, Architecture, make_of_widths
from inference.errors import WrongWeights
from inference.weights.cache import read_openvino_files

if TYPE_CHECKING:
    import openvino as ov

RT_INFO = "viseme"  # the section of a model's notes that is ours
MADE_FROM, ARCHITECTURE, WIDTHS, WEIGHTS = "made_from_sha256", "architecture", "widths", "weights"
Node = Any  # openvino.Node
# What stands between a stored number and its use.
UNPACKING = {"Convert", "Multiply", "Subtract", "FakeQuantize"}


@dataclass(frozen=True)
class OpenVinoFile:
    """A model read and checked. sha256: of the .xml, then the .bin. made_from: SHA-256 of the weights it was
    converted from, by its own word; None where it says none. weights: their name in the registry, likewise.
    """

    architecture: Architecture
    model: ov.Model
    sha256: str
    is_int8: bool
    made_from: str | None
    weights: str | None


def read_openvino(path: Path, architecture: Architecture | None = LIP_COORD_NET) -> OpenVinoFile:
    """Read a network as OpenVINO's two files. architecture: which one it has to be; None: which it says it is.

    Raises: WeightsNotFound where one of them is missing; WrongWeights where they are damaged or another network.
    """
    import openvino as ov

    graph, numbers = read_openvino_files(path)
    try:
        model = ov.Core().read_model(graph, ov.Tensor(np.frombuffer(numbers, np.uint8)))
    except RuntimeError as err:  # of every kind: OpenVINO has no finer ones
        raise WrongWeights(f"{path}: not an OpenVINO model, or a damaged one") from err
    found = architecture or ARCHITECTURES.get(said_of(model, ARCHITECTURE) or "", LIP_COORD_NET)
    check_graph(model, found, path)
    is_int8 = any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    sha256 = hashlib.sha256(graph + numbers).hexdigest()
    return OpenVinoFile(found, model, sha256, is_int8, said_of(model, MADE_FROM), said_of(model, WEIGHTS))


def said_of(model: ov.Model, key: str) -> str | None:
    """What the file says of itself."""
    return str(model.get_rt_info([RT_INFO, key]).astype(str)) if model.has_rt_info([RT_INFO, key]) else None


def check_graph(model: ov.Model, architecture: Architecture, path: Path) -> None:
    """Walk from the results back to the inputs, beside the graph that we would have written.

    Raises: WrongWeights naming the first node that differs from that network's.
    """
    name = architecture.name
    try:
        expected = architecture.build(make_of_widths(architecture, said_of(model, WIDTHS)))
    except ValueError as err:
        raise WrongWeights(f"{path}: not {name} as `viseme weights convert` writes it: {err}") from err
    found, wanted = describe_ports(model), describe_ports(expected)
    if found != wanted:
        raise WrongWeights(f"{path}: another network than {name}: it has {found}; expected {wanted}")
    met: dict[str, str] = {}  # names of the nodes that stand for each other
    waiting = list(zip(expected.get_results(), model.get_results(), strict=True))
    while waiting:
        ours, theirs = waiting.pop()
        is_new = ours.get_name() not in met
        if met.setdefault(ours.get_name(), theirs.get_name()) != theirs.get_name() or not is_alike(ours, theirs):
            raise WrongWeights(
                f"{path}: another graph than {name}'s as `viseme weights convert` writes it: found "
                f"{theirs.get_type_name()} {theirs.get_friendly_name()!r} where {ours.get_type_name()} was expected"
            )
        if is_new and ours.get_type_name() != "Constant":
            waiting += zip(sources_of(ours), sources_of(theirs), strict=True)


def describe_ports(model: ov.Model) -> str:
    """Inputs and outputs: names, shapes, types."""
    return ", ".join(
        f"{'/'.join(sorted(port.get_names()))} {port.get_partial_shape()} {port.get_element_type().get_type_name()}"
        for port in (*model.inputs, *model.outputs)
    )


def is_alike(ours: Node, theirs: Node) -> bool:
    """Whether the two do the same, their sources aside."""
    if ours.get_type_name() == "Constant":
        return are_numbers(ours, theirs)
    return bool(
        ours.get_type_name() == theirs.get_type_name()
        and ours.get_attributes() == theirs.get_attributes()
        and ours.get_input_size() == theirs.get_input_size()
        and [port.get_source_output().get_index() for port in ours.inputs()]
        == [value_of(port.get_source_output()).get_index() for port in theirs.inputs()]
    )


def are_numbers(ours: Node, theirs: Node) -> bool:
    """Whether a node is made of stored numbers alone, in the shape of ours; shapes and axes have to be ours."""
    if ours.get_element_type().is_integral():
        return theirs.get_type_name() == "Constant" and np.array_equal(ours.get_data(), theirs.get_data())
    if theirs.get_output_partial_shape(0) != ours.get_output_partial_shape(0):
        return False
    waiting = [theirs]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() not in {"Constant", *UNPACKING}:
            return False
        waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return True


def sources_of(node: Node) -> list[Node]:
    """The nodes whose values this one takes."""
    return [value_of(port.get_source_output()).get_node() for port in node.inputs()]


def value_of(output: Any) -> Any:
    """What is quantised, where the output is a value's quantised form by constant bounds; else the output itself."""
    node = output.get_node()
    while node.get_type_name() == "FakeQuantize":
        value, *bounds = (port.get_source_output() for port in node.inputs())
        if any(bound.get_node().get_type_name() != "Constant" for bound in bounds):
            break
        if value.get_node().get_type_name() in {"Constant", *UNPACKING - {"FakeQuantize"}}:
            break  # of a stored number
        output, node = value, value.get_node()
    return output
