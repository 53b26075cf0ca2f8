"""A talking head: one person in front of a camera, rendered frame by frame.

The head is a surface of known depth (MediaPipe's canonical face mesh, varied, with hair and ears behind it) with a
painted, shaded texture. For a coarse grid of pixels, each frame finds the point of the surface that is visible there,
and samples the texture in between, so edges move by fractions of a pixel.
Only appearance, pose, mouth shape and noise reach the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces.landmarks import MESH_TO_68
from inference.rendering.appearance import Appearance, HeadPose
from inference.rendering.body import paint_body
from inference.rendering.deformation import MouthDeformation, basis_fields, deform_points
from inference.rendering.geometry import (
    DEPTH_STEPS,
    Points,
    as_float32,
    depth_plane,
    sample_image,
    sample_plane,
    shape_mesh,
    smoothstep,
    to_pixels,
)
from inference.rendering.mouth_interior import Eye, MouthInterior
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import Frame, Landmarks
from inference.rendering.texture import TextureMap, paint_back_hair, paint_head

FRAME_HEIGHT = 288  # px, reference height for the pixel values of poses and blur
MIN_PERSON_WIDTH = 230  # px at FRAME_HEIGHT; in a narrower frame the head is smaller
PIXELS_PER_UNIT = 7.7  # at FRAME_HEIGHT: a face about 115 px wide
EYE_LEVEL = 0.52  # height of the plane's origin, as a share of the frame's height
CAMERA_DISTANCE = 90.0  # units from the plane
PIVOT = as_float32([0.0, 5.0, -3.0])  # point that the head rotates about
INVERSION_STEPS = 4  # of the fixed-point iteration that inverts the pose
CELL_SIZE = 0.36  # units between grid points
HEAD_EXTENT = (11.5, 15.5, 13.5)  # units that a head may cover: to the sides, up, down
BODY_FOLLOW_RATIO = 0.7  # shift of the body divided by the shift of the head
INNER_LIPS = ((61, 67), (62, 66), (63, 65))  # landmarks: upper, lower
UPPER_LID_POINTS = ((37, 38), (43, 44))


class Camera:
    """Camera blur and noise. The noise image is made once and applied at a random offset."""

    SPARE = 64  # px by which the noise image is larger than the frame

    def __init__(self, appearance: Appearance, width: int, height: int) -> None:
        self._sigma = appearance.blur * math.sqrt(height / FRAME_HEIGHT)
        rng = np.random.default_rng([appearance.seed, 5])
        shape = (height + self.SPARE, width + self.SPARE)
        grey = rng.standard_normal((*shape, 1), np.float32)
        colour = rng.standard_normal((*shape, 3), np.float32)
        self._noise = np.round(appearance.noise_sigma * (0.8 * grey + 0.6 * colour)).astype(np.int16)

    def blur(self, image: Frame) -> Frame:
        """Return a frame, or one channel, with blur."""
        if self._sigma <= 0:
            return image
        return cv2.GaussianBlur(image, (0, 0), self._sigma).astype(np.uint8, copy=False)

    def capture(self, frame: Frame, noise: np.random.Generator) -> Frame:
        """Return the frame with blur and noise. noise: draws the offset of the noise image."""
        height, width = frame.shape[:2]
        top, left = noise.integers(self.SPARE, size=2)
        frame = self.blur(frame)
        grain = self._noise[top : top + height, left : left + width]
        return cv2.add(frame, grain, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


class Grid:
    """A coarse grid over a box of the frame. Values at its points are interpolated for every pixel."""

    def __init__(self, left: int, top: int, columns: int, rows: int, cell: int) -> None:
        self.left, self.top, self.columns, self.rows, self.cell = left, top, columns, rows, cell

    def points(self) -> Points:
        """Return the pixel coordinates of the cell centres, with a border of one cell.

        Returns: (rows + 2, columns + 2, 2) float32.
        """
        x = self.left + (np.arange(-1, self.columns + 1, dtype=np.float32) + 0.5) * self.cell - 0.5
        y = self.top + (np.arange(-1, self.rows + 1, dtype=np.float32) + 0.5) * self.cell - 0.5
        return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)

    def fine(self, coarse: Points, patch: Patch) -> Points:
        """Interpolate grid values for each pixel of a patch."""
        part = coarse[patch.top : patch.bottom + 2, patch.left : patch.right + 2]
        size = (part.shape[1] * self.cell, part.shape[0] * self.cell)
        # Linear: OpenCV's cubic interpolation turns even a constant slope into steps of a quarter of a pixel.
        whole = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
        return whole[self.cell : -self.cell, self.cell : -self.cell].astype(np.float32, copy=False)

    def patch_of(self, mask: npt.NDArray[np.bool_]) -> Patch | None:
        """Return the cells around those that `mask` (rows + 2, columns + 2) marks, or None if there are none."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        top, bottom = max(int(rows[0]) - 2, 0), min(int(rows[-1]) + 1, self.rows)
        left, right = max(int(columns[0]) - 2, 0), min(int(columns[-1]) + 1, self.columns)
        return Patch(left, top, right, bottom) if right > left and bottom > top else None

    def pixels(self, patch: Patch) -> tuple[slice, slice]:
        """Return the rows and columns of a patch in the box."""
        c = self.cell
        return slice(patch.top * c, patch.bottom * c), slice(patch.left * c, patch.right * c)


@dataclass(frozen=True)
class Patch:
    """Cells of a grid; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


class Person:
    """One person's texture layers and their position in the frame."""

    def __init__(
        self, appearance: Appearance, width: int, height: int, centre_x: float, person_width: float | None = None
    ) -> None:
        """Paint the layers.

        centre_x: px in the frame, the middle of the head. person_width: px of the frame's width for this person.
        """
        self._size = (width, height)
        self._unit = min(height / FRAME_HEIGHT, (person_width or width) / MIN_PERSON_WIDTH)  # frame px per px of a pose
        self._scale = PIXELS_PER_UNIT * self._unit / appearance.distance
        self._centre = as_float32([centre_x - 0.5, EYE_LEVEL * height - 0.5])
        self._steps = float(np.clip(1.4 * self._scale, 6, 32))
        self._mesh = shape_mesh(appearance)
        self._depth = depth_plane(self._mesh)
        self._basis_fields = basis_fields(self._mesh)
        self._head = paint_head(self._mesh, self._depth, appearance, self._steps)
        self._back_hair = paint_back_hair(self._mesh, appearance, self._steps)
        self._mouth_interior = MouthInterior(self._mesh, appearance)
        self._eyes = [Eye.from_mesh(self._mesh, appearance, side) for side in (0, 1)]
        self._margin = math.ceil(0.08 * height)
        self._body_top = max(0, int(self._centre[1] + 3 * self._scale) - self._margin)
        self._body = self._paint_body(appearance)
        self._rest = self._mesh.vertices[MESH_TO_68, :2]
        self._is_lower = self._rest[:, 1] > self._mesh.seam_at(self._rest[:, 0]) + 0.05
        self._is_lower[[lower for _, lower in INNER_LIPS]] = True

    def draw_onto(self, frame: Frame, pose: HeadPose, mouth: MouthShape) -> Landmarks:
        """Draw the person over the frame in place. Returns: landmarks, (68, 2) float32 px."""
        deformation = MouthDeformation.from_shape(self._basis_fields, mouth, pose.brow)
        grid = self._grid(pose)
        at = self._plane_at(grid.points(), pose)
        everything = Patch(0, 0, grid.columns, grid.rows)
        box = frame[grid.top : grid.top + grid.rows * grid.cell, grid.left : grid.left + grid.columns * grid.cell]
        room = (slice(0, box.shape[0]), slice(0, box.shape[1]))
        if self._back_hair is not None:
            hair = self._sample(self._back_hair, grid, at, everything)
            composite(box, hair[room])
        self._draw_body(frame, pose)
        composite(box, self._draw_head(grid, at, deformation, mouth, pose)[room])
        return self._landmarks(deformation, pose)

    def _paint_body(self, appearance: Appearance) -> TextureMap:
        margin, (width, height) = self._margin, self._size
        size = (width + 2 * margin, height - self._body_top + 2 * margin)
        origin = (float(self._centre[0]) + margin, float(self._centre[1]) - self._body_top + margin)
        return paint_body(self._mesh, appearance, size, origin, self._scale)

    def _draw_body(self, frame: Frame, pose: HeadPose) -> None:
        width, height = self._size
        x, y = pose.x * self._unit * BODY_FOLLOW_RATIO, pose.y * self._unit * BODY_FOLLOW_RATIO
        shift = as_float32([[1, 0, x - self._margin], [0, 1, y - self._margin]])
        part = frame[self._body_top :]
        composite(
            part, cv2.warpAffine(self._body, shift, (width, height - self._body_top)).astype(np.uint8, copy=False)
        )

    def _grid(self, pose: HeadPose) -> Grid:
        """Return a grid over the part of the head that is inside the frame."""
        width, height = self._size
        cell = max(1, round(CELL_SIZE * self._scale))
        x, y = self._centre + as_float32([pose.x, pose.y]) * self._unit
        side, up, down = (reach * self._scale for reach in HEAD_EXTENT)
        left, top = max(0, int(x - side)), max(0, int(y - up))
        columns = max(1, math.ceil((min(width, x + side) - left) / cell))
        rows = max(1, math.ceil((min(height, y + down) - top) / cell))
        return Grid(left, top, columns, rows, cell)

    def _plane_at(self, pixels: Points, pose: HeadPose) -> Points:
        """Return the points of the face's plane (with the mouth as it is now) that are visible at pixels (..., 2)."""
        turn = rotation_matrix(pose)
        back = np.linalg.inv(turn[:2, :2]) / self._scale
        shift = self._centre + as_float32([pose.x, pose.y]) * self._unit
        seen_x, seen_y = pixels[..., 0] - shift[0], pixels[..., 1] - shift[1]
        pivot_x, pivot_y = PIVOT[:2] * self._scale
        (aside, aloft), pivot_z = turn[:2, 2] * self._scale, PIVOT[2]
        depth = near = np.zeros(pixels.shape[:-1], np.float32)
        at = np.empty_like(pixels)
        for _ in range(INVERSION_STEPS):
            closer, in_front = 1 - near / CAMERA_DISTANCE, depth - pivot_z
            flat_x = seen_x * closer - pivot_x - aside * in_front
            flat_y = seen_y * closer - pivot_y - aloft * in_front
            around_x = back[0, 0] * flat_x + back[0, 1] * flat_y
            around_y = back[1, 0] * flat_x + back[1, 1] * flat_y
            at[..., 0], at[..., 1] = around_x + PIVOT[0], around_y + PIVOT[1]
            depth = sample_plane(self._depth, at, DEPTH_STEPS)
            near = turn[2, 0] * around_x + turn[2, 1] * around_y + turn[2, 2] * (depth - pivot_z) + pivot_z
        return at

    def _pixels_of(self, points: Points, pose: HeadPose) -> Points:
        """Project points (n, 2) of the plane to pixels: the inverse of `_plane_at`."""
        depth = sample_plane(self._depth, points[:, None], DEPTH_STEPS)[:, 0]
        turned = (np.column_stack([points, depth]) - PIVOT) @ rotation_matrix(pose).T + PIVOT
        flat = turned[:, :2] / (1 - turned[:, 2:] / CAMERA_DISTANCE)
        shift = self._centre + as_float32([pose.x, pose.y]) * self._unit
        return (flat * self._scale + shift).astype(np.float32)

    def _sample(self, texture: TextureMap, grid: Grid, rest: Points, patch: Patch) -> TextureMap:
        positions = grid.fine(to_pixels(rest, self._steps), patch)
        return sample_image(texture, positions).astype(np.uint8, copy=False)

    def _draw_head(
        self, grid: Grid, at: Points, deformation: MouthDeformation, mouth: MouthShape, pose: HeadPose
    ) -> TextureMap:
        """Draw the head as a texture map over the grid's box."""
        above, below = deformation.rest_position(at, lower=False), deformation.rest_position(at, lower=True)
        head = self._sample(self._head, grid, above, Patch(0, 0, grid.columns, grid.rows))
        for eye in self._eyes:
            self._draw_eye(head, grid, above, eye, pose)
        over_above = above[..., 1] - self._mesh.seam_at(above[..., 0])  # below the seam, by the upper field
        over_below = below[..., 1] - self._mesh.seam_at(below[..., 0])
        near = np.abs(above[..., 0]) < self._mesh.corner + 0.5
        patch = grid.patch_of((over_above > -0.5) & near)
        if patch is None:
            return head
        patch = Patch(0, patch.top, grid.columns, grid.rows)
        chin = self._sample(self._head, grid, below, patch)
        gap = grid.patch_of((over_above > -0.4) & (over_below < 0.4) & near)
        if gap is not None:
            self._draw_gap(chin, patch, grid, gap, at, (over_above, over_below), deformation, mouth)
        upper = np.clip(0.5 - grid.fine(over_above, patch) * self._scale, 0, 1)
        rows = grid.pixels(patch)
        head[rows] = cv2.blendLinear(np.ascontiguousarray(head[rows]), chin, upper, 1 - upper)
        return head

    def _draw_gap(
        self,
        chin: TextureMap,
        whole: Patch,
        grid: Grid,
        gap: Patch,
        at: Points,
        over: tuple[Points, Points],
        deformation: MouthDeformation,
        mouth: MouthShape,
    ) -> None:
        """Draw the inside of the mouth, behind the lower lip."""
        soft = 0.5 / self._scale
        positions = grid.fine(at, gap)
        inside, teeth = self._mouth_interior.colours_at(positions, deformation, mouth, soft)
        upper = np.clip(0.5 - grid.fine(over[0], gap) * self._scale, 0, 1)
        lower = np.clip(0.5 + grid.fine(over[1], gap) * self._scale, 0, 1)
        left = np.maximum(1 - upper, 1e-3)  # part of the pixel below the upper lip; touching lips leave no gap
        lip = np.minimum(lower / left, 1) * (1 - mouth.tuck * teeth)
        corner = self._mesh.corner * (1 + deformation.spread)
        lip = np.maximum(lip, smoothstep(np.abs(positions[..., 0]), corner - 0.1, corner + 0.1))  # no gap beyond
        rows, columns = grid.pixels(gap)
        first = whole.top * grid.cell
        part = chin[rows.start - first : rows.stop - first, columns]
        part[..., :3] = np.round(inside * 255 * (1 - lip)[..., None] + part[..., :3] * lip[..., None])

    def _draw_eye(self, head: TextureMap, grid: Grid, rest: Points, eye: Eye, pose: HeadPose) -> None:
        away = np.abs(rest - eye.middle)
        patch = grid.patch_of((away[..., 0] < 1.8) & (away[..., 1] < 0.9))
        if patch is None:
            return
        rows = grid.pixels(patch)
        skin = head[rows][..., :3].astype(np.float32) / 255
        gaze = (-0.45 * math.sin(pose.yaw), 0.4 * math.sin(pose.pitch))  # towards the camera
        seen = eye.draw_over(skin, grid.fine(rest, patch), pose.blink, gaze, 0.5 / self._scale)
        head[rows][..., :3] = np.round(np.clip(seen, 0, 1) * 255)

    def _landmarks(self, deformation: MouthDeformation, pose: HeadPose) -> Landmarks:
        points = deform_points(deformation, self._blinked(pose.blink), self._is_lower)
        for upper, lower in INNER_LIPS:  # a lip tucked behind the other is not visible
            points[lower, 1] = max(points[lower, 1], points[upper, 1])
        return self._pixels_of(points, pose)

    def _blinked(self, blink: float) -> Points:
        points = self._rest.copy()
        for eye, indices in zip(self._eyes, UPPER_LID_POINTS, strict=True):
            for i in indices:
                above, below = eye.lids(points[i, :1], 0.0)
                points[i, 1] += float(below[0] - above[0]) * 0.94 * blink
        return points


def rotation_matrix(pose: HeadPose) -> npt.NDArray[np.float32]:
    """Return the rotation, (3, 3): x right, y down, z towards the viewer; yaw first, then pitch, then roll."""
    sy, cy = math.sin(pose.yaw), math.cos(pose.yaw)
    sp, cp = math.sin(pose.pitch), math.cos(pose.pitch)
    sr, cr = math.sin(pose.roll), math.cos(pose.roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return as_float32(about_z @ about_x @ about_y)


def composite(part: Frame, texture: TextureMap) -> None:
    """Composite a texture map over a part of the frame, in place. A fourth channel of the frame becomes its alpha."""
    has_alpha = part.shape[2] == 4
    left = cv2.cvtColor(cv2.bitwise_not(texture[..., 3]), cv2.COLOR_GRAY2BGR)
    if has_alpha:
        left = cv2.merge([*cv2.split(left), left[..., 0]])
    below = cv2.multiply(part, left, scale=1 / 255)
    part[:] = cv2.add(below, texture if has_alpha else cv2.cvtColor(texture, cv2.COLOR_BGRA2BGR))
