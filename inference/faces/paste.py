"""A generated face put back into its frame."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.box import FaceBox

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]

# Of the box: where the lower face begins, where it is whole, and how wide it fades out at the other sides.
FADE_FROM, FADE_TO = 0.42, 0.6
SIDE_FADE, BOTTOM_FADE = 0.16, 0.1


def overwrite_face(frame_bgr: Frame, patch_bgr: Frame, box: FaceBox) -> Frame:
    """A copy of the frame with the whole box replaced by the patch, seam and all.

    patch_bgr: (h, w, 3) uint8; box: whole pixels inside the frame.
    Source: Rudrabha/Wav2Lip inference.py main.
    """
    rows, columns = slices_of(box)
    out = frame_bgr.copy()
    out[rows, columns] = fit_patch(patch_bgr, box)
    return out


def blend_lower_face(frame_bgr: Frame, patch_bgr: Frame, box: FaceBox) -> Frame:
    """A copy of the frame with the patch's lower face blended in; outside the blend not a level changes.

    patch_bgr: (h, w, 3) uint8, of the whole box; box: whole pixels inside the frame.
    """
    rows, columns = slices_of(box)
    out = frame_bgr.copy()
    weight = lower_face_mask(rows.stop - rows.start, columns.stop - columns.start)[..., None]
    before, after = frame_bgr[rows, columns].astype(np.float32), fit_patch(patch_bgr, box)
    out[rows, columns] = np.rint(before + (after - before) * weight).astype(np.uint8)
    return out


def fit_patch(patch_bgr: Frame, box: FaceBox) -> Frame:
    """The patch at the box's size, bilinear."""
    width, height = int(box.width), int(box.height)
    if patch_bgr.shape[:2] == (height, width):
        return patch_bgr
    return cast(Frame, cv2.resize(patch_bgr, (width, height)))


def lower_face_mask(height: int, width: int) -> Mask:
    """How much of the patch is taken: (height, width) float32, 0 at the edges and above, 1 around the mouth."""
    y = (np.arange(height) + 0.5) / height
    x = (np.arange(width) + 0.5) / width
    down = ramp((y - FADE_FROM) / (FADE_TO - FADE_FROM)) * ramp((1 - y) / BOTTOM_FADE)
    across = ramp(np.minimum(x, 1 - x) / SIDE_FADE)
    return np.outer(down, across).astype(np.float32)


def ramp(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 0 to 1 without a corner at either end."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def slices_of(box: FaceBox) -> tuple[slice, slice]:
    """Rows and columns of a box of whole pixels."""
    return slice(int(box.top), int(box.bottom)), slice(int(box.left), int(box.right))
