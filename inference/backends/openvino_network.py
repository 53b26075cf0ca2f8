"""Networks run by OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inference.backends.compiled_cache import locked, open_folder, prune, read_stored, store
from inference.backends.telemetry import import_openvino

if TYPE_CHECKING:
    import openvino as ov

logger = logging.getLogger("viseme.backends")
Array = npt.NDArray[Any]
# Inference precision for OpenVINO, which would choose bfloat16 by default on CPUs that support it. The int8 parts of a
# model are marked in its graph; the others stay float32.
HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}


@dataclass(frozen=True)
class GraphRecipe:
    """A graph that is built only if its network was not compiled and stored before.

    key: a hash of all that the graph follows from: weights, precision, and the code that builds it.
    """

    key: str
    build: Callable[[], ov.Model]

    def is_stored(self, compiled: Path | None) -> bool:
        """Return whether the network is in the folder of compiled networks; None: no folder."""
        folder = None if compiled is None else open_folder(compiled)
        return folder is not None and read_stored(folder, self.key) is not None


class CompiledNetwork(NamedTuple):
    """A compiled network. stored: the mapped file that it was loaded from, whose weights it uses in place, or None."""

    network: ov.CompiledModel
    stored: ov.Tensor | None = None


class OpenVinoNetwork:
    """A compiled network: call it with one array per input, get one float32 array per output.

    The returned arrays are copies and stay valid after the next call.
    """

    def __init__(
        self,
        model: Path | ov.Model | GraphRecipe,
        precision: str = "f32",
        n_threads: int = 1,
        compiled: Path | None = None,
    ) -> None:
        """Compile a model for the CPU.

        model: a file that OpenVINO reads, a graph, or how to build one. n_threads: threads per call; 0: as OpenVINO
        chooses.
        compiled: folder of compiled networks; see `compiled_cache`. None compiles the model in any case.
        """
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": n_threads,
        }
        found = compile_model(import_openvino().Core(), model, config, compiled)
        self._request = found.network.create_infer_request()
        self._stored = found.stored

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        results = self._request.infer(dict(enumerate(inputs)), share_inputs=True)
        return [np.array(results[i]) for i in range(len(results))]


def compile_model(
    core: ov.Core, model: Path | ov.Model | GraphRecipe, config: dict[str, Any], compiled: Path | None
) -> CompiledNetwork:
    """Compile a network, or load it from the folder of compiled networks; a new one is stored there."""
    folder = open_folder(compiled) if compiled is not None else None
    if isinstance(model, GraphRecipe):
        return compile_recipe(core, model, config, folder)
    if folder is None:
        return CompiledNetwork(core.compile_model(model, "CPU", config))
    if not isinstance(model, Path):  # a file has its path, its time and its size as the key, so it need not be read
        number_nodes(model)
    try:
        with locked(folder):
            found = core.compile_model(model, "CPU", config | {"CACHE_DIR": str(folder)})
    except (RuntimeError, OSError) as err:  # OpenVINO raises only the first, for example for a disk that is full
        warn_not_cached(folder, err)
        return CompiledNetwork(core.compile_model(model, "CPU", config))
    if not found.get_property("LOADED_FROM_CACHE"):
        prune(folder.parent)
    return CompiledNetwork(found)


def compile_recipe(core: ov.Core, recipe: GraphRecipe, config: dict[str, Any], folder: Path | None) -> CompiledNetwork:
    """Load the network of a recipe, or build, compile and store it. folder: of compiled networks, None without one."""
    if folder is None:
        return CompiledNetwork(core.compile_model(recipe.build(), "CPU", config))
    mapped = read_stored(folder, recipe.key)
    if mapped is not None:
        try:
            stored = import_openvino().Tensor(mapped, shared_memory=True)
            return CompiledNetwork(core.import_model(stored, "CPU", config), stored)
        except RuntimeError as err:
            logger.warning("a compiled network can't be loaded", extra={"reason": str(err).splitlines()[0]})
    network = core.compile_model(recipe.build(), "CPU", config)
    try:
        store(folder, recipe.key, network.export_model().getvalue())
    except (RuntimeError, OSError) as err:
        warn_not_cached(folder, err)
    return CompiledNetwork(network)


def warn_not_cached(folder: Path, err: Exception) -> None:
    logger.warning(
        "a compiled network can't be cached",
        extra={"folder": str(folder.parent), "reason": str(err).splitlines()[0]},
    )


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
