"""A dialogue: two people side by side who speak in turn, with the audio of both; made of frames of other tests."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from inference.media.encode import AudioBuffer, write_video
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise
from support.synthetic_frames import FPS, SEED, SENTENCE, talk

TURN = 34  # frames that each person speaks: the left one, then the right one
WIDTH = 480  # pixels of a frame; each person has half
COLUMNS = slice(60, 300)  # of the rendered frame: the person
FACES = ((66, 90, 174, 225), (306, 90, 414, 225))  # left, top, right, bottom of the faces, about


def first_frames() -> tuple[int, int]:
    """Return the frames of the rendered clip with which its two sentences start."""
    words = SyntheticClip(f"{SENTENCE} {SENTENCE}", SEED).speech.timed_words()
    return int(words[0].start_s * FPS), int(words[len(words) // 2].start_s * FPS)


@cache
def dialogue_frames() -> tuple[np.ndarray, ...]:
    """Return the frames, (288, 480, 3) uint8 BGR; who does not speak moves a little, with closed lips."""
    first, second = first_frames()
    speaking = [frame[:, COLUMNS] for frame in talk(second - first + TURN)]
    resting = [moved(speaking[0], k) for k in range(2 * TURN)]
    left = [*speaking[:TURN], *resting[TURN:]]
    right = [frame[:, ::-1] for frame in [*resting[:TURN], *speaking[second - first :]]]
    return tuple(np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True))


def moved(frame: np.ndarray, k: int) -> np.ndarray:
    shift = np.array([[1, 0, 2 * np.sin(k / 9)], [0, 1, 1.5 * np.sin(k / 7)]])
    return np.asarray(cv2.warpAffine(frame, shift, frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)


@cache
def dialogue_samples() -> np.ndarray:
    """Return the audio of both: (N,) int16 at SYNTHESIS_RATE."""
    samples = synthesise(SyntheticClip(f"{SENTENCE} {SENTENCE}", SEED).speech, SEED)
    per_frame = SYNTHESIS_RATE // FPS
    turns = [samples[first * per_frame : (first + TURN) * per_frame] for first in first_frames()]
    levels = np.concatenate(turns)
    return levels if levels.dtype == np.int16 else (np.clip(levels, -1, 1) * 32767).astype(np.int16)


def make_dialogue(folder, *, audio: np.ndarray | None) -> bytes:
    """Return the video. audio: its track; None for a silent video."""
    path = folder / "dialogue.mp4"
    track = None if audio is None else AudioBuffer(audio, SYNTHESIS_RATE)
    with write_video(path, FPS, track) as writer:
        for frame in dialogue_frames():
            writer.add(frame)
    return path.read_bytes()
