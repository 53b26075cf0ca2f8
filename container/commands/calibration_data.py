"""Calibration data for int8 quantisation: network inputs made from clips of synthetic people, and from videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from inference.audio import SAMPLE_RATE, cut_window, window_start
from inference.conversion.int8_lip_coord_net import CalibrationSample
from inference.errors import NoFaceFound
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.grammar_decoder import GRID
from inference.lip_reading.model import DEFAULT_LANDMARKS
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import WINDOW_FRAMES, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import WINDOW_HOP, to_network_input
from inference.lip_sync import Pads
from inference.lip_sync.locate import face_box_of_landmarks
from inference.lip_sync.preprocess import cut_face, pad_box, stack_faces
from inference.media import Clip, Frame, open_media
from inference.media.audio import read_audio
from inference.media.audio_convert import Samples
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.speaker.synthesis import synthesise
from inference.weights.sources import WeightSources

N_CLIPS = 32  # clips for lip reading, each of another person, light and room
N_SPEAKERS = 12  # synthetic speakers for lip sync
MAX_FACES = 8  # faces taken from one clip
FRAME_STEP = 5  # frames from one face to the next
FULL_SCALE = 32767  # int16


def make_lip_reading_samples(
    sources: WeightSources, landmarks: str | None = None, n_samples: int = N_CLIPS
) -> Iterator[CalibrationSample]:
    """Yield inputs of LipCoordNet from rendered sentences: video (1, 3, 75, 64, 128), lips (1, 75, 20, 2), float32.

    landmarks: the landmark detector of the weights. n_samples: number of sentences.
    """
    landmarker = load_landmarker(landmarks or DEFAULT_LANDMARKS, sources)
    for seed in range(n_samples):
        rendered = SyntheticClip(
            random_sentence(seed), seed, SyntheticClipOptions(fps=FPS, length_s=WINDOW_FRAMES / FPS)
        )
        clip = Clip(tuple(one.frame for one in rendered.frames()), FPS)
        tracker = FaceTracker(landmarker)
        mouths = crop_mouths(track_faces([clip], tracker), f"rendered clip {seed}", tracker)
        for window in cut_windows(mouths, WINDOW_HOP):
            yield to_network_input(window.video[None]), window.lips[None]


def random_sentence(seed: int) -> str:
    """Return a sentence of the GRID corpus' grammar."""
    rng = np.random.default_rng(seed)
    return " ".join(words[rng.integers(len(words))] for words in GRID)


def make_lip_sync_samples(sources: WeightSources, videos: Sequence[Path] = ()) -> Iterator[CalibrationSample]:
    """Yield inputs of Wav2Lip: audio (1, 1, 80, 16), faces (1, 6, 96, 96), float32.

    videos: of talking people, with audio; used in addition to the rendered ones.
    Raises: MediaError if a video cannot be read or has no audio, NoFaceFound if it shows no face.
    """
    landmarker = load_landmarker(DEFAULT_LANDMARKS, sources)
    for seed in range(N_SPEAKERS):
        rendered = SyntheticClip(random_sentence(seed), seed, SyntheticClipOptions(fps=FPS))
        samples = (np.clip(synthesise(rendered.speech, seed), -1, 1) * FULL_SCALE).astype(np.int16)
        yield from pair_faces((one.frame for one in rendered.frames()), samples, landmarker)
    for path in videos:
        with open_media(path) as media:
            frames = (frame for clip in media.read_clips(FPS) for frame in clip.frames)
            pairs = list(pair_faces(frames, read_audio(path, SAMPLE_RATE), landmarker))
        if not pairs:
            raise NoFaceFound(f"{path.name}: no face found in the frames that were examined")
        yield from pairs


def pair_faces(frames: Iterable[Frame], samples: Samples, landmarker: Landmarker) -> Iterator[CalibrationSample]:
    """Yield the face and the audio of every fifth frame that shows a face, at most eight."""
    tracker = FaceTracker(landmarker)
    n_faces = 0
    for k, frame in enumerate(frames):
        if k % FRAME_STEP or n_faces == MAX_FACES:
            continue
        (face,) = tracker.follow((frame,))
        box = None if face is None else pad_box(face_box_of_landmarks(face.points), Pads(), frame)
        if box is not None:
            n_faces += 1
            mel = cut_window(samples, window_start(k, FPS, -1))
            yield mel[None, None], stack_faces([cut_face(frame, box)])
