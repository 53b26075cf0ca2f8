"""Random changes to the faces of a training sample: position, shape, light and sharpness.

Both images of a sample change alike; otherwise one would not show the appearance of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from inference.lip_sync.preprocess import FACE_SIZE
from training.common.arrays import Bytes, Floats
from training.common.face_packs import MARGIN
from training.common.lips import MIRRORED_LIPS

# Largest changes of a face in its crop.
MAX_SHIFT_PX, MAX_SCALE, MAX_ROTATION = 6.0, 0.08, 6.0  # px, share, degrees
MAX_STRETCH = 0.09  # of its width against its height, as a share
N_CONTROLS, MAX_BEND_PX = 5, 3.0  # control points along a side, and how far each moves
# Largest changes between two frames of one face.
MAX_FRAME_SHIFT_PX, MAX_FRAME_SCALE, MAX_FRAME_ROTATION = 1.5, 0.015, 1.5
BLUR_SHARE, MIN_RESOLUTION = 0.25, 0.45  # share of samples that lose detail, and the least share of the resolution kept
N_SHADES, DARKEST, LIGHTEST = 4, 0.75, 1.3  # control points along a side of the shading, and its bounds
DIM_SHARE, DIMMEST = 0.25, 0.35  # share of samples that become darker, as dark skin or rooms, and the least gain
FADED_SHARE = 0.3  # share of samples whose colours are weakened or strengthened
N_ITERATIONS = 3  # of the inversion of a warp


@dataclass(frozen=True)
class FaceWarp:
    """A warp of the face: pixel q of the result shows point p of the face of 96, where p = matrix q + bend(q).

    matrix: (2, 3) float32. bend: (96, 96, 2) float32 px.
    """

    matrix: Floats
    bend: Floats


def draw_warp(rng: np.random.Generator) -> FaceWarp:
    """Draw a shift, scale, stretch and rotation about the middle, and a slight bend, as faces differ."""
    scale = 1 + rng.uniform(-MAX_SCALE, MAX_SCALE)
    stretch = 1 + rng.uniform(-MAX_STRETCH, MAX_STRETCH)
    linear = draw_rotation(MAX_ROTATION, rng) @ np.diag([scale * stretch, scale / stretch])
    shift = draw_shift(linear, MAX_SHIFT_PX, rng)
    controls = rng.uniform(-MAX_BEND_PX, MAX_BEND_PX, (N_CONTROLS, N_CONTROLS, 2)).astype(np.float32)
    bend = cv2.resize(controls, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_CUBIC)
    return FaceWarp(np.column_stack([linear, shift]).astype(np.float32), np.asarray(bend, np.float32))


def perturb_warp(warp: FaceWarp, rng: np.random.Generator) -> FaceWarp:
    """Return the warp of the same face in another frame, whose head and box are at slightly different places."""
    linear = draw_rotation(MAX_FRAME_ROTATION, rng) * (1 + rng.uniform(-MAX_FRAME_SCALE, MAX_FRAME_SCALE))
    shift = draw_shift(linear, MAX_FRAME_SHIFT_PX, rng)
    matrix = np.column_stack([linear @ warp.matrix[:, :2], linear @ warp.matrix[:, 2] + shift])
    return FaceWarp(matrix.astype(np.float32), warp.bend)


def draw_shift(linear: Floats, max_shift_px: float, rng: np.random.Generator) -> Floats:
    """Return the shift (2,), px, that applies `linear` about the middle of the face and then moves it randomly."""
    middle = np.full(2, FACE_SIZE / 2)
    return np.asarray(middle - linear @ middle + rng.uniform(-max_shift_px, max_shift_px, 2))


def draw_rotation(max_degrees: float, rng: np.random.Generator) -> Floats:
    """Return a rotation matrix (2, 2)."""
    angle = np.deg2rad(rng.uniform(-max_degrees, max_degrees))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def warp_face(face: Bytes, warp: FaceWarp) -> Bytes:
    """Warp a face: (96, 96, 3) of a face with its margin, (120, 120, 3)."""
    rows, columns = np.mgrid[:FACE_SIZE, :FACE_SIZE].astype(np.float32)
    (a, b, x), (c, d, y) = warp.matrix
    source_x = a * columns + b * rows + (x + MARGIN) + warp.bend[..., 0]
    source_y = c * columns + d * rows + (y + MARGIN) + warp.bend[..., 1]
    return np.asarray(cv2.remap(face, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def warp_points(points: Floats, warp: FaceWarp) -> Floats:
    """Return where a warped face shows points of the face of 96: (N, 2)."""
    inverse = np.linalg.inv(warp.matrix[:, :2])
    found = (points - warp.matrix[:, 2]) @ inverse.T
    for _ in range(N_ITERATIONS):
        columns, rows = np.clip(np.rint(found), 0, FACE_SIZE - 1).astype(int).T
        found = (points - warp.matrix[:, 2] - warp.bend[rows, columns]) @ inverse.T
    return np.asarray(found, np.float32)


def mirror(faces: Sequence[Bytes], lips: Floats) -> tuple[list[Bytes], Floats]:
    """Exchange left and right of faces (96, 96, 3) and of lips (20, 2)."""
    mirrored = lips[MIRRORED_LIPS] * np.array([-1, 1]) + np.array([FACE_SIZE - 1, 0])
    return [face[:, ::-1] for face in faces], np.asarray(mirrored, np.float32)


def change_appearance(faces: Sequence[Bytes], rng: np.random.Generator) -> list[Bytes]:
    """Change light, colours and sharpness of all faces alike."""
    gains = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.7, 1.3)
    if rng.random() < DIM_SHARE:
        gains = gains * rng.uniform(DIMMEST, 1)
    offset, gamma = rng.uniform(-12, 12), rng.uniform(0.75, 1.35)
    levels = np.arange(256, dtype=np.float32) / 255
    table = np.clip(255 * levels[:, None] ** gamma * gains + offset, 0, 255).astype(np.uint8)[None]
    changed = [np.asarray(cv2.LUT(np.ascontiguousarray(face), table), np.uint8) for face in faces]
    shading = draw_shading(rng)
    changed = [np.asarray(np.clip(face * shading, 0, 255), np.uint8) for face in changed]
    if rng.random() < FADED_SHARE:
        saturation = rng.uniform(0, 1.4)
        changed = [change_saturation(face, saturation) for face in changed]
    if rng.random() < BLUR_SHARE:
        side = round(FACE_SIZE * rng.uniform(MIN_RESOLUTION, 1))
        changed = [reduce_detail(face, side) for face in changed]
    return changed


def draw_shading(rng: np.random.Generator) -> Floats:
    """Draw factors (96, 96, 3) of light or skin that vary smoothly over the face, and slightly by colour."""
    light = rng.uniform(np.log(DARKEST), np.log(LIGHTEST), (N_SHADES, N_SHADES, 1)) * rng.uniform(0, 1)
    colours = rng.uniform(-0.1, 0.1, (N_SHADES, N_SHADES, 3))
    return np.asarray(cv2.resize(np.exp(light + colours).astype(np.float32), (FACE_SIZE, FACE_SIZE)), np.float32)


def change_saturation(face: Bytes, saturation: float) -> Bytes:
    """Scale the colours of a face: 0 makes it grey, 1 leaves it unchanged."""
    grey = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(face, saturation, grey, 1 - saturation, 0), np.uint8)


def reduce_detail(face: Bytes, side: int) -> Bytes:
    """Reduce a face to the detail of an image `side` px wide."""
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (FACE_SIZE, FACE_SIZE)), np.uint8)
