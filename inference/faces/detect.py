"""Face detection by MediaPipe's BlazeFace (short range), run in OpenVINO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.box import Detection, FaceBox, FaceRegion

Network = Callable[..., Sequence[npt.NDArray[Any]]]
Array = npt.NDArray[np.float64]

INPUT_SIZE = 128
SCORE_CLIP = 100.0
MIN_SCORE = 0.5
NMS_IOU = 0.3
MAX_NESTING = 0.8  # of the smaller of two boxes that are two faces, so much may lie in the other
REGION_SCALE = 1.5
RIGHT_EYE, LEFT_EYE = 0, 1  # indices of key points, named from the person's own view
# Tiles to search if the whole frame shows no face: half a side each, overlapping by half, so that
# a face of up to a quarter of the frame's side is whole in one of them.
TILES_PER_SIDE = 3
# Tiles of a thorough search, as shares of the longer side, each level only if those of the one before are larger than
# a face with its eyes 24 pixels apart needs: it is about a tenth of such a tile.
SMALL_TILE_SHARES = (1 / 4, 1 / 8)
MAX_TILE_OF_SMALL_FACES = 560  # pixels
MIN_SMALL_FACE = 40  # pixels, width of its box; a smaller face has no mouth to speak of


def cut_region(frame: npt.NDArray[np.uint8], region: FaceRegion, size: int, border: int) -> npt.NDArray[np.uint8]:
    """Cut a rotated square out of a frame: (size, size, 3) uint8, in the frame's colour order."""
    forward = cv2.invertAffineTransform(region_to_frame(region, size))
    return cv2.warpAffine(frame, forward, (size, size), borderMode=border).astype(np.uint8, copy=False)


def region_to_frame(region: FaceRegion, size: int) -> Array:
    """Return the affine map (2, 3) from pixels of the cut-out region to pixels of the frame."""
    scale = region.size / size
    cos, sin = math.cos(region.angle_rad) * scale, math.sin(region.angle_rad) * scale
    half = size / 2
    return np.array(
        [
            [cos, -sin, region.centre_x - cos * half + sin * half],
            [sin, cos, region.centre_y - sin * half - cos * half],
        ]
    )


def rotated_square(box: FaceBox, from_xy: Array, to_xy: Array) -> FaceRegion:
    """Return the square of 1.5 times the box's longer side, rotated so that the line between two points is level."""
    angle = math.atan2(to_xy[1] - from_xy[1], to_xy[0] - from_xy[0])
    centre_x, centre_y = box.centre
    return FaceRegion(centre_x, centre_y, max(box.width, box.height) * REGION_SCALE, angle)


class FaceDetector:
    """BlazeFace short range, decoded as MediaPipe's own graph does.

    Source: MediaPipe 0.10.21 face_detection_short_range. Deliberately different: the search in tiles, since the
    network alone misses faces smaller than about a tenth of the frame, and the thorough search in smaller tiles.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._anchors = make_anchors()

    def detect(self, frame_bgr: npt.NDArray[np.uint8], n_wanted: int = 1, is_thorough: bool = False) -> list[Detection]:
        """Detect the faces of one frame, best score first.

        frame_bgr: (H, W, 3) uint8 BGR. If the whole frame shows fewer than `n_wanted` faces, it is searched again in
        overlapping tiles, which finds small faces. is_thorough: if there are none still, search smaller tiles, too; in
        a frame of 3840x2160 that is 148 more.
        """
        height, width = frame_bgr.shape[:2]
        whole = FaceRegion(width / 2, height / 2, max(width, height), 0.0)
        found = self._detect_in(frame_bgr, whole)
        if len(found) < n_wanted:
            for tile in tiles_of(width, height):
                found += self._detect_in(frame_bgr, tile)
        if not found and is_thorough:
            found = self._detect_small(frame_bgr)
        return suppress_detections(found)

    def _detect_small(self, frame_bgr: npt.NDArray[np.uint8]) -> list[Detection]:
        """Search ever smaller tiles until one shows a face."""
        height, width = frame_bgr.shape[:2]
        for size in small_tile_sizes(width, height):
            found = [one for tile in small_tiles_of(width, height, size) for one in self._detect_in(frame_bgr, tile)]
            if clear := [one for one in found if one.box.width >= MIN_SMALL_FACE]:
                return clear
        return []

    def _detect_in(self, frame_bgr: npt.NDArray[np.uint8], region: FaceRegion) -> list[Detection]:
        square = cut_region(frame_bgr, region, INPUT_SIZE, cv2.BORDER_CONSTANT)
        pixels = square[None, :, :, ::-1].astype(np.float32) / 127.5 - 1.0
        regressors, logits = self._network(pixels)
        scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0].astype(np.float64), -SCORE_CLIP, SCORE_CLIP)))
        is_kept = scores >= MIN_SCORE
        if not is_kept.any():
            return []
        points = self._decode(regressors[0][is_kept].astype(np.float64), is_kept)
        points = points * region.size + (region.centre_x - region.size / 2, region.centre_y - region.size / 2)
        return merge_overlapping(points, scores[is_kept])

    def _decode(self, raw_rows: Array, is_kept: npt.NDArray[np.bool_]) -> Array:
        """Decode raw rows (n, 16) to (n, 8, 2): two box corners, then six key points, 0..1 in the square."""
        centre = raw_rows[:, None, 0:2] / INPUT_SIZE + self._anchors[is_kept][:, None]
        half = raw_rows[:, None, 2:4] / INPUT_SIZE / 2
        key_points = raw_rows[:, 4:].reshape(-1, 6, 2) / INPUT_SIZE + self._anchors[is_kept][:, None]
        return np.concatenate([centre - half, centre + half, key_points], axis=1)


def make_anchors() -> Array:
    """Return the anchor centres (896, 2) in 0..1: two per cell at stride 8, six per cell at stride 16."""
    rows = []
    for stride, per_cell in ((8, 2), (16, 6)):
        n_cells = INPUT_SIZE // stride
        for y, x in product(range(n_cells), repeat=2):
            rows += [((x + 0.5) / n_cells, (y + 0.5) / n_cells)] * per_cell
    return np.array(rows)


def merge_overlapping(points: Array, scores: Array) -> list[Detection]:
    """Average overlapping candidates by their scores: weighted non-maximum suppression.

    points: (n, 8, 2) box corners and key points in pixels; scores: (n,).
    """
    detections = []
    remaining = np.argsort(-scores, kind="stable")
    while len(remaining):
        first = corner_box(points[remaining[0]])
        overlaps = np.array([first.overlap(corner_box(points[i])) > NMS_IOU for i in remaining])
        overlaps[0] = True
        group = remaining[overlaps]
        merged = np.average(points[group], axis=0, weights=scores[group])
        box = corner_box(merged)
        region = rotated_square(box, merged[2 + RIGHT_EYE], merged[2 + LEFT_EYE])
        detections.append(Detection(box, region, float(scores[remaining[0]])))
        remaining = remaining[~overlaps]
    return detections


def corner_box(points: Array) -> FaceBox:
    return FaceBox(*points[:2].ravel().tolist())


def suppress_detections(detections: list[Detection]) -> list[Detection]:
    """Drop detections that overlap a better one: non-maximum suppression; best first.

    A tile may show a face in a box of another size, which lies around or in that of the whole frame.
    Not shared with `s3fd.suppress_boxes`: here `right` and `bottom` are exclusive, there pixels of the box.
    """
    kept: list[Detection] = []
    for one in sorted(detections, key=lambda d: -d.score):
        if all(one.box.overlap(other.box) <= NMS_IOU and one.box.nesting(other.box) <= MAX_NESTING for other in kept):
            kept.append(one)
    return kept


def tiles_of(width: int, height: int) -> list[FaceRegion]:
    """Return overlapping squares that cover the frame, each half of its longer side."""
    size = max(width, height) / 2
    centres_x = tile_centres(width, size)
    centres_y = tile_centres(height, size)
    return [FaceRegion(x, y, size, 0.0) for y in centres_y for x in centres_x]


def tile_centres(length: int, size: float) -> list[float]:
    """Return the centres of the tiles along one side: one if a single tile covers it, else three."""
    if length <= size:
        return [length / 2]
    edges = np.linspace(size / 2, length - size / 2, TILES_PER_SIDE)
    return [float(x) for x in edges]


def small_tile_sizes(width: int, height: int) -> list[float]:
    """Return the sides of the tiles of a thorough search, largest first; none if the frame is small."""
    longer = max(width, height)
    larger = (1 / 2, *SMALL_TILE_SHARES)
    return [
        longer * share
        for before, share in zip(larger, SMALL_TILE_SHARES, strict=False)
        if longer * before > MAX_TILE_OF_SMALL_FACES
    ]


def small_tiles_of(width: int, height: int, size: float) -> list[FaceRegion]:
    """Return squares of a side that cover the frame, each overlapping the next by at least half."""
    centres_x, centres_y = (
        np.linspace(size / 2, length - size / 2, math.ceil((length - size) / (size / 2)) + 1)
        if length > size
        else np.array([length / 2])
        for length in (width, height)
    )
    return [FaceRegion(float(x), float(y), size, 0.0) for y in centres_y for x in centres_x]
