"""What is seen of a mouth in a film: how far it opens, and how like another picture of it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.audio import SAMPLE_RATE, window_start
from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.lip_sync.options import SyncOptions
from inference.lip_sync.preprocess import SIDE, Shot, box_of_landmarks, find_boxes, smooth_boxes
from inference.media import Frame, open_media
from inference.media.sound import Samples, read_sound

FPS = 25.0
UPPER_INNER, LOWER_INNER = (61, 62, 63), (67, 66, 65)  # of the 68 points, one above the other
EYE_CORNERS = (36, 45)  # the outer ones: what lies between them does not move when a mouth does
AROUND_LIPS = 11  # px of the face of 96: what belongs to the mouth beside the lips; SSIM's window takes 5 of them
FLOOR = 1e-6

Points = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]  # (T,) a value for each frame


@dataclass(frozen=True)
class Talk:
    """A film of somebody who talks.

    shots: the frames with the boxes that lip sync cuts. points: (T, 68, 2) px. samples: (N,) int16, 16 kHz mono.
    """

    name: str
    shots: tuple[Shot, ...]
    points: Points
    samples: Samples

    @property
    def opening(self) -> Curve:
        return opening_of(self.points)


def watch(path: Path, landmarker: Landmarker) -> Talk:
    """A film as lip sync sees it. Raises: ValueError where a frame shows no face."""
    with open_media(path) as media:
        frames = [frame for clip in media.read_clips(FPS) for frame in clip.frames]
    tracker = FaceTracker(landmarker)
    points: list[Points] = []

    def locate(frame: Frame) -> FaceBox:
        (face,) = tracker.follow((frame,))
        if face is None:
            raise ValueError(f"{path.name}: frame {len(points)} shows no face")
        points.append(face.points)
        return box_of_landmarks(face.points)

    options = SyncOptions()
    shots = tuple(smooth_boxes(find_boxes(frames, locate, options.pads), options.smoothing))
    return Talk(path.stem, shots, np.stack(points), read_sound(path, SAMPLE_RATE))


def opening_of(points: Points) -> Curve:
    """How far a mouth is open in each frame: the gap between its inner lips over the distance of the eyes, (T,)."""
    gap = points[:, LOWER_INNER, 1] - points[:, UPPER_INNER, 1]
    eyes = np.linalg.norm(points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]], axis=1)
    return np.asarray(gap.mean(axis=1) / eyes, np.float64)


def loudness_of(samples: Samples, n_frames: int) -> Curve:
    """The level of the sound during each frame, in dB, (n_frames,)."""
    length = round(SAMPLE_RATE / FPS)
    padded = np.zeros(n_frames * length)
    padded[: len(samples)] = samples[: len(padded)]
    power = (padded.reshape(n_frames, length) ** 2).mean(axis=1)
    return np.asarray(10 * np.log10(power + 1), np.float64)


def correlate(a: Curve, b: Curve) -> float:
    """Pearson's, over as many frames as both have; 0 where one of them does not move."""
    n = min(len(a), len(b))
    a, b = a[:n] - a[:n].mean(), b[:n] - b[:n].mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > FLOOR else 0.0


def mouth_of(shot: Shot, points: Points) -> tuple[slice, slice]:
    """Rows and columns of the lips and what is around them, in the face of 96.

    points: (68, 2) px of the frame. Raises: ValueError for a shot without a face.
    """
    if shot.box is None:
        raise ValueError("a shot without a face has no mouth")
    scale = np.array([SIDE / shot.box.width, SIDE / shot.box.height])
    lips = (points[LIP_POINTS] - np.array([shot.box.left, shot.box.top])) * scale
    low = np.clip(np.floor(lips.min(axis=0)) - AROUND_LIPS, 0, SIDE).astype(int)
    high = np.clip(np.ceil(lips.max(axis=0)) + AROUND_LIPS, 0, SIDE).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def shuffle_sound(samples: Samples, piece_s: float, rng: np.random.Generator) -> Samples:
    """The same sound with its pieces in another order."""
    n = round(piece_s * SAMPLE_RATE)
    pieces = [samples[at : at + n] for at in range(0, len(samples), n)]
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def starts_of_windows(n_frames: int) -> list[int]:
    """Where in the mel spectrogram each frame's window starts, as lip sync cuts them."""
    offset = SyncOptions().mel_offset_frames
    return [window_start(k, FPS, offset) for k in range(n_frames)]
