"""The network that reads, with its weights in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference.backends import Device, TorchNetwork
from inference.lip_reading.options import ModelInfo
from inference.models import LipCoordNet
from inference.weights.find import find_weights
from inference.weights.sources import WeightSources, as_sources
from inference.weights.tensors import load_into

JOB = "lip reading"
DEFAULT_LANDMARKS = "mediapipe"


@dataclass(frozen=True)
class ReadingModel:
    """A network to call with (video, lips), what it is, and which landmarks it was trained with."""

    network: TorchNetwork
    info: ModelInfo
    landmarks: str | None


def load_model(weights: str | Path | None, device: Device, sources: WeightSources | Path) -> ReadingModel:
    """LipCoordNet with the weights that `find_weights` finds; sources: a folder alone is the cache.

    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    found = find_weights(weights, JOB, as_sources(sources))
    module = LipCoordNet()
    load_into(module, found.path)
    info = ModelInfo("LipCoordNet", found.label, found.sha256)
    return ReadingModel(TorchNetwork(module, device), info, found.landmarks)
