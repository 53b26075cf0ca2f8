"""The network that reads, with its weights in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inference.backends import Device, OpenVinoNetwork, TorchNetwork, settle
from inference.errors import InvalidRequest
from inference.lip_reading.calibration import Calibration, from_card
from inference.lip_reading.options import ModelInfo
from inference.lip_reading.windows import Network
from inference.models import LipCoordNet
from inference.weights.resolve import OPENVINO_SUFFIX, FoundWeights, find_weights
from inference.backends.graphs.int8 import quantise_convolutions
from inference.backends.graphs.lip_coord_net import build_openvino, split_at_time
from inference.conversion.openvino_files import read_openvino
from inference.weights.registry import WeightSet, set_of_hash
from inference.weights.sources import WeightSources, as_sources
from inference.weights.checkpoint import load_into

if TYPE_CHECKING:
    import openvino as ov

JOB = "lip reading"
NETWORK = "LipCoordNet"
DEFAULT_LANDMARKS = "mediapipe"


@dataclass(frozen=True)
class ReadingModel:
    """A network to call with (video, lips), what it is, which landmarks it was trained with, which language
    it speaks (None: not known), how its outputs are to be taken, and where it runs.
    """

    network: Network
    info: ModelInfo
    landmarks: str | None
    language: str | None
    calibration: Calibration
    device: Device


def load_model(weights: str | Path | None, device: Device, sources: WeightSources | Path) -> ReadingModel:
    """LipCoordNet with the weights that `find_weights` finds; sources: a folder alone is the cache.

    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    found = find_weights(weights, JOB, as_sources(sources))
    if found.path.suffix == OPENVINO_SUFFIX:
        return load_openvino(found, device)
    card = card_of(found.weight_set)
    device = settle(device, *recorded_precisions(card, found.sha256))
    highest = recorded_ranges(card, found.sha256)
    if device.precision == "int8" and not highest:
        raise InvalidRequest(
            f"precision int8: the weights {found.label} are not quantised; 'viseme weights convert {found.label} "
            "--to openvino --precision int8 -o DIR' makes those that are, and '--weights DIR' takes them"
        )
    module = LipCoordNet()
    load_into(module, found.path)
    info = ModelInfo(NETWORK, found.label, found.sha256)
    calibration = from_card(card, found.sha256)
    return ReadingModel(
        run_by_best(module, device, highest), info, found.landmarks, found.language, calibration, device
    )


def run_by_best(module: LipCoordNet, device: Device, highest: Mapping[str, float]) -> Network:
    """The network in the runtime that is fastest for that device: in bf16 and int8 on a CPU OpenVINO, elsewhere torch.

    highest: of the inputs of the convolutions that int8 is for.
    """
    if device.name != "cpu" or device.precision not in ("bf16", "int8"):
        return TorchNetwork(module, device)
    graph = build_openvino(module.state_dict())
    if device.precision == "int8":
        quantise_convolutions(graph, highest)
    return run_by_openvino(graph, device)


def run_by_openvino(model: ov.Model, device: Device) -> Network:
    """In bf16 only the convolutions are: they take nine tenths of the time, while the GRUs carry every error on."""
    n_threads = torch.get_num_threads()
    if device.precision != "bf16":
        return OpenVinoNetwork(model, device.precision, n_threads)
    frames, time = split_at_time(model)
    see, tell = OpenVinoNetwork(frames, "bf16", n_threads), OpenVinoNetwork(time, "f32", n_threads)
    return lambda video, lips: tell(see(video)[0], lips)


def load_openvino(found: FoundWeights, device: Device) -> ReadingModel:
    """A model in OpenVINO's form, of which the file says from which weights it was made."""
    if device.name != "cpu":
        raise InvalidRequest(f"{found.label}: an OpenVINO model runs on a CPU, not on {device.name}; choose device cpu")
    read = read_openvino(found.path)
    if device.precision == "auto":
        device = Device(device.name, "int8" if read.is_int8 else "f32")
    if read.is_int8 != (device.precision == "int8"):
        have, expected = ("", "auto or int8") if read.is_int8 else ("not ", "auto, f32 or bf16")
        raise InvalidRequest(f"{found.label}: is {have}quantised to int8; expected precision {expected}")
    origin = set_of_hash(read.made_from) if read.made_from else None
    return ReadingModel(
        run_by_openvino(read.model, device),
        ModelInfo(NETWORK, found.label, read.sha256),
        origin.landmarks if origin else None,
        origin.language if origin else None,
        from_card(card_of(origin), read.made_from or ""),
        device,
    )


def card_of(weight_set: WeightSet | None) -> dict[str, Any]:
    return weight_set.read_card() if weight_set else {}


def recorded_precisions(card: dict[str, Any], sha256: str) -> list[str]:
    """What `auto` may mean on a CPU, the cheapest first: what `python -m bench.precisions` found for these weights."""
    found = card.get("cpu_precision", {})
    return list(found["precisions"]) if found.get("sha256") == sha256 else []


def recorded_ranges(card: dict[str, Any], sha256: str) -> dict[str, float]:
    """How high the inputs of the convolutions go, as measured for these very weights; empty where it was not."""
    found = card.get("int8", {})
    return dict(found["highest"]) if found.get("sha256") == sha256 else {}
