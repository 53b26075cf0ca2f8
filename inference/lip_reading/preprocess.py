"""From frames with faces to what the network takes: mouths without holes, cut into windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from inference.errors import NoFaceFound
from inference.faces import Face, FaceTrack, FaceTracker
from inference.faces.box import LIP_POINTS
from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH, crop_mouth
from inference.media import Clip, Frame

WINDOW = 75  # frames, 3 s at 25 fps: all that the networks ever saw
# Longer than this, a hole is not blended from both sides but held: half of it from each.
BLEND_AT_MOST = 12  # frames


@dataclass(frozen=True)
class Mouth:
    """One frame of what the network takes.

    crop: (64, 128, 3) uint8 BGR, aligned. lips: (20, 2) float32, points 48..67 as x / frame width,
    y / frame height, not aligned. hole: 0 where the face was seen, else how many frames in a row lack it.
    """

    crop: npt.NDArray[np.uint8]
    lips: npt.NDArray[np.float32]
    hole: int = 0


@dataclass(frozen=True)
class Window:
    """A run of frames for one pass of the network.

    start: its first frame, counted from the video's. n_frames: how many of the rows are the video's;
    the rest pad a short clip.
    video: (75, 64, 128, 3) uint8 BGR. lips: (75, 20, 2) float32. holes: one hole length per real frame.
    """

    start: int
    n_frames: int
    video: npt.NDArray[np.uint8]
    lips: npt.NDArray[np.float32]
    holes: tuple[int, ...]


def track_faces(clips: Iterable[Clip], tracker: FaceTracker) -> Iterator[tuple[Clip, FaceTrack]]:
    """Each clip with the track of the one face that is read."""
    for clip in clips:
        yield clip, tracker.follow(clip.frames)


def crop_mouths(tracked: Iterable[tuple[Clip, FaceTrack]], name: str, tracker: FaceTracker) -> Iterator[Mouth]:
    """A mouth for every frame; where the face was not seen it is filled in from its neighbours.

    Raises: NoFaceFound when no frame shows the face.
    """
    last: Mouth | None = None
    n_missing, n_frames = 0, 0
    for clip, track in tracked:
        n_frames += len(track)
        for frame, face in zip(clip.frames, track, strict=True):
            if face is None:
                n_missing += 1
                continue
            mouth = cut_mouth(frame, face)
            yield from fill(last, mouth, n_missing)
            yield mouth
            last, n_missing = mouth, 0
    if last is None:
        raise NoFaceFound(f"{name}: {tracker.explain_nothing(n_frames)}")
    yield from fill(last, None, n_missing)


def cut_mouth(frame: Frame, face: Face) -> Mouth:
    height, width = frame.shape[:2]
    lips = face.points[LIP_POINTS] / np.array([width, height])
    return Mouth(crop_mouth(frame, face.points), lips.astype(np.float32))


def fill(before: Mouth | None, after: Mouth | None, n_missing: int) -> Iterator[Mouth]:
    """The frames of a hole: blended from both sides where it is short, else the nearer side's."""
    for i in range(n_missing):
        if before is None or after is None:
            side = before or after
            assert side is not None
            yield replace(side, hole=n_missing)
            continue
        share = (i + 1) / (n_missing + 1)
        if n_missing > BLEND_AT_MOST:
            share = float(share > 0.5)
        crop = np.rint(before.crop * (1 - share) + after.crop * share).astype(np.uint8)
        lips = (before.lips * (1 - share) + after.lips * share).astype(np.float32)
        yield Mouth(crop, lips, n_missing)


def cut_windows(mouths: Iterable[Mouth], hop: int) -> Iterator[Window]:
    """Windows of 75 frames every `hop` frames; the last one ends with the video.

    A video under 75 frames gives one window, padded.
    """
    held: deque[Mouth] = deque(maxlen=WINDOW)
    n_frames, last_end, next_end = 0, 0, WINDOW
    for mouth in mouths:
        held.append(mouth)
        n_frames += 1
        if n_frames == next_end:
            yield stack_window(held, n_frames)
            last_end, next_end = n_frames, n_frames + hop
    if n_frames != last_end:
        yield stack_window(held, n_frames)


def stack_window(mouths: Sequence[Mouth], end: int) -> Window:
    """The last frames up to `end` as one window; zeros follow a short clip, as in upstream's training."""
    n = len(mouths)
    video = np.zeros((WINDOW, CROP_HEIGHT, CROP_WIDTH, 3), np.uint8)
    lips = np.zeros((WINDOW, *mouths[0].lips.shape), np.float32)
    video[:n] = [mouth.crop for mouth in mouths]
    lips[:n] = [mouth.lips for mouth in mouths]
    return Window(end - n, n, video, lips, tuple(mouth.hole for mouth in mouths))
