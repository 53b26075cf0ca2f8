"""What all graphs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from inference.backends.telemetry import import_openvino

if TYPE_CHECKING:
    import openvino as ov

Array = npt.NDArray[Any]
Node = Any  # openvino.Node


def make_model(outputs: Sequence[Node], inputs: Sequence[Node], names: Sequence[str], title: str) -> ov.Model:
    """Return the graph between these nodes. names: of the inputs, then of the outputs."""
    model = import_openvino().Model(list(outputs), list(inputs), title)
    for port, name in zip((*model.inputs, *model.outputs), names, strict=True):
        port.get_tensor().set_names({name})
    return model


def import_ops() -> Any:
    """Return the operations that graphs are built of: one opset, so that graphs stay the same in later versions."""
    return import_openvino().opset13


def to_numpy(tensor: Any) -> Array:
    """Return a torch tensor as float32."""
    found: Array = tensor.detach().float().numpy()
    return found
