"""ONNX files read as data: which nodes, and which numbers. Nothing of them is run, and no other file is opened.

Source: the field numbers of onnx.proto, and of protobuf's wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import WeightsNotFound, WrongWeights

Array = npt.NDArray[Any]
MAX_BYTES = 1 << 30
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}  # TensorProto.DataType
TYPED_DATA = {4: "<f4", 10: "<f8"}  # packed floats, packed doubles
ELSEWHERE = (13, 14)  # external_data, data_location
MAX_VARINT = 10  # bytes


@dataclass(frozen=True)
class OnnxNode:
    """One computation. attributes: integers, and lists of them; others are left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxGraph:
    """nodes: by the name of each output. numbers: initializers and constants, by name."""

    nodes: dict[str, OnnxNode]
    numbers: dict[str, Array]
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> OnnxGraph:
    """Raises: WeightsNotFound, WrongWeights for what is no ONNX file, damaged, or keeps its numbers elsewhere."""
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise WrongWeights(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} expected")
    try:
        (graph,) = (value for number, value in fields(memoryview(path.read_bytes())) if number == 7)
        return parse_graph(graph)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, TypeError) as err:
        raise WrongWeights(f"{path}: not an ONNX model, or a damaged one ({err})") from err


def parse_graph(blob: memoryview) -> OnnxGraph:
    nodes: dict[str, OnnxNode] = {}
    numbers: dict[str, Array] = {}
    outputs = []
    for number, value in fields(blob):
        if number == 1:
            node, constant = parse_node(value)
            nodes.update(dict.fromkeys(node.outputs, node))
            if constant is not None and node.outputs:
                numbers[node.outputs[0]] = constant
        elif number == 5:
            name, array = parse_tensor(value)
            numbers[name] = array
        elif number == 12:
            outputs.append(next((text(inner) for n, inner in fields(value) if n == 1), ""))
    return OnnxGraph(nodes, numbers, tuple(outputs))


def parse_node(blob: memoryview) -> tuple[OnnxNode, Array | None]:
    """The node, and the numbers that it holds where it is a constant."""
    inputs, outputs, op = [], [], ""
    attributes: dict[str, Any] = {}
    constant = None
    for number, value in fields(blob):
        if number == 1:
            inputs.append(text(value))
        elif number == 2:
            outputs.append(text(value))
        elif number == 4:
            op = text(value)
        elif number == 5:
            name, found = parse_attribute(value)
            if isinstance(found, np.ndarray):
                constant = found if op in ("", "Constant") and name == "value" else constant
            else:
                attributes[name] = found
    return OnnxNode(op, tuple(inputs), tuple(outputs), attributes), constant


def parse_attribute(blob: memoryview) -> tuple[str, Any]:
    name = ""
    found: Any = None
    integers: list[int] = []
    for number, value in fields(blob):
        if number == 1:
            name = text(value)
        elif number == 3:
            found = signed(value)
        elif number == 8:
            integers += unpack_integers(value)
        elif number == 5:
            found = parse_tensor(value)[1]
    return name, tuple(integers) if integers else found


def parse_tensor(blob: memoryview) -> tuple[str, Array]:
    parts = list(fields(blob))
    dims = [size for number, value in parts if number == 1 for size in unpack_integers(value)]
    kind = next((value for number, value in parts if number == 2), 1)
    name = next((text(value) for number, value in parts if number == 8), "")
    if any(number in ELSEWHERE and value for number, value in parts):
        raise ValueError(f"the numbers of {name or 'a tensor'} lie in another file; expected them in this one")
    data = [read_numbers(number, value, kind) for number, value in parts if number in (*TYPED_DATA, 7, 9)]
    if not data or kind not in DTYPES:
        return name, np.zeros(0, np.float32)  # of a type that no weights have
    if len(data[0]) != np.prod(dims, dtype=np.int64):
        raise ValueError(f"{name}: {len(data[0])} numbers for the shape {dims}")
    return name, data[0].reshape(dims)


def read_numbers(number: int, value: Any, kind: int) -> Array:
    """Of a tensor's field: packed by type, or raw."""
    if number == 7:
        return np.array(unpack_integers(value), np.int64)
    raw = np.dtype(DTYPES.get(kind, np.uint8)).newbyteorder("<")
    return np.frombuffer(value, TYPED_DATA.get(number, raw))


def fields(blob: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers as they are, and everything else as bytes."""
    at = 0
    while at < len(blob):
        key, at = varint(blob, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(blob, at)
            yield number, value
            continue
        if kind == BYTES:
            n_bytes, at = varint(blob, at)
        elif kind in (FIXED32, FIXED64):
            n_bytes = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + n_bytes > len(blob):
            raise ValueError("it is cut off")
        yield number, blob[at : at + n_bytes]
        at += n_bytes


def varint(blob: memoryview, at: int) -> tuple[int, int]:
    """The number at that place, and the place behind it."""
    value = 0
    for i in range(MAX_VARINT):
        byte = blob[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number without an end")


def unpack_integers(value: Any) -> list[int]:
    """One integer, or many packed together."""
    if isinstance(value, int):
        return [signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        found.append(signed(number))
    return found


def signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")
