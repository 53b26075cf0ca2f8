"""What the lip-reading network takes in use: clips of people who do not exist, to quantise it by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading.grammar import GRID
from inference.lip_reading.model import DEFAULT_LANDMARKS
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import WINDOW, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import HOP, to_network_input
from inference.media import Clip
from inference.speaker import Film, FilmOptions
from inference.weights.quantise import Sample
from inference.weights.sources import WeightSources

N_SAMPLES = 32  # clips, of as many people, lights and rooms


def make_samples(sources: WeightSources, landmarks: str | None = None, n_samples: int = N_SAMPLES) -> Iterator[Sample]:
    """Rendered sentences as the network takes them: video (1, 3, 75, 64, 128), lips (1, 75, 20, 2), float32."""
    landmarker = load_landmarker(landmarks or DEFAULT_LANDMARKS, sources)
    for seed in range(n_samples):
        film = Film(draw_sentence(seed), seed, FilmOptions(fps=FPS, length_s=WINDOW / FPS))
        clip = Clip(tuple(shot.frame for shot in film.shots()), FPS)
        tracker = FaceTracker(landmarker)
        mouths = crop_mouths(track_faces([clip], tracker), f"rendered clip {seed}", tracker)
        for window in cut_windows(mouths, HOP):
            yield to_network_input(window.video[None]), window.lips[None]


def draw_sentence(seed: int) -> str:
    """A sentence of the GRID language."""
    rng = np.random.default_rng(seed)
    return " ".join(words[rng.integers(len(words))] for words in GRID)
