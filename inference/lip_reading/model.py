"""The network that reads, with its weights in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference.backends import Device, TorchNetwork
from inference.lip_reading.calibration import Calibration, from_card
from inference.lip_reading.options import ModelInfo
from inference.models import LipCoordNet
from inference.weights.find import find_weights
from inference.weights.sources import WeightSources, as_sources
from inference.weights.tensors import load_into

JOB = "lip reading"
DEFAULT_LANDMARKS = "mediapipe"


@dataclass(frozen=True)
class ReadingModel:
    """A network to call with (video, lips), what it is, which landmarks it was trained with, which language
    it speaks (None: not known), and how its outputs are to be taken.
    """

    network: TorchNetwork
    info: ModelInfo
    landmarks: str | None
    language: str | None
    calibration: Calibration


def load_model(weights: str | Path | None, device: Device, sources: WeightSources | Path) -> ReadingModel:
    """LipCoordNet with the weights that `find_weights` finds; sources: a folder alone is the cache.

    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    found = find_weights(weights, JOB, as_sources(sources))
    module = LipCoordNet()
    load_into(module, found.path)
    info = ModelInfo("LipCoordNet", found.label, found.sha256)
    card = found.weight_set.read_card() if found.weight_set else {}
    return ReadingModel(
        TorchNetwork(module, device), info, found.landmarks, found.language, from_card(card, found.sha256)
    )
