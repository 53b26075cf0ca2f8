"""Paste a generated face back into its frame."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.box import FaceBox

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]

# Shares of the box: top of the fade, its end, and the width of the fade at the sides and at the bottom.
FADE_FROM, FADE_TO = 0.42, 0.6
SIDE_FADE, BOTTOM_FADE = 0.16, 0.1


def overwrite_face(frame_bgr: Frame, patch_bgr: Frame, box: FaceBox) -> Frame:
    """Return a copy of the frame with the whole box replaced by the patch, seam included.

    patch_bgr: (h, w, 3) uint8; box: whole pixels inside the frame.
    Source: Rudrabha/Wav2Lip inference.py main.
    """
    rows, columns = slices_of(box)
    pasted = frame_bgr.copy()
    pasted[rows, columns] = resize_patch(patch_bgr, box)
    return pasted


def blend_lower_face(frame_bgr: Frame, patch_bgr: Frame, box: FaceBox) -> Frame:
    """Return a copy of the frame with the patch's lower face blended in; pixels outside the blend are unchanged.

    patch_bgr: (h, w, 3) uint8, of the whole box; box: whole pixels inside the frame.
    """
    rows, columns = slices_of(box)
    pasted = frame_bgr.copy()
    weight = lower_face_mask(rows.stop - rows.start, columns.stop - columns.start)[..., None]
    before, after = frame_bgr[rows, columns].astype(np.float32), resize_patch(patch_bgr, box)
    pasted[rows, columns] = np.rint(before + (after - before) * weight).astype(np.uint8)
    return pasted


def resize_patch(patch_bgr: Frame, box: FaceBox) -> Frame:
    """Resize a patch to the size of its box, bilinear."""
    width, height = int(box.width), int(box.height)
    if patch_bgr.shape[:2] == (height, width):
        return patch_bgr
    return cast(Frame, cv2.resize(patch_bgr, (width, height)))


def lower_face_mask(height: int, width: int) -> Mask:
    """Return the weight of the patch: (height, width) float32, 0 at the edges and above, 1 around the mouth."""
    y = (np.arange(height) + 0.5) / height
    x = (np.arange(width) + 0.5) / width
    vertical = smoothstep((y - FADE_FROM) / (FADE_TO - FADE_FROM)) * smoothstep((1 - y) / BOTTOM_FADE)
    horizontal = smoothstep(np.minimum(x, 1 - x) / SIDE_FADE)
    return np.outer(vertical, horizontal).astype(np.float32)


def whole_face_mask(height: int, width: int) -> Mask:
    """Return the weight of a patch that replaces its whole box: (height, width) float32, all 1."""
    return np.ones((height, width), np.float32)


def smoothstep(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rise from 0 to 1 without a corner at either end."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def slices_of(box: FaceBox) -> tuple[slice, slice]:
    """Return the rows and columns of a box of whole pixels."""
    return slice(int(box.top), int(box.bottom)), slice(int(box.left), int(box.right))
