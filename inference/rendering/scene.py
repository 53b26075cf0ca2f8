"""Several people side by side in one room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.rendering.appearance import Appearance, HeadPose
from inference.rendering.background import paint_background
from inference.rendering.head import Camera, Person
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import Frame, Landmarks


class Scene:
    """People in seating order, left to right. Room and camera are those of the first person."""

    def __init__(self, appearances: Sequence[Appearance], width: int, height: int) -> None:
        each = width / len(appearances)
        self._people = [
            Person(appearance, width, height, (i + 0.5) * each, person_width=each)
            for i, appearance in enumerate(appearances)
        ]
        self._room = paint_background(appearances[0], width, height)
        self._camera = Camera(appearances[0], width, height)

    def draw(
        self, poses: Sequence[HeadPose], mouths: Sequence[MouthShape], noise: np.random.Generator
    ) -> tuple[Frame, list[Landmarks]]:
        """Draw one frame, (H, W, 3) uint8 BGR, and return each person's landmarks in it, (68, 2) float32 px.

        A pixel's centre has whole-number coordinates. noise: draws the camera noise.
        """
        frame = self._room.copy()
        landmarks = [
            person.draw_onto(frame, pose, mouth)
            for person, pose, mouth in zip(self._people, poses, mouths, strict=True)
        ]
        return self._camera.capture(frame, noise), landmarks

    def draw_with_matte(
        self, poses: Sequence[HeadPose], mouths: Sequence[MouthShape], noise: np.random.Generator
    ) -> tuple[Frame, list[Landmarks], Frame]:
        """Draw the frame of `draw` and its matte, (H, W) uint8: how much of each pixel is people, 255 if all of it."""
        frame = np.dstack([self._room, np.zeros_like(self._room[..., 0])])
        landmarks = [
            person.draw_onto(frame, pose, mouth)
            for person, pose, mouth in zip(self._people, poses, mouths, strict=True)
        ]
        drawn = np.ascontiguousarray(frame[..., :3])
        return self._camera.capture(drawn, noise), landmarks, self._camera.blur(np.ascontiguousarray(frame[..., 3]))

    def draw_empty(self, noise: np.random.Generator) -> Frame:
        """Draw the room without people: (H, W, 3) uint8 BGR."""
        return self._camera.capture(self._room.copy(), noise)
