"""Load the lip reading network with its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import dimensions
from inference.backends import Device, graphs, resolve_auto_precision
from inference.backends.device import count_threads
from inference.backends.stored_precision import check_on_cpu, check_stored_precision, not_quantised
from inference.lip_reading.calibration import Calibration, read_calibration
from inference.lip_reading.options import ModelInfo
from inference.lip_reading.staged_network import StagedNetwork, stage_openvino, stage_torch
from inference.settings import wanted_threads
from inference.weights.registry import LIP_READING, WeightSet, find_set_by_hash
from inference.weights.resolve import OPENVINO_SUFFIX, ResolvedWeights, find_weights
from inference.weights.sources import WeightSources, as_sources

if TYPE_CHECKING:
    import openvino as ov

    from inference.weights.architectures import NetworkWeights

# What builds graphs is imported in the functions that use it: a network that was compiled before needs none of it.

NETWORK_NAME = "LipCoordNet"
DEFAULT_LANDMARKS = "mediapipe"


@dataclass(frozen=True)
class ReadingModel:
    """A network ready to run, called with (video, lips), and all that is known about it.

    landmarks: which landmarks it was trained with. language: the language it was trained on. Both are None if unknown.
    calibration: how far to trust its outputs. device: where it runs.
    """

    network: StagedNetwork
    info: ModelInfo
    landmarks: str | None
    language: str | None
    calibration: Calibration
    device: Device


def load_model(weights: str | Path | None, device: Device, sources: WeightSources | Path) -> ReadingModel:
    """Load LipCoordNet with the weights that `find_weights` finds.

    sources: a path alone is the cache folder.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    sources = as_sources(sources)
    found = find_weights(weights, LIP_READING, sources)
    if found.path.suffix == OPENVINO_SUFFIX:
        return load_openvino(found, device, sources.compiled)
    card = read_card(found.weight_set)
    device = resolve_auto_precision(device, *recorded_precisions(card, found.sha256))
    highest = recorded_ranges(card, found.sha256)
    if device.precision == "int8" and not highest:
        raise not_quantised(found.label, "--weights")
    info = ModelInfo(NETWORK_NAME, found.label, found.sha256)
    calibration = read_calibration(card, found.sha256)
    network = compile_fastest(lambda: load_lip_coord_net(found.path), found.sha256, device, highest, sources.compiled)
    return ReadingModel(network, info, found.landmarks, found.language, calibration, device)


def load_lip_coord_net(path: Path) -> NetworkWeights:
    """Load LipCoordNet's weights. Raises: WeightsNotFound, WrongWeights."""
    from inference.weights.architectures import LIP_COORD_NET, load_weights

    return load_weights(path, LIP_COORD_NET)


def compile_fastest(
    load: Callable[[], NetworkWeights],
    sha256: str,
    device: Device,
    max_inputs: Mapping[str, float],
    compiled: Path | None = None,
) -> StagedNetwork:
    """Compile the network for the fastest runtime of its device: OpenVINO on a CPU, torch on a GPU.

    load: loads the weights; it is not called if they were compiled before. sha256: of their file.
    max_inputs: largest input of each convolution that int8 quantises. compiled: folder of compiled networks.
    """
    if device.name != "cpu":
        return stage_torch(load().make_module(), device)  # type: ignore[arg-type]

    def build() -> ov.Model:
        graph = load().build()
        if device.precision == "int8":
            from inference.backends.graphs.lip_coord_net_int8 import quantise_convolutions

            quantise_convolutions(graph, max_inputs)
        return graph

    key = hash_recipe(sha256, device.precision, json.dumps(max_inputs) if device.precision == "int8" else "")
    return stage_openvino(build, key, device.precision, count_threads(wanted_threads()), compiled)


def hash_recipe(*parts: str) -> str:
    """Return a hash of what a network is compiled from, and of the code that builds graphs."""
    folders = [Path(package.__path__[0]) for package in (graphs, dimensions)]
    sources = (path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(b"\0".join([*(part.encode() for part in parts), *sources])).hexdigest()


def load_openvino(found: ResolvedWeights, device: Device, compiled: Path | None) -> ReadingModel:
    """Load a model in OpenVINO's format; its file names the weights it was converted from."""
    from inference.weights.openvino_files import read_openvino

    check_on_cpu(found.label, device)
    stored = read_openvino(found.path)
    if device.precision == "auto":
        device = Device(device.name, "int8" if stored.is_int8 else "f32")
    check_stored_precision(found.label, device, is_int8=stored.is_int8)
    origin = find_set_by_hash(stored.made_from) if stored.made_from else None
    return ReadingModel(
        stage_openvino(
            lambda: stored.model,
            hash_recipe(stored.sha256),
            device.precision,
            count_threads(wanted_threads()),
            compiled,
        ),
        ModelInfo(NETWORK_NAME, found.label, stored.sha256),
        origin.landmarks if origin else None,
        origin.language if origin else None,
        read_calibration(read_card(origin), stored.made_from or ""),
        device,
    )


def read_card(weight_set: WeightSet | None) -> dict[str, Any]:
    return weight_set.read_card() if weight_set else {}


def recorded_precisions(card: dict[str, Any], sha256: str) -> list[str]:
    """Return the precisions that `auto` may choose on a CPU, the cheapest first.

    `python -m bench.precisions` measures them; empty if it did not measure these very weights.
    """
    found = card.get("cpu_precision", {})
    return list(found["precisions"]) if found.get("sha256") == sha256 else []


def recorded_ranges(card: dict[str, Any], sha256: str) -> dict[str, float]:
    """Return the largest input of each convolution, as measured for these very weights; empty if it was not."""
    found = card.get("int8", {})
    return dict(found["highest"]) if found.get("sha256") == sha256 else {}
