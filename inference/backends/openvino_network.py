"""Networks run by OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference.backends.telemetry import import_openvino

if TYPE_CHECKING:
    import openvino as ov

Array = npt.NDArray[Any]
# Inference precision for OpenVINO, which would choose bfloat16 by default on CPUs that support it. The int8 parts of a
# model are marked in its graph; the others stay float32.
HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoNetwork:
    """A compiled network: call it with one array per input, get one float32 array per output.

    The returned arrays are copies and stay valid after the next call.
    """

    def __init__(self, model: Path | ov.Model, precision: str = "f32", n_threads: int = 1) -> None:
        """Compile a model for the CPU.

        model: a file that OpenVINO reads, or a graph. n_threads: threads per call; 0 lets OpenVINO choose.
        """
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": n_threads,
        }
        core = import_openvino().Core()
        graph = core.read_model(model) if isinstance(model, Path) else model
        self._request = core.compile_model(graph, "CPU", config).create_infer_request()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        results = self._request.infer(dict(enumerate(inputs)), share_inputs=True)
        return [np.array(results[i]) for i in range(len(results))]


def has_bf16() -> bool:
    """Return whether this CPU computes in bfloat16; emulation on others is slower than float32."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
