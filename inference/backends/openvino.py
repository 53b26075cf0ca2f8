"""Networks run by OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import openvino as ov
    from torch import Tensor, nn

Array = npt.NDArray[Any]
# What OpenVINO is told. It would choose bfloat16 by itself on CPUs that have it. A model's int8 parts are marked
# as such in its graph; what is left of it stays float32.
HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoNetwork:
    """A compiled network: call it with one array per input, get one float32 array per output.

    The arrays returned are copies and stay valid after the next call.
    """

    def __init__(self, model: Path | ov.Model, precision: str = "f32", n_threads: int = 1) -> None:
        """model: a file that OpenVINO reads, or a graph. n_threads: of one call; 0 leaves it to OpenVINO."""
        import openvino as ov  # a second to import, and only some jobs need it

        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": n_threads,
        }
        core = ov.Core()
        graph = core.read_model(model) if isinstance(model, Path) else model
        self._request = core.compile_model(graph, "CPU", config).create_infer_request()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        results = self._request.infer(dict(enumerate(inputs)), share_inputs=True)
        return [np.array(results[i]) for i in range(len(results))]


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16, which is else only imitated, slower than float32."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def trace(module: nn.Module, examples: tuple[Tensor, ...]) -> ov.Model:
    """The module as OpenVINO's graph, for any number of inputs at a time, of any size where the module takes any."""
    import openvino as ov

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing will go away
        return ov.convert_model(module.eval(), example_input=examples)
