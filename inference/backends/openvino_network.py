"""Networks run by OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference.backends.compiled_cache import locked, open_folder, prune
from inference.backends.telemetry import import_openvino

if TYPE_CHECKING:
    import openvino as ov

logger = logging.getLogger("viseme.backends")
Array = npt.NDArray[Any]
# Inference precision for OpenVINO, which would choose bfloat16 by default on CPUs that support it. The int8 parts of a
# model are marked in its graph; the others stay float32.
HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoNetwork:
    """A compiled network: call it with one array per input, get one float32 array per output.

    The returned arrays are copies and stay valid after the next call.
    """

    def __init__(
        self,
        model: Path | ov.Model,
        precision: str = "f32",
        n_threads: int = 1,
        compiled: Path | None = None,
    ) -> None:
        """Compile a model for the CPU.

        model: a file that OpenVINO reads, or a graph. n_threads: threads per call; 0 lets OpenVINO choose.
        compiled: folder of compiled networks; see `compiled_cache`. None compiles the model in any case.
        """
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": n_threads,
        }
        core = import_openvino().Core()
        graph = core.read_model(model) if isinstance(model, Path) else model
        self._request = compile_model(core, graph, config, compiled).create_infer_request()

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        results = self._request.infer(dict(enumerate(inputs)), share_inputs=True)
        return [np.array(results[i]) for i in range(len(results))]


def compile_model(core: ov.Core, graph: ov.Model, config: dict[str, Any], compiled: Path | None) -> ov.CompiledModel:
    """Compile a graph, or load it from the folder of compiled networks; a new one is stored there."""
    folder = open_folder(compiled) if compiled is not None else None
    if compiled is None or folder is None:
        return core.compile_model(graph, "CPU", config)
    number_nodes(graph)
    try:
        with locked(folder):
            found = core.compile_model(graph, "CPU", config | {"CACHE_DIR": str(folder)})
    except (RuntimeError, OSError) as err:  # OpenVINO raises only the first, for example for a disk that is full
        logger.warning(
            "a compiled network can't be cached", extra={"folder": str(compiled), "reason": str(err).splitlines()[0]}
        )
        return core.compile_model(graph, "CPU", config)
    if not found.get_property("LOADED_FROM_CACHE"):
        prune(compiled)
    return found


def number_nodes(graph: ov.Model) -> None:
    """Name nodes by their order: the key of a compiled network covers names, which OpenVINO counts up in a process."""
    for i, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(str(i))
        for port in node.outputs():
            port.get_tensor().set_names({f"{i}.{port.get_index()}"})
        if node.get_type_name() == "TensorIterator":
            number_nodes(node.get_function())


def has_bf16() -> bool:
    """Return whether this CPU computes in bfloat16; emulation on others is slower than float32."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
