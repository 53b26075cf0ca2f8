"""Random changes to a mouth clip that keep its words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from training.common.arrays import Bytes, Floats, Integers
from training.common.lips import MIRRORED_LIPS
from training.common.mouth_packs import CROP_HEIGHT, CROP_WIDTH

MIN_WORD_SHARE = 0.5  # of a word's frames must remain after a time warp, or its text could no longer be expected
N_NOISE = 1 << 22  # noise values, drawn once: drawing 1.8 million of them for each clip would cost more than its warp


@dataclass(frozen=True)
class MouthSample:
    """A clip as training uses it. Fields per frame have the same meaning as in MouthClip."""

    frames: Bytes  # (T, 64, 128, 3) BGR
    lips: Floats  # (T, 20, 2)
    word_indices: Integers  # (T,) index into `words`, or BETWEEN_WORDS
    word_progress: Floats  # (T,)
    words: tuple[str, ...]
    text: str  # the target of CTC


class Augmentation:
    """Random changes; each is mild and most come with a chance, so that most clips stay close to real ones."""

    def __init__(self, seed: int) -> None:
        self._noise = np.random.default_rng(seed).normal(0, 1, N_NOISE).astype(np.float32)

    def augment(self, sample: MouthSample, rng: np.random.Generator) -> MouthSample:
        """Return a changed copy of a sample, of the same shapes."""
        if rng.random() < 0.3:
            sample = jitter_time(sample, rng)
        if rng.random() < 0.5:
            sample = drop_frames(sample, rng)
        frames = transform_frames(sample.frames, rng)
        lips = transform_lips(sample.lips, rng)
        if rng.random() < 0.5:
            frames, lips = mirror(frames, lips)
        frames = change_colours(frames, rng)
        if rng.random() < 0.2:
            frames = cover_patch(frames, rng)
        if rng.random() < 0.3:
            frames = self.add_noise(frames, rng)
        if rng.random() < 0.3:
            frames = compress(frames, rng)
        return replace(sample, frames=np.ascontiguousarray(frames), lips=lips.astype(np.float32))

    def add_noise(self, frames: Bytes, rng: np.random.Generator) -> Bytes:
        start = int(rng.integers(0, N_NOISE - frames.size))
        noise = self._noise[start : start + frames.size].reshape(frames.shape) * rng.uniform(1, 6)
        return np.clip(frames + noise, 0, 255).astype(np.uint8)


def select_frames(sample: MouthSample, frames: Integers) -> MouthSample:
    """Return a sample of the frames at these indices, in this order; its words and text stay."""
    return replace(
        sample,
        frames=sample.frames[frames],
        lips=sample.lips[frames],
        word_indices=sample.word_indices[frames],
        word_progress=sample.word_progress[frames],
    )


def warp_time(sample: MouthSample, rng: np.random.Generator) -> MouthSample:
    """Shift by up to 3 frames, stretch by up to 8 %, and wander by up to a frame.

    Return the sample unchanged if too little of a word would remain.
    """
    n_frames = len(sample.word_indices)
    middle = (n_frames - 1) / 2
    wander = np.interp(np.arange(n_frames), np.linspace(0, n_frames - 1, 8), rng.uniform(-1, 1, 8))
    stretched = middle + (np.arange(n_frames) - middle) * rng.uniform(0.92, 1.08)
    frames = np.clip(np.rint(stretched + rng.uniform(-3, 3) + wander), 0, n_frames - 1)
    frames = np.maximum.accumulate(frames).astype(np.int64)
    n_bins = sample.word_indices.max() + 2
    before, after = (
        np.bincount(indices + 1, minlength=n_bins)[1:] for indices in (sample.word_indices, sample.word_indices[frames])
    )
    if (after < MIN_WORD_SHARE * before).any():
        return sample
    return select_frames(sample, frames)


def jitter_time(sample: MouthSample, rng: np.random.Generator) -> MouthSample:
    """Repeat and skip single frames, as happens when a video of variable frame rate is converted to a constant one."""
    n_frames = len(sample.word_indices)
    moved = np.arange(n_frames) + rng.uniform(-0.8, 0.8, n_frames)
    frames = np.maximum.accumulate(np.clip(np.rint(moved), 0, n_frames - 1)).astype(np.int64)
    return select_frames(sample, frames)


def drop_frames(sample: MouthSample, rng: np.random.Generator) -> MouthSample:
    """Replace up to 14 frames as lip reading fills frames without a face: from the nearest ones on both sides."""
    n_frames = len(sample.word_indices)
    kept = np.setdiff1d(np.arange(n_frames), rng.integers(1, n_frames - 1, rng.integers(1, 15)))
    frames, lips = sample.frames.copy(), sample.lips.copy()
    for frame in np.setdiff1d(np.arange(n_frames), kept):
        after = int(np.searchsorted(kept, frame))
        left, right = int(kept[after - 1]), int(kept[after])
        share = (frame - left) / (right - left)
        frames[frame] = cv2.addWeighted(sample.frames[left], 1 - share, sample.frames[right], share, 0)
        lips[frame] = (1 - share) * sample.lips[left] + share * sample.lips[right]
    return replace(sample, frames=frames, lips=lips)


def transform_frames(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """Rotate the clip by up to 3 degrees, scale it by up to 6 %, and shift it by up to 6 x 4 px."""
    matrix = cv2.getRotationMatrix2D((CROP_WIDTH / 2, CROP_HEIGHT / 2), rng.uniform(-3, 3), rng.uniform(0.94, 1.06))
    matrix[:, 2] += np.array([rng.uniform(-6, 6), rng.uniform(-4, 4)])
    size = (CROP_WIDTH, CROP_HEIGHT)
    return np.stack([cv2.warpAffine(frame, matrix, size, borderMode=cv2.BORDER_REPLICATE) for frame in frames])


def transform_lips(lips: Floats, rng: np.random.Generator) -> Floats:
    """Move and scale the lip points within the frame, and add jitter (0.25 px of 360)."""
    middle = lips.mean((0, 1))
    moved = (lips - middle) * rng.uniform(0.93, 1.07) + middle + rng.uniform(-0.02, 0.02, 2)
    return np.asarray(moved + rng.normal(0, 0.0007, lips.shape), np.float32)


def mirror(frames: Bytes, lips: Floats) -> tuple[Bytes, Floats]:
    """Exchange left and right, of (T, H, W, 3) and (T, 20, 2)."""
    mirrored = lips[:, MIRRORED_LIPS].copy()
    mirrored[..., 0] = 1 - mirrored[..., 0]
    return frames[:, :, ::-1], mirrored


def change_colours(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """Change contrast, brightness and gamma of the clip, slightly per channel; one clip in ten turns grey."""
    levels = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)
    curves = (levels[:, None] ** rng.uniform(0.8, 1.25) - 0.5) * gain + 0.5 + rng.uniform(-0.08, 0.08)
    table = np.clip(curves * 255, 0, 255).astype(np.uint8)[None]
    stack = np.ascontiguousarray(frames).reshape(-1, CROP_WIDTH, 3)
    if rng.random() < 0.1:
        grey = cv2.cvtColor(stack, cv2.COLOR_BGR2GRAY)
        stack = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    return cv2.LUT(stack, table).reshape(frames.shape).astype(np.uint8, copy=False)


def compress(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """Lose detail as a small upload does: by a lower resolution, or by JPEG of low quality."""
    if rng.random() < 0.5:
        share = rng.uniform(0.4, 0.8)
        small = [cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA) for frame in frames]
        return np.stack([cv2.resize(one, (CROP_WIDTH, CROP_HEIGHT)) for one in small]).astype(np.uint8, copy=False)
    strip = np.ascontiguousarray(frames).reshape(-1, CROP_WIDTH, 3)
    _, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 70))])
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8).reshape(frames.shape)


def cover_patch(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """Cover part of up to 25 frames with a rectangle of one colour."""
    height, width = int(rng.integers(6, 20)), int(rng.integers(8, 32))
    top, left = int(rng.integers(0, CROP_HEIGHT - height)), int(rng.integers(0, CROP_WIDTH - width))
    first, n_covered = int(rng.integers(0, len(frames) - 5)), int(rng.integers(3, 26))
    covered = frames.copy()
    covered[first : first + n_covered, top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return covered
