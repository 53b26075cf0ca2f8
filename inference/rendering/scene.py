"""Several people side by side in one room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.rendering.appearance import HeadPose, Look
from inference.rendering.background import paint_backdrop
from inference.rendering.head import Camera, Person
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import Frame, Landmarks


class Scene:
    """People in the order they sit, left to right; room and camera are the first one's."""

    def __init__(self, looks: Sequence[Look], width: int, height: int) -> None:
        each = width / len(looks)
        self._people = [Person(look, width, height, (i + 0.5) * each, room_x=each) for i, look in enumerate(looks)]
        self._room = paint_backdrop(looks[0], width, height)
        self._camera = Camera(looks[0], width, height)

    def draw(
        self, poses: Sequence[HeadPose], mouths: Sequence[MouthShape], noise: np.random.Generator
    ) -> tuple[Frame, list[Landmarks]]:
        """One frame (H, W, 3) uint8 BGR, and each person's (68, 2) float32 landmarks in it."""
        frame = self._room.copy()
        landmarks = [
            person.draw_onto(frame, pose, mouth)
            for person, pose, mouth in zip(self._people, poses, mouths, strict=True)
        ]
        return self._camera.take(frame, noise), landmarks

    def draw_empty(self, noise: np.random.Generator) -> Frame:
        """The room with nobody in it: (H, W, 3) uint8 BGR."""
        return self._camera.take(self._room.copy(), noise)
