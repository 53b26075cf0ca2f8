"""A rendered film of somebody saying a text, with the truth about every frame."""

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
from inference.media.encode import Sound, write_film
from inference.rendering.appearance import Appearance, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import NOISE_STREAM, Landmarks, RenderedFrame
from inference.rendering.scene import Scene
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise

MIN_SIDE, MAX_SIDE = 96, 3840
MIN_FPS, MAX_FPS = 5.0, 120.0
LISTENER_SEED = 104_729  # added to the seed for whoever only listens
MAX_TIME_JITTER = 0.3  # of a frame's time: how far a picture of a film of variable rate may lie off its place
TIME_TOLERANCE_S = 1e-6  # times that differ by less are the same
RATE_STREAM = 4  # seeds the frame times apart from every other random draw


@dataclass(frozen=True)
class SyntheticClipOptions:
    """How to film. Raises: InvalidRequest where something is out of range."""

    width: int = 360
    height: int = 288
    fps: float = 25.0
    length_s: float | None = None  # None: 3 s, or as long as the text takes
    has_listener: bool = False  # a second person, who says nothing
    hidden_s: tuple[tuple[float, float], ...] = ()  # from and to: nobody is in the picture
    is_uneven: bool = False  # variable frame rate

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
    """Somebody saying a text. The same text, seed and options give the same pictures."""

    def __init__(self, text: str, seed: int = 0, options: SyntheticClipOptions | None = None) -> None:
        """Raises: InvalidRequest for words without a pronunciation, or too short a length."""
        if seed < 0:
            raise InvalidRequest(f"seed {seed}; a number from 0 on expected")
        self.options = options or SyntheticClipOptions()
        self.seed = seed
        self.speech = SynthesisedSpeech(text, seed, self.options.length_s)
        self.n_frames = max(round(self.speech.length_s * self.options.fps), 1)

    def times(self) -> list[Fraction]:
        """When each picture is shown."""
        rate = Fraction(self.options.fps).limit_denominator(1001)
        even = [i / rate for i in range(self.n_frames)]
        if not self.options.is_uneven:
            return even
        shifts = np.random.default_rng((self.seed, RATE_STREAM)).uniform(
            -MAX_TIME_JITTER, MAX_TIME_JITTER, self.n_frames
        )
        shifts[0] = 0
        return [at + Fraction(round(float(shift) * 1000), 1000) / rate for at, shift in zip(even, shifts, strict=True)]

    def shots(self) -> Iterator[RenderedFrame]:
        """Draw the pictures one after another."""
        seeds = [self.seed] + [self.seed + LISTENER_SEED] * self.options.has_listener
        appearances = [Appearance.from_seed(seed) for seed in seeds]
        times = self.times()
        seconds = np.array([float(at) for at in times])
        mouths = self.speech.mouths(seconds)
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

    def truth(self) -> dict[str, Any]:
        """What is said, and when; `write` adds what is seen in each frame."""
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

    def write(self, path: Path, *, with_sound: bool = True) -> Path:
        """The film, and beside it the truth as JSON, whose path is returned. Both appear whole or not at all.

        The JSON has a line of `frames` per picture: its time, and `people` with `landmarks` (68 pairs of px) and
        `box` (left, top, right, bottom: the landmarks' bounds).

        Raises: InvalidRequest, StorageError.
        """
        sound = Sound(synthesise(self.speech, self.seed), SYNTHESIS_RATE) if with_sound else None
        rendered = []
        with write_film(path, self.options.fps, sound) as writer:
            for shot in self.shots():
                writer.add(shot.frame, shot.at_s)
                rendered.append(
                    {"time": round(float(shot.at_s), 4), "people": [describe_person(one) for one in shot.landmarks]}
                )
        truth_path = path.with_suffix(".json")
        write_json({**self.truth(), "frames": rendered}, truth_path)
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
