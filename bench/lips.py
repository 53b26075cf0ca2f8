"""Measures of the mouth in a video: how far it opens, and how the opening correlates with a reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.audio import SAMPLE_RATE, window_start
from inference.faces import FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.lip_sync.locate import LocatedFace, face_box_of_landmarks
from inference.lip_sync.options import SyncOptions
from inference.lip_sync.preprocess import FACE_SIZE, FaceFrame, find_boxes, smooth_boxes
from inference.media import Frame, open_media
from inference.media.audio import read_audio
from inference.media.audio_convert import Samples
from training.common.correlation import correlate

FPS = 25.0
UPPER_INNER, LOWER_INNER = (61, 62, 63), (67, 66, 65)  # inner lips among the 68 landmarks, in vertical pairs
EYE_CORNERS = (36, 45)  # outer corners: their distance does not change when the mouth moves
LIP_MARGIN = 11  # px of the 96 x 96 face around the lips; the window of SSIM takes 5 of them
MIN_DEVIATION = 1e-6  # standard deviation below which a curve counts as constant

Points = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]  # (T,) one value per frame


@dataclass(frozen=True)
class SpeakingVideo:
    """A video of one person who speaks.

    face_frames: the frames with the boxes that lip sync crops. points: (T, 68, 2) landmarks, px. samples: (N,) int16,
    16 kHz mono.
    """

    name: str
    face_frames: tuple[FaceFrame, ...]
    points: Points
    samples: Samples

    @property
    def opening(self) -> Curve:
        return mouth_opening(self.points)


def read_speaking_video(path: Path, landmarker: Landmarker) -> SpeakingVideo:
    """Decode a video and find its face as lip sync does. Raises: ValueError if a frame has no face."""
    with open_media(path) as media:
        frames = [frame for clip in media.read_clips(FPS) for frame in clip.frames]
    tracker = FaceTracker(landmarker)
    points: list[Points] = []

    def locate(frame: Frame) -> LocatedFace:
        (face,) = tracker.follow((frame,))
        if face is None:
            raise ValueError(f"{path.name}: no face found in frame {len(points)}")
        points.append(face.points)
        return LocatedFace(face_box_of_landmarks(face.points))

    options = SyncOptions()
    face_frames = tuple(smooth_boxes(find_boxes(frames, locate, options.pads), options.smoothing))
    return SpeakingVideo(path.stem, face_frames, np.stack(points), read_audio(path, SAMPLE_RATE))


def mouth_opening(points: Points) -> Curve:
    """Return the gap between the inner lips over the distance of the eye corners: (T,) of (T, 68, 2)."""
    gap = points[:, LOWER_INNER, 1] - points[:, UPPER_INNER, 1]
    eye_distance = np.linalg.norm(points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]], axis=1)
    return np.asarray(gap.mean(axis=1) / eye_distance, np.float64)


def frame_loudness(samples: Samples, n_frames: int) -> Curve:
    """Return the audio level during each frame, in dB: (n_frames,)."""
    length = round(SAMPLE_RATE / FPS)
    padded = np.zeros(n_frames * length)
    padded[: len(samples)] = samples[: len(padded)]
    power = (padded.reshape(n_frames, length) ** 2).mean(axis=1)
    return np.asarray(10 * np.log10(power + 1), np.float64)


def correlate_at_lag(measured: Curve, reference: Curve, lag: int = 0) -> float:
    """Return Pearson's correlation over the frames that both curves have; 0 if either is constant.

    lag: number of frames by which `measured` is late.
    """
    n_frames = min(len(measured), len(reference))
    measured, reference = measured[:n_frames], reference[:n_frames]
    if lag > 0:
        measured, reference = measured[lag:], reference[:-lag]
    elif lag < 0:
        measured, reference = measured[:lag], reference[-lag:]
    return correlate(measured, reference, MIN_DEVIATION) or 0.0


def mouth_region(face_frame: FaceFrame, points: Points) -> tuple[slice, slice]:
    """Return the rows and columns of the lips, with a margin, in the 96 x 96 face.

    points: (68, 2) px of the frame. Raises: ValueError if the frame has no face.
    """
    if face_frame.box is None:
        raise ValueError("a frame without a face has no mouth region")
    box = face_frame.box
    scale = np.array([FACE_SIZE / box.width, FACE_SIZE / box.height])
    lips = (points[LIP_POINTS] - np.array([box.left, box.top])) * scale
    low = np.clip(np.floor(lips.min(axis=0)) - LIP_MARGIN, 0, FACE_SIZE).astype(int)
    high = np.clip(np.ceil(lips.max(axis=0)) + LIP_MARGIN, 0, FACE_SIZE).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def shuffle_audio(samples: Samples, piece_s: float, rng: np.random.Generator) -> Samples:
    """Cut audio into pieces and put them in random order."""
    n = round(piece_s * SAMPLE_RATE)
    pieces = [samples[start : start + n] for start in range(0, len(samples), n)]
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def mel_window_starts(n_frames: int) -> list[int]:
    """Return the first mel column of each frame's window, as lip sync cuts them."""
    offset = SyncOptions().mel_offset_frames
    return [window_start(k, FPS, offset) for k in range(n_frames)]
