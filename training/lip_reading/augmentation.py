"""Random changes to a mouth clip that leave its words the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from training.lip_reading.mouth_packs import CROP_HEIGHT, CROP_WIDTH, Bytes, Floats, Integers

# Points 48..67 seen in a mirror: outer lips 48..59, inner lips 60..67, left and right changing places.
MIRRORED_LIPS = np.array([6, 5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 16, 15, 14, 13, 12, 19, 18, 17])
LEAST_LEFT = 0.5  # of a word's frames after a time warp; a word cut shorter can no longer be asked for
N_NOISE = 1 << 22  # drawn once: drawing 1.8 million numbers for each clip would cost more than its warp


@dataclass(frozen=True)
class Sample:
    """What training sees of a clip."""

    frames: Bytes  # (T, 64, 128, 3) BGR
    lips: Floats  # (T, 20, 2)
    slots: Integers  # (T,) word number or -1
    within: Floats  # (T,) part of the word gone by
    words: tuple[str, ...]  # by their number
    text: str  # what CTC is asked for


class Augmentation:
    """Draws changes; each is mild and most come with a chance, so that most clips stay close to real ones."""

    def __init__(self, seed: int) -> None:
        self._noise = np.random.default_rng(seed).normal(0, 1, N_NOISE).astype(np.float32)

    def vary(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """One changed copy of a sample; shapes stay."""
        if rng.random() < 0.3:
            sample = jitter_time(sample, rng)
        if rng.random() < 0.5:
            sample = drop_frames(sample, rng)
        frames = move_pictures(sample.frames, rng)
        lips = move_lips(sample.lips, rng)
        if rng.random() < 0.5:
            frames, lips = mirror(frames, lips)
        frames = change_light(frames, rng)
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


def take_frames(sample: Sample, at: Integers) -> Sample:
    """Those frames of a sample, in that order; its words stay."""
    return replace(
        sample, frames=sample.frames[at], lips=sample.lips[at], slots=sample.slots[at], within=sample.within[at]
    )


def warp_time(sample: Sample, rng: np.random.Generator) -> Sample:
    """Shift by up to 3 frames, stretch by up to 8 %, wander by up to a frame; given up where a word would be cut."""
    n_frames = len(sample.slots)
    middle = (n_frames - 1) / 2
    wander = np.interp(np.arange(n_frames), np.linspace(0, n_frames - 1, 8), rng.uniform(-1, 1, 8))
    stretched = middle + (np.arange(n_frames) - middle) * rng.uniform(0.92, 1.08)
    at = np.clip(np.rint(stretched + rng.uniform(-3, 3) + wander), 0, n_frames - 1)
    at = np.maximum.accumulate(at).astype(np.int64)
    n_slots = sample.slots.max() + 2
    before, after = (np.bincount(slots + 1, minlength=n_slots)[1:] for slots in (sample.slots, sample.slots[at]))
    if (after < LEAST_LEFT * before).any():
        return sample
    return take_frames(sample, at)


def jitter_time(sample: Sample, rng: np.random.Generator) -> Sample:
    """Single frames doubled or left out, as when a film of variable rate is brought to an even one."""
    moved = np.arange(len(sample.slots)) + rng.uniform(-0.8, 0.8, len(sample.slots))
    at = np.maximum.accumulate(np.clip(np.rint(moved), 0, len(moved) - 1)).astype(np.int64)
    return take_frames(sample, at)


def drop_frames(sample: Sample, rng: np.random.Generator) -> Sample:
    """Up to 14 frames without a face, filled as reading fills them: from the nearest on both sides."""
    n_frames = len(sample.slots)
    kept = np.setdiff1d(np.arange(n_frames), rng.integers(1, n_frames - 1, rng.integers(1, 15)))
    frames, lips = sample.frames.copy(), sample.lips.copy()
    for at in np.setdiff1d(np.arange(n_frames), kept):
        after = int(np.searchsorted(kept, at))
        left, right = int(kept[after - 1]), int(kept[after])
        share = (at - left) / (right - left)
        frames[at] = cv2.addWeighted(sample.frames[left], 1 - share, sample.frames[right], share, 0)
        lips[at] = (1 - share) * sample.lips[left] + share * sample.lips[right]
    return replace(sample, frames=frames, lips=lips)


def move_pictures(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """The whole clip turned by up to 3 degrees, scaled by up to 6 %, shifted by up to 6 x 4 px."""
    turn = cv2.getRotationMatrix2D((CROP_WIDTH / 2, CROP_HEIGHT / 2), rng.uniform(-3, 3), rng.uniform(0.94, 1.06))
    turn[:, 2] += np.array([rng.uniform(-6, 6), rng.uniform(-4, 4)])
    size = (CROP_WIDTH, CROP_HEIGHT)
    return np.stack([cv2.warpAffine(frame, turn, size, borderMode=cv2.BORDER_REPLICATE) for frame in frames])


def move_lips(lips: Floats, rng: np.random.Generator) -> Floats:
    """The face elsewhere in the picture and of another size, and points that tremble (.25 px of 360)."""
    middle = lips.mean((0, 1))
    moved = (lips - middle) * rng.uniform(0.93, 1.07) + middle + rng.uniform(-0.02, 0.02, 2)
    return np.asarray(moved + rng.normal(0, 0.0007, lips.shape), np.float32)


def mirror(frames: Bytes, lips: Floats) -> tuple[Bytes, Floats]:
    """Left and right exchanged: (T, H, W, 3) and (T, 20, 2)."""
    seen = lips[:, MIRRORED_LIPS].copy()
    seen[..., 0] = 1 - seen[..., 0]
    return frames[:, :, ::-1], seen


def change_light(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """Contrast, brightness and gamma of the clip, a little of them per channel; one clip in ten turns grey."""
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
    """Detail lost as in a small upload: the pictures at a lower resolution, or as JPEG of low quality."""
    if rng.random() < 0.5:
        share = rng.uniform(0.4, 0.8)
        small = [cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA) for frame in frames]
        return np.stack([cv2.resize(one, (CROP_WIDTH, CROP_HEIGHT)) for one in small]).astype(np.uint8, copy=False)
    strip = np.ascontiguousarray(frames).reshape(-1, CROP_WIDTH, 3)
    _, packed = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 70))])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8).reshape(frames.shape)


def cover_patch(frames: Bytes, rng: np.random.Generator) -> Bytes:
    """A rectangle of one colour over part of the pictures for up to 25 frames."""
    height, width = int(rng.integers(6, 20)), int(rng.integers(8, 32))
    top, left = int(rng.integers(0, CROP_HEIGHT - height)), int(rng.integers(0, CROP_WIDTH - width))
    first, n_covered = int(rng.integers(0, len(frames) - 5)), int(rng.integers(3, 26))
    covered = frames.copy()
    covered[first : first + n_covered, top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return covered
