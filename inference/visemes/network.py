"""The speech encoder that ships with Viseme, ready to run."""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from inference.backends import OpenVinoNetwork
from inference.backends.graphs.speech_encoder import build_speech_encoder
from inference.dimensions.speech_encoder import speech_encoder_shapes, speech_widths_of
from inference.errors import WeightsNotFound, WrongWeights
from inference.visemes.phonemes import PHONEME_VISEMES
from inference.weights.cache import check_hash
from inference.weights.checkpoint import Arrays, fit_arrays, read_arrays
from inference.weights.registry import STARTER_VISEMES

CLASSES_KEY = "classes"  # of a file's metadata: the phonemes, as a JSON list
ARCHITECTURE = "SpeechEncoder"
LOADING = threading.Lock()
MAX_CLASSES, MAX_CHANNELS = 1000, 2048
Mels = npt.NDArray[np.float32]  # (B, 80, 16), -4..4


class SpeechPrediction(NamedTuple):
    """What is predicted for each window.

    posteriors: (B, n) of the phonemes, which sum to 1. shapes: (B, 3), opening, height and width. contacts: (B,), 0..1.
    """

    posteriors: npt.NDArray[np.float32]
    shapes: npt.NDArray[np.float32]
    contacts: npt.NDArray[np.float32]


class SpeechNetwork:
    """A speech encoder on the CPU. Any thread may call it.

    classes: the names of its phonemes.
    """

    def __init__(self, arrays: Arrays, classes: tuple[str, ...], n_threads: int = 1) -> None:
        self.classes = classes
        self._network = OpenVinoNetwork(build_speech_encoder(arrays), "f32", n_threads)
        self._lock = threading.Lock()  # a network runs one call at a time

    def __call__(self, mels: Mels) -> SpeechPrediction:
        """Predict mouths and phonemes of windows (B, 80, 16)."""
        with self._lock:
            shapes, contacts, logits = self._network(np.ascontiguousarray(mels[:, None]))
        likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
        touching = np.asarray(1 / (1 + np.exp(-contacts[:, 0])), np.float32)
        return SpeechPrediction(likelihood / likelihood.sum(axis=1, keepdims=True), shapes, touching)


def load_network(n_threads: int = 1) -> SpeechNetwork:
    """Load the network that ships with Viseme; further calls with as many threads return the same. Any thread may call.

    Raises: WrongWeights.
    """
    with LOADING:
        return load_shipped(n_threads)


@lru_cache(maxsize=2)
def load_shipped(n_threads: int) -> SpeechNetwork:
    assert STARTER_VISEMES.shipped_in is not None
    (file,) = STARTER_VISEMES.files
    path = STARTER_VISEMES.shipped_in / file.name
    check_hash(path, file)
    return read_network(path, n_threads)


def read_network(path: Path, n_threads: int = 1) -> SpeechNetwork:
    """Read a network from a safetensors file whose metadata name its phonemes.

    Raises: WeightsNotFound, WrongWeights.
    """
    classes, arrays = read_classes(path), read_arrays(path)
    try:
        widths = speech_widths_of(arrays)
    except (KeyError, IndexError) as err:
        raise WrongWeights(f"{path.name}: weights of another model; expected {ARCHITECTURE}") from err
    if max(widths) > MAX_CHANNELS:
        raise WrongWeights(f"{path.name}: {max(widths)} channels; at most {MAX_CHANNELS} expected")
    fitting = fit_arrays(arrays, speech_encoder_shapes(widths, len(classes)), path.name, ARCHITECTURE)
    return SpeechNetwork(fitting, classes, n_threads)


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the phonemes that a file names. Raises: WeightsNotFound, WrongWeights."""
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file")
    try:
        with safe_open(path, "numpy") as file:
            found = json.loads((file.metadata() or {}).get(CLASSES_KEY, "null"))
    except (SafetensorError, ValueError) as err:
        raise WrongWeights(f"{path.name}: not a safetensors file with the names of phonemes ({err})") from err
    if not isinstance(found, list) or not 0 < len(found) <= MAX_CLASSES:
        raise WrongWeights(f"{path.name}: no list of phonemes in its metadata; expected {CLASSES_KEY!r}")
    unknown = [one for one in found if one not in PHONEME_VISEMES]
    if unknown:
        raise WrongWeights(f"{path.name}: phoneme {str(unknown[0])[:20]!r} has no viseme; known: espeak-ng's English")
    return tuple(found)
