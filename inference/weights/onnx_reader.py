"""Reads ONNX files as data: their nodes and constants. Nothing in them is run, and no other file is opened.

It works without the package onnx, which is an optional dependency here.
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
DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}  # by TensorProto.DataType
TYPED_DATA = {4: "<f4", 10: "<f8"}  # fields float_data and double_data, packed
EXTERNAL_DATA_FIELDS = (13, 14)  # external_data, data_location
MAX_VARINT_BYTES = 10


@dataclass(frozen=True)
class OnnxNode:
    """One computation. attributes: integers and lists of integers; others are left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxGraph:
    """nodes: by the name of each output. constants: initializers and outputs of Constant nodes, by name."""

    nodes: dict[str, OnnxNode]
    constants: dict[str, Array]
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> OnnxGraph:
    """Read the graph of an ONNX file.

    Raises: WeightsNotFound; WrongWeights if it is not an ONNX file, is damaged, or stores tensors in another file.
    """
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise WrongWeights(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} expected")
    try:
        (graph,) = (value for number, value in read_fields(memoryview(path.read_bytes())) if number == 7)
        return parse_graph(graph)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, TypeError) as err:
        raise WrongWeights(f"{path}: not an ONNX model, or a damaged one ({err})") from err


def parse_graph(blob: memoryview) -> OnnxGraph:
    nodes: dict[str, OnnxNode] = {}
    constants: dict[str, Array] = {}
    outputs = []
    for number, value in read_fields(blob):
        if number == 1:
            node, constant = parse_node(value)
            nodes.update(dict.fromkeys(node.outputs, node))
            if constant is not None and node.outputs:
                constants[node.outputs[0]] = constant
        elif number == 5:
            name, array = parse_tensor(value)
            constants[name] = array
        elif number == 12:
            outputs.append(next((decode_text(inner) for n, inner in read_fields(value) if n == 1), ""))
    return OnnxGraph(nodes, constants, tuple(outputs))


def parse_node(blob: memoryview) -> tuple[OnnxNode, Array | None]:
    """Return the node, and its value if it is a Constant."""
    inputs, outputs, op = [], [], ""
    attributes: dict[str, Any] = {}
    constant = None
    for number, value in read_fields(blob):
        if number == 1:
            inputs.append(decode_text(value))
        elif number == 2:
            outputs.append(decode_text(value))
        elif number == 4:
            op = decode_text(value)
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
    for number, value in read_fields(blob):
        if number == 1:
            name = decode_text(value)
        elif number == 3:
            found = to_signed(value)
        elif number == 8:
            integers += unpack_integers(value)
        elif number == 5:
            found = parse_tensor(value)[1]
    return name, tuple(integers) if integers else found


def parse_tensor(blob: memoryview) -> tuple[str, Array]:
    """Return a tensor's name and values; empty values if its type is not one that weights have."""
    parts = list(read_fields(blob))
    dims = [size for number, value in parts if number == 1 for size in unpack_integers(value)]
    dtype = next((value for number, value in parts if number == 2), 1)
    name = next((decode_text(value) for number, value in parts if number == 8), "")
    if any(number in EXTERNAL_DATA_FIELDS and value for number, value in parts):
        raise ValueError(f"the values of {name or 'a tensor'} are in another file; expected them in this one")
    values = [parse_values(number, value, dtype) for number, value in parts if number in (*TYPED_DATA, 7, 9)]
    if not values or dtype not in DTYPES:
        return name, np.zeros(0, np.float32)
    if len(values[0]) != np.prod(dims, dtype=np.int64):
        raise ValueError(f"{name}: {len(values[0])} values for the shape {dims}")
    return name, values[0].reshape(dims)


def parse_values(number: int, value: Any, dtype: int) -> Array:
    """Parse one of a tensor's data fields: packed by type, or raw bytes."""
    if number == 7:
        return np.array(unpack_integers(value), np.int64)
    raw = np.dtype(DTYPES.get(dtype, np.uint8)).newbyteorder("<")
    return np.frombuffer(value, TYPED_DATA.get(number, raw))


def read_fields(blob: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the number and value of each field of a message: varints as integers, everything else as bytes."""
    at = 0
    while at < len(blob):
        key, at = read_varint(blob, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = read_varint(blob, at)
            yield number, value
            continue
        if kind == BYTES:
            n_bytes, at = read_varint(blob, at)
        elif kind in (FIXED32, FIXED64):
            n_bytes = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + n_bytes > len(blob):
            raise ValueError("it is cut off")
        yield number, blob[at : at + n_bytes]
        at += n_bytes


def read_varint(blob: memoryview, at: int) -> tuple[int, int]:
    """Return the integer at this offset, and the offset of the byte after it."""
    value = 0
    for i in range(MAX_VARINT_BYTES):
        byte = blob[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError(f"an integer of more than {MAX_VARINT_BYTES} bytes")


def unpack_integers(value: Any) -> list[int]:
    """Return the integers of a field: one, or several packed together."""
    if isinstance(value, int):
        return [to_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = read_varint(value, at)
        found.append(to_signed(number))
    return found


def to_signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def decode_text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")
