"""Preprocessing: from frames with faces to windows of mouth crops, with gaps filled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from inference.errors import NoFaceFound
from inference.faces import Face, FaceTrack, FaceTracker
from inference.faces.box import LIP_POINTS
from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH, crop_mouth
from inference.media import Clip, Frame
from inference.media.held_frames import HeldFrameDetector

WINDOW_FRAMES = 75  # frames, 3 s at 25 fps: the length of every training clip
# A longer gap is not blended from both sides; each half repeats the nearer side.
MAX_BLENDED_GAP = 12  # frames
MIN_SHOT_FRAMES = 25  # frames, one second: six words take longer


@dataclass(frozen=True)
class MouthCrop:
    """One frame of the network's input.

    crop: (64, 128, 3) uint8 BGR, aligned. lips: (20, 2) float32, points 48..67 as x / frame width,
    y / frame height, not aligned. gap_length: 0 if the face was found, else how many frames in a row lack it.
    shot: number of cuts before the frame. is_held: the frame before is shown again. held_length: 0, or the least number
    of frames in a row for which it is; see `held_mouths`.
    """

    crop: npt.NDArray[np.uint8]
    lips: npt.NDArray[np.float32]
    gap_length: int = 0
    shot: int = 0
    is_held: bool = False
    held_length: int = 0

    @property
    def silent_length(self) -> int:
        """How many frames in a row lack the face or are held; 0 if this one is new and shows the face."""
        return max(self.gap_length, self.held_length)


@dataclass(frozen=True)
class MouthWindow:
    """A run of frames for one pass of the network.

    start: its first frame, counted from the start of the video. n_frames: number of rows that are frames of the
    video; the rest pad a short clip.
    video: (75, 64, 128, 3) uint8 BGR. lips: (75, 20, 2) float32. gap_lengths: one per frame of the video.
    """

    start: int
    n_frames: int
    video: npt.NDArray[np.uint8]
    lips: npt.NDArray[np.float32]
    gap_lengths: tuple[int, ...]


def track_faces(clips: Iterable[Clip], tracker: FaceTracker) -> Iterator[tuple[Clip, FaceTrack]]:
    """Yield each clip with the track of the selected face."""
    for clip in clips:
        yield clip, tracker.follow(clip.frames)


def crop_mouths(tracked: Iterable[tuple[Clip, FaceTrack]], name: str, tracker: FaceTracker) -> Iterator[MouthCrop]:
    """Yield one mouth crop per frame; frames without the face are filled in from their neighbours.

    Raises: NoFaceFound if no frame shows the face.
    """
    last: MouthCrop | None = None
    n_missing, n_frames, held = 0, 0, HeldFrameDetector()
    for clip, track in tracked:
        n_frames += len(track)
        for frame, face in zip(clip.frames, track, strict=True):
            is_held = held.is_held(frame)
            if face is None:
                n_missing += 1
                continue
            mouth = replace(extract_mouth(frame, face), is_held=is_held)
            yield from fill_gap(last, mouth, n_missing)
            yield mouth
            last, n_missing = mouth, 0
    if last is None:
        raise NoFaceFound(f"{name}: {tracker.explain_no_face(n_frames)}")
    yield from fill_gap(last, None, n_missing)


def extract_mouth(frame: Frame, face: Face) -> MouthCrop:
    height, width = frame.shape[:2]
    lips = face.points[LIP_POINTS] / np.array([width, height])
    return MouthCrop(crop_mouth(frame, face.points), lips.astype(np.float32), shot=face.shot)


def fill_gap(before: MouthCrop | None, after: MouthCrop | None, n_missing: int) -> Iterator[MouthCrop]:
    """Yield the frames of a gap: a short one is blended from both sides, a long one repeats the nearer side.

    So does one with a cut in it.
    """
    for i in range(n_missing):
        if before is None or after is None:
            nearest = before or after
            assert nearest is not None
            yield replace(nearest, gap_length=n_missing)
            continue
        weight = (i + 1) / (n_missing + 1)
        if n_missing > MAX_BLENDED_GAP or before.shot != after.shot:
            weight = float(weight > 0.5)
        crop = np.rint(before.crop * (1 - weight) + after.crop * weight).astype(np.uint8)
        lips = (before.lips * (1 - weight) + after.lips * weight).astype(np.float32)
        yield MouthCrop(crop, lips, n_missing, after.shot if weight > 0.5 else before.shot)


def merge_short_shots(mouths: Iterable[MouthCrop]) -> Iterator[MouthCrop]:
    """Yield the mouths with `shot` as the shots are to be read: a short shot belongs to the one before it.

    A shot of less than a second holds no sentence. The cost of reading is bounded so, too: each shot takes a pass of
    the network, however short. At most 25 mouths are held.
    """
    held: list[MouthCrop] = []  # the first mouths of the next shot, as long as it is short
    shot = -1  # the shot that is read now; -1 before the first one
    for mouth in mouths:
        if held and mouth.shot != held[0].shot:
            yield from (replace(one, shot=shot) for one in held)
            held = []
        if shot in (-1, mouth.shot):
            shot = mouth.shot
            yield mouth
            continue
        held.append(mouth)
        if len(held) == MIN_SHOT_FRAMES:
            shot = mouth.shot
            yield from held
            held = []
    yield from (replace(one, shot=shot) for one in held)


def cut_windows(mouths: Iterable[MouthCrop], hop: int) -> Iterator[MouthWindow]:
    """Yield windows of 75 frames every `hop` frames; the last one of each shot ends with it.

    A shot of fewer than 75 frames gives one padded window.
    """
    first = 0
    for _, run in groupby(merge_short_shots(mouths), key=lambda mouth: mouth.shot):
        for window in cut_shot_windows(run, hop, first):
            yield window
            end = window.start + window.n_frames
        first = end


def cut_shot_windows(mouths: Iterable[MouthCrop], hop: int, first: int) -> Iterator[MouthWindow]:
    """Yield the windows of a shot. first: the frame of the video that it begins with."""
    recent: deque[MouthCrop] = deque(maxlen=WINDOW_FRAMES)
    n_frames, last_end, next_end = 0, 0, WINDOW_FRAMES
    for mouth in mouths:
        recent.append(mouth)
        n_frames += 1
        if n_frames == next_end:
            yield stack_window(recent, first + n_frames)
            last_end, next_end = n_frames, n_frames + hop
    if n_frames != last_end:
        yield stack_window(recent, first + n_frames)


def stack_window(mouths: Sequence[MouthCrop], end: int) -> MouthWindow:
    """Stack the last frames up to `end`; zeros pad a short clip, as in upstream's training."""
    n = len(mouths)
    video = np.zeros((WINDOW_FRAMES, CROP_HEIGHT, CROP_WIDTH, 3), np.uint8)
    lips = np.zeros((WINDOW_FRAMES, *mouths[0].lips.shape), np.float32)
    video[:n] = [mouth.crop for mouth in mouths]
    lips[:n] = [mouth.lips for mouth in mouths]
    return MouthWindow(end - n, n, video, lips, tuple(mouth.silent_length for mouth in mouths))
