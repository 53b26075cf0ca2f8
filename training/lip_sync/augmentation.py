"""Random changes to the faces that lip sync learns from: another place, shape, light and sharpness.

Two pictures of one sample change alike, or the one would not show what the other looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from inference.lip_sync.preprocess import SIDE
from training.lip_reading.augmentation import MIRRORED_LIPS
from training.lip_sync.face_packs import MARGIN, Bytes, Floats

FURTHEST_SHIFT, FURTHEST_SCALE = 6.0, 0.08  # of a face in its crop: px, and share
FURTHEST_STRETCH = 0.09  # of its width against its height, either way
FURTHEST_TURN = 6.0  # degrees
BENDS, FURTHEST_BEND = 5, 3.0  # control points along a side, and px that each moves
BLURRED, SMALLEST = 0.25, 0.45  # part of the samples, and the share of the resolution that is left to them
SHADES, DARKEST, LIGHTEST = 4, 0.75, 1.3  # control points along a side of a light that differs over the face
FADED = 0.3  # part of the samples whose colours are weaker or stronger
ASIDE_SHIFT, ASIDE_SCALE, ASIDE_TURN = 1.5, 0.015, 1.5  # px, share and degrees between two frames of one face
FIXED_POINTS = 3  # steps towards where a bent picture shows a point


@dataclass(frozen=True)
class Place:
    """Where a face goes: a point p of the face of 96 is seen at q, where p = matrix q + bend(q).

    matrix: (2, 3) float32. bend: (96, 96, 2) float32 px.
    """

    matrix: Floats
    bend: Floats


def draw_place(rng: np.random.Generator) -> Place:
    """Shifted, scaled, stretched, turned about its middle, and bent a little as faces differ."""
    scale = 1 + rng.uniform(-FURTHEST_SCALE, FURTHEST_SCALE)
    stretch = 1 + rng.uniform(-FURTHEST_STRETCH, FURTHEST_STRETCH)
    linear = turned(FURTHEST_TURN, rng) @ np.diag([scale * stretch, scale / stretch])
    shift = draw_shift(linear, FURTHEST_SHIFT, rng)
    controls = rng.uniform(-FURTHEST_BEND, FURTHEST_BEND, (BENDS, BENDS, 2)).astype(np.float32)
    bend = cv2.resize(controls, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return Place(np.column_stack([linear, shift]).astype(np.float32), np.asarray(bend, np.float32))


def move_a_little(place: Place, rng: np.random.Generator) -> Place:
    """Where the same face goes in another frame, in which its head and its box are not quite where they were."""
    linear = turned(ASIDE_TURN, rng) * (1 + rng.uniform(-ASIDE_SCALE, ASIDE_SCALE))
    shift = draw_shift(linear, ASIDE_SHIFT, rng)
    matrix = np.column_stack([linear @ place.matrix[:, :2], linear @ place.matrix[:, 2] + shift])
    return Place(matrix.astype(np.float32), place.bend)


def draw_shift(linear: Floats, furthest: float, rng: np.random.Generator) -> Floats:
    """(2,) px: so that what `linear` does is done about the middle of the face, which moves at most so far."""
    middle = np.full(2, SIDE / 2)
    return np.asarray(middle - linear @ middle + rng.uniform(-furthest, furthest, 2))


def turned(furthest: float, rng: np.random.Generator) -> Floats:
    """(2, 2), by at most so many degrees."""
    angle = np.deg2rad(rng.uniform(-furthest, furthest))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def cut(face: Bytes, place: Place) -> Bytes:
    """(96, 96, 3) out of a face with its margin, (120, 120, 3)."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    (a, b, x), (c, d, y) = place.matrix
    at_x = a * columns + b * rows + (x + MARGIN) + place.bend[..., 0]
    at_y = c * columns + d * rows + (y + MARGIN) + place.bend[..., 1]
    return np.asarray(cv2.remap(face, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def move_points(points: Floats, place: Place) -> Floats:
    """Where a cut face shows points of the face of 96: (N, 2)."""
    back = np.linalg.inv(place.matrix[:, :2])
    found = (points - place.matrix[:, 2]) @ back.T
    for _ in range(FIXED_POINTS):
        columns, rows = np.clip(np.rint(found), 0, SIDE - 1).astype(int).T
        found = (points - place.matrix[:, 2] - place.bend[rows, columns]) @ back.T
    return np.asarray(found, np.float32)


def mirror(faces: Sequence[Bytes], lips: Floats) -> tuple[list[Bytes], Floats]:
    """Left and right exchanged: (96, 96, 3) each and (20, 2)."""
    seen = lips[MIRRORED_LIPS] * np.array([-1, 1]) + np.array([SIDE - 1, 0])
    return [face[:, ::-1] for face in faces], np.asarray(seen, np.float32)


def change_look(faces: Sequence[Bytes], rng: np.random.Generator) -> list[Bytes]:
    """The same light, colours and sharpness for all."""
    gains = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.7, 1.3)
    levels, gamma = rng.uniform(-12, 12), rng.uniform(0.75, 1.35)
    scale = np.arange(256, dtype=np.float32) / 255
    table = np.clip(255 * scale[:, None] ** gamma * gains + levels, 0, 255).astype(np.uint8)[None]
    changed = [np.asarray(cv2.LUT(np.ascontiguousarray(face), table), np.uint8) for face in faces]
    shade = draw_shade(rng)
    changed = [np.asarray(np.clip(face * shade, 0, 255), np.uint8) for face in changed]
    if rng.random() < FADED:
        colour = rng.uniform(0, 1.4)
        changed = [fade(face, colour) for face in changed]
    if rng.random() < BLURRED:
        side = round(SIDE * rng.uniform(SMALLEST, 1))
        changed = [blur(face, side) for face in changed]
    return changed


def draw_shade(rng: np.random.Generator) -> Floats:
    """(96, 96, 3) factors of a light, or of a skin, that differs smoothly over the face and in each colour a little."""
    light = rng.uniform(np.log(DARKEST), np.log(LIGHTEST), (SHADES, SHADES, 1)) * rng.uniform(0, 1)
    colours = rng.uniform(-0.1, 0.1, (SHADES, SHADES, 3))
    return np.asarray(cv2.resize(np.exp(light + colours).astype(np.float32), (SIDE, SIDE)), np.float32)


def fade(face: Bytes, colour: float) -> Bytes:
    """0: grey; 1: as it is."""
    grey = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(face, colour, grey, 1 - colour, 0), np.uint8)


def blur(face: Bytes, side: int) -> Bytes:
    """Only as much detail as a picture of that side holds."""
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (SIDE, SIDE)), np.uint8)
