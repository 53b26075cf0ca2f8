"""Rendered clips of a person speaking a text, with ground truth for every frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from inference.atomic_write import atomic_file
from inference.errors import InvalidRequest, StorageError
from inference.media.encode import AudioBuffer, write_video
from inference.rendering.appearance import Appearance, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import NOISE_STREAM, Landmarks, RenderedFrame
from inference.rendering.scene import Scene
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise

MIN_SIDE, MAX_SIDE = 96, 3840
MIN_FPS, MAX_FPS = 5.0, 120.0
LISTENER_SEED = 104_729  # added to the seed for the silent second person
MAX_TIME_JITTER = 0.3  # of a frame's duration: largest shift of a frame at a variable rate
TIME_TOLERANCE_S = 1e-6  # times that differ by less are equal
RATE_STREAM = 4  # seeds the frame times apart from every other random draw


@dataclass(frozen=True)
class SyntheticClipOptions:
    """Options of a synthetic clip. Raises: InvalidRequest if an option is out of range."""

    width: int = 360
    height: int = 288
    fps: float = 25.0
    length_s: float | None = None  # None: 3 s, or longer if the text needs it
    has_listener: bool = False  # adds a second person, who is silent
    hidden_s: tuple[tuple[float, float], ...] = ()  # (start, end) times without a person in the frame
    has_variable_rate: bool = False  # frame times are irregular

    def __post_init__(self) -> None:
        for name, side in (("width", self.width), ("height", self.height)):
            if side % 2 or not MIN_SIDE <= side <= MAX_SIDE:
                raise InvalidRequest(f"{name} {side}; an even number from {MIN_SIDE} to {MAX_SIDE} expected")
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise InvalidRequest(f"fps {self.fps:g}; {MIN_FPS:g} to {MAX_FPS:g} expected")
        for start, end in self.hidden_s:
            if not 0 <= start < end:
                raise InvalidRequest(f"hidden from {start:g} s to {end:g} s; two rising times expected")


class SyntheticClip:
    """A clip of a person speaking a text. The same text, seed and options give the same frames."""

    def __init__(self, text: str, seed: int = 0, options: SyntheticClipOptions | None = None) -> None:
        """Lay the text out in time.

        Raises: InvalidRequest if a word has no pronunciation, or the length is too short.
        """
        if seed < 0:
            raise InvalidRequest(f"seed {seed}; a number of at least 0 expected")
        self.options = options or SyntheticClipOptions()
        self.seed = seed
        self.speech = SynthesisedSpeech(text, seed, self.options.length_s)
        self.n_frames = max(round(self.speech.length_s * self.options.fps), 1)

    def times(self) -> list[Fraction]:
        """Return the presentation time of each frame, in seconds."""
        rate = Fraction(self.options.fps).limit_denominator(1001)
        even = [i / rate for i in range(self.n_frames)]
        if not self.options.has_variable_rate:
            return even
        shifts = np.random.default_rng((self.seed, RATE_STREAM)).uniform(
            -MAX_TIME_JITTER, MAX_TIME_JITTER, self.n_frames
        )
        shifts[0] = 0
        return [at + Fraction(round(float(shift) * 1000), 1000) / rate for at, shift in zip(even, shifts, strict=True)]

    def frames(self) -> Iterator[RenderedFrame]:
        """Yield the frames in order."""
        seeds = [self.seed] + [self.seed + LISTENER_SEED] * self.options.has_listener
        appearances = [Appearance.from_seed(seed) for seed in seeds]
        times = self.times()
        seconds = np.array([float(at) for at in times])
        mouths = self.speech.mouth_shapes(seconds)
        poses = [head_motion(appearance, seed, seconds) for appearance, seed in zip(appearances, seeds, strict=True)]
        scene = Scene(appearances, self.options.width, self.options.height)
        for i, (at, mouth) in enumerate(zip(times, mouths, strict=True)):
            noise = np.random.default_rng((self.seed, NOISE_STREAM, i))
            if any(start <= float(at) + TIME_TOLERANCE_S < end for start, end in self.options.hidden_s):
                yield RenderedFrame(at, scene.draw_empty(noise), (), mouth)
                continue
            shapes = [mouth] + [MouthShape()] * (len(appearances) - 1)
            frame, landmarks = scene.draw([one[i] for one in poses], shapes, noise)
            yield RenderedFrame(at, frame, tuple(landmarks), mouth)

    def ground_truth(self) -> dict[str, Any]:
        """Return the spoken text and its timing. `write` adds the contents of each frame."""
        speech = self.speech
        return {
            "text": speech.text,
            "seed": self.seed,
            "fps": self.options.fps,
            "width": self.options.width,
            "height": self.options.height,
            "n_frames": self.n_frames,
            "duration_s": round(speech.length_s, 4),
            "words": [
                {"word": one.word, "start": round(one.start_s, 4), "end": round(one.end_s, 4)}
                for one in speech.timed_words()
            ],
            "phonemes": [
                {"phoneme": one.phoneme, "word": one.word, "start": round(one.start_s, 4), "end": round(one.end_s, 4)}
                for one in speech.phones
            ],
        }

    def write(self, path: Path, *, with_audio: bool = True) -> Path:
        """Write the video, and its ground truth as JSON beside it. Both appear complete or not at all.

        The JSON has one entry of `frames` per frame: its time, and `people` with `landmarks` (68 pairs of px) and `box`
        (left, top, right, bottom: the bounds of the landmarks).

        Returns: the path of the JSON file. Raises: InvalidRequest, StorageError.
        """
        audio = AudioBuffer(synthesise(self.speech, self.seed), SYNTHESIS_RATE) if with_audio else None
        rendered = []
        with write_video(path, self.options.fps, audio) as writer:
            for frame in self.frames():
                writer.add(frame.frame, frame.at_s)
                rendered.append(
                    {"time": round(float(frame.at_s), 4), "people": [describe_person(one) for one in frame.landmarks]}
                )
        truth_path = path.with_suffix(".json")
        write_json({**self.ground_truth(), "frames": rendered}, truth_path)
        return truth_path


def describe_person(landmarks: Landmarks) -> dict[str, Any]:
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return {
        "box": [round(float(value), 1) for value in (*low, *high)],
        "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in landmarks],
    }


def write_json(truth: dict[str, Any], path: Path) -> None:
    try:
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(truth))
    except OSError as err:
        raise StorageError(f"{path.name}: could not be written ({err.strerror or err})") from err
