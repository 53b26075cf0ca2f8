"""What all graphs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
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
    return ArrayOps(import_openvino().opset13)


class ArrayOps:
    """The operations of an opset, which take arrays of weights in place of nodes.

    OpenVINO's own functions do, too, but through Python lists: 0.4 s for LipCoordNet.
    """

    def __init__(self, opset: Any) -> None:
        self._opset = opset
        self.constant = opset.constant  # takes the array itself

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._opset, name)

        def add(*inputs: Any, **attributes: Any) -> Any:
            return operation(*(self._as_node(one) for one in inputs), **attributes)

        setattr(self, name, add)
        return add

    def _as_node(self, value: Any) -> Any:
        is_weights = isinstance(value, np.ndarray) and value.dtype == np.float32
        return self.constant(value) if is_weights else value


def as_float32(state: Mapping[str, Any]) -> dict[str, Array]:
    """Return the tensors or arrays of a state dict as float32 arrays; float32 is not copied."""
    return {key: to_numpy(value) for key, value in state.items()}


def to_numpy(value: Any) -> Array:
    """Return a torch tensor, or an array, as float32."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32, copy=False)
    found: Array = value.detach().float().numpy()
    return found
