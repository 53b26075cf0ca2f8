"""What the networks take in use: clips of people who do not exist, to quantise them by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from inference.audio import SAMPLE_RATE, cut_window, window_start
from inference.errors import NoFaceFound
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.grammar import GRID
from inference.lip_reading.model import DEFAULT_LANDMARKS
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import WINDOW, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import HOP, to_network_input
from inference.lip_sync import Pads
from inference.lip_sync.preprocess import box_of_landmarks, cut_face, pad, stack_faces
from inference.media import Clip, Frame, open_media
from inference.media.sound import Samples, read_sound
from inference.speaker import Film, FilmOptions
from inference.speaker.sound import say
from inference.conversion.int8_lip_coord_net import Sample
from inference.weights.sources import WeightSources

N_SAMPLES = 32  # clips, of as many people, lights and rooms
N_SPEAKERS, N_FACES, STRIDE = 12, 8, 5  # people who speak, faces of each, frames between two


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


def make_speaking_samples(sources: WeightSources, films: Sequence[Path] = ()) -> Iterator[Sample]:
    """Faces and what they hear, as Wav2Lip takes them: audio (1, 1, 80, 16), face (1, 6, 96, 96), float32.

    films: of talking people, with sound, besides the rendered ones.
    Raises: MediaError for a film that cannot be read, shows no face or has no sound.
    """
    landmarker = load_landmarker(DEFAULT_LANDMARKS, sources)
    for seed in range(N_SPEAKERS):
        film = Film(draw_sentence(seed), seed, FilmOptions(fps=FPS))
        sound = say(film.speech, seed)
        yield from take(
            (shot.frame for shot in film.shots()), (np.clip(sound, -1, 1) * 32767).astype(np.int16), landmarker
        )
    for path in films:
        with open_media(path) as media:
            frames = (frame for clip in media.read_clips(FPS) for frame in clip.frames)
            taken = list(take(frames, read_sound(path, SAMPLE_RATE), landmarker))
        if not taken:
            raise NoFaceFound(f"{path.name}: no face found in the frames that were looked at")
        yield from taken


def take(frames: Iterable[Frame], samples: Samples, landmarker: Landmarker) -> Iterator[Sample]:
    """Every fifth frame that shows a face, a dozen at most."""
    tracker = FaceTracker(landmarker)
    n_taken = 0
    for k, frame in enumerate(frames):
        if k % STRIDE or n_taken == N_FACES:
            continue
        (face,) = tracker.follow((frame,))
        box = None if face is None else pad(box_of_landmarks(face.points), Pads(), frame)
        if box is not None:
            n_taken += 1
            mel = cut_window(samples, window_start(k, FPS, -1))
            yield mel[None, None], stack_faces([cut_face(frame, box)])
