"""The network's input cut from a crop, and its output composed into the region of the frame.

Source: SyncTalk_2D inference_328.py, without its face parsing.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from inference.dimensions.avatar import FACE_SIDE
from inference.faces import FaceBox
from inference.faces.paste import slices_of
from inference.faces.paste import smoothstep as ease

Frame = npt.NDArray[np.uint8]

CROP_SIDE = 328  # px
MARGIN = 4  # px of the crop around the network's input: cut off, not scaled
NETWORK_REGION = slice(MARGIN, MARGIN + FACE_SIDE)


def cut_crop(frame_bgr: Frame, box: FaceBox) -> Frame:
    """Cut the face at the crop's size: (328, 328, 3) uint8 BGR, bicubic. box: whole pixels inside the frame."""
    return resize(frame_bgr[slices_of(box)], CROP_SIDE, CROP_SIDE)


def cut_face(crop_bgr: Frame) -> Frame:
    """Return the network's input: a view of the crop, (320, 320, 3)."""
    return crop_bgr[NETWORK_REGION, NETWORK_REGION]


def compose_patch(crop_bgr: Frame, generated_bgr: Frame, box: FaceBox, feather: int = 0) -> Frame:
    """Return the region of the box with the generated face: (h, w, 3) uint8 BGR, at the box's size.

    generated_bgr: (320, 320, 3) uint8, the network's output. feather: px over which it fades into the crop, from each
    edge. 0 is upstream's way, with a visible seam if the network's output does not match the frame around it.
    """
    whole = crop_bgr.copy()
    if feather:
        weight = feather_mask(feather)
        generated_bgr = np.asarray(cv2.blendLinear(generated_bgr, cut_face(crop_bgr), weight, 1 - weight), np.uint8)
    whole[NETWORK_REGION, NETWORK_REGION] = generated_bgr
    return resize(whole, int(box.width), int(box.height))


@cache
def feather_mask(feather: int) -> npt.NDArray[np.float32]:
    """Return the weight of the network's output: (320, 320) float32, 0 at the edges and 1 inside."""
    at = np.arange(FACE_SIDE) + 0.5
    ramp = ease(np.minimum(at, FACE_SIDE - at) / feather)
    return np.outer(ramp, ramp).astype(np.float32)


def resize(image: Frame, width: int, height: int) -> Frame:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
