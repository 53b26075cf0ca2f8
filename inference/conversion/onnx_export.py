"""Networks as ONNX files, exported by torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from inference.atomic_write import atomic_file
from inference.backends.onnx_trace import trace_onnx
from inference.errors import InvalidRequest
from inference.weights.architectures import Architecture, example_inputs


def export_onnx(
    module: nn.Module, architecture: Architecture, path: Path, metadata: dict[str, str], *, is_half: bool
) -> None:
    """Write a network as ONNX, with the dynamic axes of its architecture.

    is_half: store float32 weights as float16, cast to float32 when the file is loaded.
    Raises: InvalidRequest if the package onnx is not installed.
    """
    onnx = import_onnx()
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "traced.onnx"
        examples = example_inputs(module, architecture)
        trace_onnx(module, examples, architecture.inputs, architecture.outputs, architecture.dynamic_axes, traced)
        model = onnx.load(traced)
    if is_half:
        store_as_half(onnx, model)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    with atomic_file(path, mode=0o644) as partial:
        onnx.save_model(model, str(partial))


def import_onnx() -> ModuleType:
    """Import the package onnx. Raises: InvalidRequest naming the extra if it is not installed."""
    try:
        import onnx
    except ImportError as err:
        raise InvalidRequest("--to onnx needs the package onnx: pip install 'viseme[onnx]'") from err
    module: ModuleType = onnx
    return module


def store_as_half(onnx: ModuleType, model: Any) -> None:
    """Store float32 weights as float16, each behind a cast to float32."""
    stored, casts = [], []
    for one in model.graph.initializer:
        value = onnx.numpy_helper.to_array(one)
        if value.dtype != np.float32:
            stored.append(one)
            continue
        stored.append(onnx.numpy_helper.from_array(value.astype(np.float16), f"{one.name}.f16"))
        casts.append(onnx.helper.make_node("Cast", [f"{one.name}.f16"], [one.name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(stored)
    model.graph.node.extend([*casts, *nodes])
