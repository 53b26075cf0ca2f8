"""Networks run by OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class OpenVinoNetwork:
    """A compiled network: call it with one array per input, get one array per output.

    Runs in float32: OpenVINO would choose bfloat16 by itself on CPUs that have it.
    The arrays returned are copies and stay valid after the next call.
    """

    def __init__(self, path: Path, n_threads: int = 1) -> None:
        import openvino as ov  # a second to import, and only some jobs need it

        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": n_threads,
        }
        core = ov.Core()
        self._request = core.compile_model(core.read_model(path), "CPU", config).create_infer_request()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        results = self._request.infer(dict(enumerate(inputs)), share_inputs=True)
        return [np.array(results[i]) for i in range(len(results))]
