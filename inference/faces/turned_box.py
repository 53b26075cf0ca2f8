"""Boxes turned with a tilted head: cut out upright, and pasted back turned.

A turned box is a `FaceBox` and an angle: the box is turned about its centre, clockwise on the screen.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.box import FaceBox

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]


def rotate(points: Points, angle_rad: float) -> Points:
    """Rotate points (..., 2) about the origin, clockwise on the screen."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


def patch_to_frame(box: FaceBox, angle_rad: float) -> Points:
    """Return the affine map (2, 3) from pixels of the upright patch of a turned box to pixels of the frame.

    box: its width and height are whole. Without a turn, pixel (0, 0) of the patch is pixel (left, top) of the frame.
    """
    middle = np.array([(box.width - 1) / 2, (box.height - 1) / 2])
    centre = np.array([box.left, box.top]) + middle
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    rotation = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([rotation, centre - rotation @ middle])


def cut_turned(frame_bgr: Frame, box: FaceBox, angle_rad: float) -> Frame:
    """Cut the upright patch of a turned box: (height, width, 3) uint8; beyond the frame its border is repeated."""
    size = (int(box.width), int(box.height))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = patch_to_frame(box, angle_rad)
    return np.asarray(cv2.warpAffine(frame_bgr, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def paste_turned(frame_bgr: Frame, patch_bgr: Frame, weight: Mask, box: FaceBox, angle_rad: float) -> Frame:
    """Return a copy of the frame with the patch of a turned box blended in.

    patch_bgr: (height, width, 3) uint8, upright, of the box's size; weight: (height, width) float32, 0 to 1.
    """
    pasted = frame_bgr.copy()
    left, top, right, bottom = bounds_in_frame(box, angle_rad, frame_bgr.shape)
    if right <= left or bottom <= top:
        return pasted
    matrix = patch_to_frame(box, angle_rad)
    matrix[:, 2] -= (left, top)
    size = (right - left, bottom - top)
    patch = cv2.warpAffine(patch_bgr, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(weight, matrix, size, flags=cv2.INTER_LINEAR)[..., None]
    before = frame_bgr[top:bottom, left:right].astype(np.float32)
    pasted[top:bottom, left:right] = np.rint(before + (patch - before) * share).astype(np.uint8)
    return pasted


def bounds_in_frame(box: FaceBox, angle_rad: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the part of the frame that a turned box covers: left, top, right, bottom."""
    corners = np.array([(x, y, 1) for x in (-1, box.width) for y in (-1, box.height)])
    covered = corners @ patch_to_frame(box, angle_rad).T
    low, high = np.floor(covered.min(axis=0)).astype(int), np.ceil(covered.max(axis=0)).astype(int) + 1
    height, width = shape[:2]
    return max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), width), min(int(high[1]), height)
