"""Warping of a mouth of the video onto a generated one."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.box import LIP_POINTS
from inference.faces.crop import fit_similarity
from inference.lip_sync.mouth_bank import StoredMouth
from inference.lip_sync.mouth_shape import STABLE_POINTS, MeasuredMouth, Points
from inference.matrix_product import multiply
from inference.media import Frame

CONTROL_POINTS = [*range(LIP_POINTS.start, LIP_POINTS.stop), *range(31, 36)]  # the lips, and the base of the nose
# Around the mouth, in shares of the box, the warp only moves, turns and scales as the upper face says.
ANCHORS = np.array([*[(x, y) for x in (-0.15, 1.15) for y in (0.1, 0.4, 0.75, 1.15)], *[(0.5, y) for y in (0.1, 1.2)]])
STIFFNESS = 1e-4  # regularisation of the thin plate: landmarks are not exact
N_STEPS = 14  # columns of the grid on which the thin plate is evaluated
FLOW_WIDTH = 96  # pixels: what is generated has no more
FLOW_SIGMA, MAX_FLOW = 2.0, 4.0  # pixels of that size: smoothing of the flow, and its limit
PYRAMID_SCALE, N_LEVELS, FLOW_WINDOW, N_ITERATIONS, POLY_N, POLY_SIGMA = 0.5, 2, 15, 2, 5, 1.1  # of Farneback's method

Map = npt.NDArray[np.float32]  # (h, w, 2): for each pixel, x and y of the pixel to take


class ThinPlate:
    """A smooth map that brings landmarks of any example onto those of one generated mouth.

    It is factored once, as its knots are those of the generated mouth.
    """

    def __init__(self, mouth: MeasuredMouth, size: tuple[int, int], top: int) -> None:
        """Prepare the rows from `top` on of a patch of `size`, width and height."""
        self._mouth, self._size, self._top = mouth, size, top
        width, height = size
        self._anchors = ANCHORS * np.array(size)
        knots = np.vstack([mouth.points[CONTROL_POINTS], self._anchors]) / width
        n = len(knots)
        system = np.zeros((n + 3, n + 3))
        system[:n, :n] = radial(knots, knots) + STIFFNESS * np.eye(n)
        system[:n, n:] = np.column_stack([np.ones(n), knots])
        system[n:, :n] = system[:n, n:].T
        self._step = width / N_STEPS
        columns = np.arange(N_STEPS + 1) * self._step
        rows = top + np.arange(int(np.ceil((height - top) / self._step)) + 1) * self._step
        nodes = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2) / width
        basis = np.column_stack([radial(nodes, knots), np.ones(len(nodes)), nodes])
        self._weights = np.linalg.solve(system, basis.T)[:n].T  # of each knot's target at each node
        self._shape = len(rows), len(columns), 2
        # cv2.remap would do, but rounds positions to 1/32 of a step
        self._rows = between_nodes(height - top, len(rows), self._step)
        self._columns = between_nodes(width, len(columns), self._step)

    def map_onto(self, example: StoredMouth) -> Map:
        """Return the map from pixels of the patch's rows to pixels of the example: (height - top, width, 2)."""
        to_example = fit_similarity(self._mouth.points[STABLE_POINTS], example.mouth.points[STABLE_POINTS])
        anchors = self._anchors @ to_example[:, :2].T + to_example[:, 2]
        targets = np.vstack([example.mouth.points[CONTROL_POINTS], anchors]) - example.origin
        nodes = (self._weights @ targets).reshape(self._shape).astype(np.float32)
        between = (multiply(multiply(self._rows, nodes[..., axis]), self._columns.T) for axis in (0, 1))
        return np.stack(list(between), axis=-1)


def between_nodes(n_pixels: int, n_nodes: int, step: float) -> npt.NDArray[np.float32]:
    """Return the weights of linear interpolation between nodes `step` pixels apart: (n_pixels, n_nodes)."""
    at = np.arange(n_pixels)[:, None] / step
    return np.asarray(np.maximum(1 - np.abs(at - np.arange(n_nodes)), 0), np.float32)


def radial(points: Points, knots: Points) -> Points:
    """Return r^2 log r^2 of the distances of points and knots."""
    squared = ((points[:, None] - knots[None]) ** 2).sum(axis=-1)
    return np.asarray(squared * np.log(squared + 1e-12))


def sample(example: StoredMouth, at: Map) -> Frame:
    """Return the example's pixels at a map's positions: (h, w, 3) uint8."""
    columns, rows = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    taken = cv2.remap(example.pixels, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(taken, np.uint8)


def refine(at: Map, warped: npt.NDArray[np.float32], generated: npt.NDArray[np.float32]) -> Map:
    """Return the map, corrected by the optical flow between two small images of the same size.

    warped: what the map takes, made as soft as the generated image.
    """
    one, other = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (generated, warped))
    one, other = (np.clip(image, 0, 255).astype(np.uint8) for image in (one, other + (one.mean() - other.mean())))
    start = np.zeros((*one.shape, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(
        one, other, start, PYRAMID_SCALE, N_LEVELS, FLOW_WINDOW, N_ITERATIONS, POLY_N, POLY_SIGMA, 0
    )
    flow = np.clip(cv2.GaussianBlur(flow, (0, 0), FLOW_SIGMA), -MAX_FLOW, MAX_FLOW)
    height, width = at.shape[:2]
    flow = cv2.resize(flow, (width, height)) * np.array([width / one.shape[1], height / one.shape[0]], np.float32)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.asarray(
        cv2.remap(at, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )
