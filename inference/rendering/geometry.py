"""The face as a surface: the canonical mesh, one person's version of it, and its depth at every point.

This package measures in units of the mesh (cm): x to the viewer's right, y DOWN, z towards the viewer. The origin is
between the eyes and the nose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.rendering.appearance import Appearance

Points = npt.NDArray[np.floating]
Plane = npt.NDArray[np.floating]  # (rows, columns), one value per point of a grid

MESH_FILE = Path(__file__).parent / "geometry" / "canonical_face.npz"

# Region of the plane that textures and depth cover.
LEFT, RIGHT, TOP, BOTTOM = -14.0, 14.0, -17.0, 17.0
DEPTH_STEPS = 6  # depth samples per unit; the points of the mesh are 0.3 to 1.5 apart
MIN_DEPTH = -5.0  # of hair and ears, which are outside the mesh

# Vertex indices of the mesh, left to right for the viewer.
OUTER_UPPER_LIP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
INNER_UPPER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
INNER_LOWER_LIP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
OUTER_LOWER_LIP = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
UPPER_LIDS = ([33, 246, 161, 160, 159, 158, 157, 173, 133], [362, 398, 384, 385, 386, 387, 388, 466, 263])
LOWER_LIDS = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [362, 382, 381, 380, 374, 373, 390, 249, 263])
UPPER_BROWS = ([70, 63, 105, 66, 107], [336, 296, 334, 293, 300])
LOWER_BROWS = ([46, 53, 52, 65, 55], [285, 295, 282, 283, 276])
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152]
OVAL += [148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]

NOSE_BASE, MOUTH_MIDDLE = 2.2, 4.27  # y
CORNER_LIFT = 0.16  # raises the corners of the mouth at rest: friendlier than the canonical mesh


@dataclass(frozen=True)
class Mesh:
    """vertices: (468, 3) float32. triangles: (898, 3) int32. seam: (n, 2), the line between the closed lips."""

    vertices: Points
    triangles: npt.NDArray[np.int32]
    seam: Points

    @property
    def corner(self) -> float:
        """The right corner of the mouth: its x."""
        return float(self.seam[-1, 0])

    def seam_at(self, x: Plane) -> Plane:
        """Return the height y of the line between the lips, same shape as `x`; constant beyond the corners."""
        return np.interp(x, self.seam[:, 0], self.seam[:, 1]).astype(np.float32)


def as_float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


@cache
def canonical_mesh() -> tuple[Points, npt.NDArray[np.int32]]:
    """Load MediaPipe's canonical face (Apache-2.0; the file contains its source), with y turned down."""
    with np.load(MESH_FILE) as stored:
        vertices = stored["vertices"] * as_float32([1, -1, 1])
        triangles = stored["triangles"].astype(np.int32)
    return vertices, triangles


def gaussian(value: npt.NDArray[np.floating], middle: float, width: float) -> Plane:
    """Return exp(-((value - middle) / width)^2)."""
    return as_float32(np.exp(-(((value - middle) / width) ** 2)))


def smoothstep(value: npt.NDArray[np.floating], low: float, high: float) -> Plane:
    """Return 0 below `low`, 1 above `high`, and a smooth transition (3t^2 - 2t^3) in between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return as_float32(t * t * (3 - 2 * t))


def shape_mesh(appearance: Appearance) -> Mesh:
    """Return one person's face with closed lips."""
    vertices, triangles = canonical_mesh()
    vertices = close_lips(vertices)
    x, y = vertices[:, 0].copy(), vertices[:, 1].copy()
    near_mouth = gaussian(y, MOUTH_MIDDLE, 1.6) * (1 - smoothstep(np.abs(x), 2.6, 5.0))
    near_nose = gaussian(y, 1.4, 1.3) * (1 - smoothstep(np.abs(x), 1.6, 3.2))
    jaw = smoothstep(y, 0.0, 7.0)
    x_factor = appearance.face_width * (1 + (appearance.jaw_width - 1) * jaw)
    x_factor *= 1 + (appearance.mouth_width - 1) * near_mouth
    x_factor *= 1 + (appearance.nose_width - 1) * near_nose
    y_moved = y + appearance.chin_length * smoothstep(y, 5.4, 8.5)
    y_moved += (appearance.lip_fullness - 1) * (y - MOUTH_MIDDLE) * near_mouth
    y_moved += appearance.nose_length * gaussian(y, 1.6, 1.4) * (1 - smoothstep(np.abs(x), 1.4, 3.0))
    y_moved -= appearance.brow_height * gaussian(y, -4.7, 1.0)
    y_moved -= CORNER_LIFT * (np.abs(x) / 2.4) ** 2 * near_mouth * (np.abs(x) < 5)
    vertices[:, 0], vertices[:, 1] = x * x_factor, y_moved
    scale_eyes(vertices, appearance.eye_size)
    return Mesh(vertices, triangles, seam_of(vertices))


def close_lips(vertices: Points) -> Points:
    """Close the lips: in the canonical mesh the inner edges are 0.5 apart."""
    closed = vertices.copy()
    middle = (vertices[INNER_UPPER_LIP] + vertices[INNER_LOWER_LIP]) / 2
    closed[INNER_UPPER_LIP] = middle
    closed[INNER_LOWER_LIP] = middle
    return closed


def scale_eyes(vertices: Points, factor: float) -> None:
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        ring = sorted({*upper, *lower})
        middle = vertices[ring].mean(axis=0)
        vertices[ring, :2] = middle[:2] + (vertices[ring, :2] - middle[:2]) * as_float32([1 + (factor - 1) / 2, factor])


def seam_of(vertices: Points) -> Points:
    inner = vertices[INNER_UPPER_LIP, :2]
    ends = vertices[[61, 291], :2]
    return smooth_line(np.vstack([ends[:1], inner, ends[1:]]), 61)


def smooth_line(points: npt.NDArray[np.floating], n: int, closed: bool = False) -> Points:
    """Return `n` points on a Catmull-Rom spline through `points` (m, 2)."""
    m = len(points)
    at = np.linspace(0, m if closed else m - 1, n, endpoint=not closed)
    first = np.minimum(at.astype(int), m - 1 if closed else m - 2)
    t = (at - first)[:, None]
    index = first[:, None] + np.arange(-1, 3)
    index = index % m if closed else np.clip(index, 0, m - 1)
    a, b, c, d = (points[index[:, i]] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return as_float32(curve)


def to_pixels(points: npt.NDArray[np.floating], steps: float) -> Points:
    """Convert units to pixels of a plane with `steps` pixels per unit.

    The centre of pixel (0, 0) is half a step inside the plane's corner.
    """
    return as_float32(points[..., :2] * np.float32(steps) - as_float32([LEFT * steps + 0.5, TOP * steps + 0.5]))


def plane_axes(steps: float) -> tuple[Plane, Plane]:
    """Return the axes x (1, columns) and y (rows, 1) of the pixel centres, in units."""
    columns, rows = round((RIGHT - LEFT) * steps), round((BOTTOM - TOP) * steps)
    x = LEFT + (np.arange(columns, dtype=np.float32) + 0.5) / steps
    y = TOP + (np.arange(rows, dtype=np.float32) + 0.5) / steps
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def depth_plane(mesh: Mesh) -> Plane:
    """Return the depth z at every point of the plane, DEPTH_STEPS samples per unit.

    Beyond the mesh the surface curves backwards.
    """
    x, y = plane_axes(DEPTH_STEPS)
    depth, covered = rasterise_depth(mesh, (y.shape[0], x.shape[1]))
    distance, labels = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(int(labels.max()) + 1, np.float32)
    of_label[labels[covered]] = depth[covered]
    away = distance / DEPTH_STEPS
    falls = 0.3 * away**1.5 + 0.9 * away * smoothstep(y, 2.0, 6.0)  # steeper at the jaw than into the hair
    depth = np.maximum(of_label[labels] - falls, MIN_DEPTH).astype(np.float32)
    fine, smooth = (cv2.GaussianBlur(depth, (0, 0), width * DEPTH_STEPS) for width in (0.22, 1.1))
    features = cv2.distanceTransform(covered.astype(np.uint8), cv2.DIST_L2, 5) / DEPTH_STEPS
    return as_float32(smooth + (fine - smooth) * smoothstep(features, 0.4, 2.0))  # the mesh is coarse along its edge


def rasterise_depth(mesh: Mesh, shape: tuple[int, int]) -> tuple[Plane, npt.NDArray[np.bool_]]:
    depth = np.full(shape, np.float32(MIN_DEPTH))
    covered = np.zeros(shape, bool)
    corners = to_pixels(mesh.vertices, DEPTH_STEPS)
    order = np.argsort(mesh.vertices[mesh.triangles, 2].mean(axis=1))
    for triangle in mesh.triangles[order]:
        fill_triangle(depth, covered, corners[triangle], mesh.vertices[triangle, 2])
    return depth, covered


def fill_triangle(depth: Plane, covered: npt.NDArray[np.bool_], corners: Points, z: Points) -> None:
    left, top = np.floor(corners.min(axis=0)).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
    (ax, ay), (bx, by), (cx, cy) = corners
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if abs(area) < 1e-9:  # degenerate: inside the closed lips
        return
    px, py = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    w1 = ((px - ax) * (cy - ay) - (cx - ax) * (py - ay)) / area
    w2 = ((bx - ax) * (py - ay) - (px - ax) * (by - ay)) / area
    inside = (w1 >= -1e-4) & (w2 >= -1e-4) & (w1 + w2 <= 1.0001)
    value = z[0] + w1 * (z[1] - z[0]) + w2 * (z[2] - z[0])
    depth[top:bottom, left:right][inside] = value[inside]
    covered[top:bottom, left:right] |= inside


def sample_plane(plane: Plane, at: Points, steps: float) -> Plane:
    """Sample a plane at points (rows, columns, 2) in units."""
    return sample_image(plane, to_pixels(at, steps), cv2.BORDER_REPLICATE).astype(np.float32, copy=False)


def sample_image(image: npt.NDArray[Any], positions: Points, border: int = cv2.BORDER_CONSTANT) -> npt.NDArray[Any]:
    """Sample an image at (rows, columns, 2) float32 x and y in pixels, bilinear."""
    return cv2.remap(image, positions, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload,no-any-return]
