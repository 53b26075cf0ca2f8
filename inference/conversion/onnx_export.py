"""Networks of convolutions as ONNX, as torch traces them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from inference.conversion.architectures import Architecture, example_of
from inference.conversion.onnx_lip_coord_net import OPSET, import_onnx
from inference.weights.cache import whole_file


def trace_onnx(
    module: nn.Module, architecture: Architecture, path: Path, about: dict[str, str], *, is_half: bool
) -> None:
    """Write a network of convolutions as torch traces it, for any number of inputs, of any size where a detector's."""
    onnx = import_onnx()
    axes = {name: {0: "batch"} for name in (*architecture.inputs, *architecture.outputs)}
    if architecture.inputs == ("image",):
        axes = {name: {0: "batch", 2: "height", 3: "width"} for name in axes}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this way of tracing is an old one; the new one needs more packages
        traced = Path(folder) / "traced.onnx"
        torch.onnx.export(
            module,
            example_of(module, architecture),
            traced,
            input_names=architecture.inputs,
            output_names=architecture.outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(traced)
    if is_half:
        halve(onnx, model)
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    with whole_file(path) as part:
        onnx.save_model(model, str(part))


def halve(onnx: ModuleType, model: Any) -> None:
    """Weights as float16, widened to float32 when they are loaded."""
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
