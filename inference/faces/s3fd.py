"""Face boxes by S3FD, as Wav2Lip's upstream finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.faces.box import FaceBox

Frame = npt.NDArray[np.uint8]
Array = npt.NDArray[np.floating]
Network = Callable[..., Sequence[npt.NDArray[Any]]]

MEAN = (104.0, 117.0, 123.0)  # for B, G, R; upstream subtracts it from R, G, B, and this does the same
FINEST_STRIDE = 4  # pixels; doubled from scale to scale
ANCHOR_STRIDES = 4  # side of an anchor, in strides
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
MIN_CANDIDATE, MIN_SCORE = 0.05, 0.5
NMS_IOU = 0.3


class S3fdDetector:
    """Detects face boxes, without landmarks.

    Source: Rudrabha/Wav2Lip face_detection/api.py, detection/sfd/detect.py and bbox.py. Deliberately
    different: a candidate counts for its own image only; upstream drops it in the others by its low score there.
    """

    def __init__(self, network: Network) -> None:
        """Take the network: [1, 3, H, W] float32 -> logits and box offsets of six scales, finest first."""
        self._network = network

    def detect_best(self, frame_bgr: Frame) -> FaceBox | None:
        """Detect the best face, cropped as upstream does: whole pixels, none below 0; None if there is no face."""
        found = self.detect(frame_bgr)
        if len(found) == 0:
            return None
        left, top, right, bottom = np.maximum(found[0, :4], 0).astype(int).tolist()
        return FaceBox(left, top, right, bottom)

    def detect(self, frame_bgr: Frame) -> npt.NDArray[np.float32]:
        """Detect faces in a (H, W, 3) uint8 BGR frame, best first: (n, 5) float32 left, top, right, bottom, score."""
        candidates = decode_candidates(self._network(to_input(frame_bgr)))
        return suppress_boxes(candidates[candidates[:, 4] > MIN_SCORE])


def to_input(frame_bgr: Frame) -> npt.NDArray[np.float32]:
    """Convert a frame to (1, 3, H, W) float32, RGB minus the mean."""
    pixels = frame_bgr[..., ::-1] - np.array(MEAN, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def decode_candidates(maps: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Decode the candidates of all scales in one image: (n, 5) float32."""
    found = [np.zeros((0, 5), np.float32)]
    for scale, (logits, offsets) in enumerate(zip(maps[::2], maps[1::2], strict=True)):
        stride = FINEST_STRIDE << scale
        scores = 1 / (1 + np.exp(np.clip(logits[0, 0] - logits[0, 1], -80, 80)))
        rows, columns = np.nonzero(scores > MIN_CANDIDATE)
        move = offsets[0][:, rows, columns]
        centre = stride / 2 + stride * np.stack([columns, rows])
        side = float(ANCHOR_STRIDES * stride)
        size = side * np.exp(move[2:] * SIZE_VARIANCE)
        corner = centre + move[:2] * CENTRE_VARIANCE * side - size / 2
        found.append(np.concatenate([corner, corner + size, scores[None, rows, columns]]).T.astype(np.float32))
    return np.concatenate(found)


def suppress_boxes(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Drop boxes that overlap a better one: non-maximum suppression; best first.

    Not shared with `detect.suppress_detections`: here `right` and `bottom` are pixels of the box, there exclusive.
    """
    remaining = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept = [np.zeros((0, 5), np.float32)]
    while len(remaining):
        kept.append(remaining[:1])
        remaining = remaining[1:][iou_inclusive(remaining[0], remaining[1:]) <= NMS_IOU]
    return np.concatenate(kept)


def iou_inclusive(one: Array, others: Array) -> Array:
    """Return the intersection over union of one box with others, both edges counted as pixels."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:4], others[:, 2:4])
    shared: Array = np.maximum(high - low + 1, 0).prod(axis=1)
    return np.asarray(shared / (area_inclusive(one) + area_inclusive(others) - shared))


def area_inclusive(boxes: Array) -> Array:
    """Return the areas of boxes, both edges counted as pixels."""
    sides: Array = boxes[..., 2:4] - boxes[..., :2] + 1
    return np.asarray(sides.prod(axis=-1))
