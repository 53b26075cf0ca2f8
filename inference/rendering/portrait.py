"""An idle synthetic person: the background video of the starter avatar."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from inference.rendering.appearance import Appearance, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import NOISE_STREAM, Frame, Landmarks, RenderedFrame
from inference.rendering.scene import Scene

# The bundled avatar: its network was trained on this person only.
STARTER_SEED = 21
STARTER_SIDE = 512  # px; the face is about 200 px wide from jaw to jaw
STARTER_FRAMES = 250  # 10 s
FPS = 25  # frames per second


class Portrait:
    """One person in one room. The same seed, size and time give the same frame."""

    def __init__(self, seed: int = STARTER_SEED, width: int = STARTER_SIDE, height: int = STARTER_SIDE) -> None:
        self._seed = seed
        self._appearance = Appearance.from_seed(seed)
        self._scene = Scene([self._appearance], width, height)

    def draw(self, at_s: float, mouth: MouthShape, noise_index: int) -> tuple[Frame, Landmarks]:
        """Draw the person at a time with a mouth shape.

        noise_index: selects the camera noise. Frames of one time and noise index differ only by the mouth shape.
        Returns: the frame, (H, W, 3) uint8 BGR, and its landmarks, (68, 2) float32 px.
        """
        (pose,) = head_motion(self._appearance, self._seed, np.array([at_s]))
        noise = np.random.default_rng((self._seed, NOISE_STREAM, noise_index))
        frame, (landmarks,) = self._scene.draw([pose], [mouth], noise)
        return frame, landmarks

    def idle_mattes(self, n_frames: int = STARTER_FRAMES, fps: int = FPS) -> Iterator[tuple[RenderedFrame, Frame]]:
        """Yield the frames of `idle_frames`, each with its matte: (H, W) uint8, 255 where only the person is seen."""
        for i in range(n_frames):
            at = Fraction(i, fps)
            (pose,) = head_motion(self._appearance, self._seed, np.array([float(at)]))
            noise = np.random.default_rng((self._seed, NOISE_STREAM, i))
            frame, (landmarks,), matte = self._scene.draw_with_matte([pose], [MouthShape()], noise)
            yield RenderedFrame(at, frame, (landmarks,), MouthShape()), matte

    def idle_frames(self, n_frames: int = STARTER_FRAMES, fps: int = FPS) -> Iterator[RenderedFrame]:
        """Yield frames with the mouth at rest."""
        for i in range(n_frames):
            at = Fraction(i, fps)
            frame, landmarks = self.draw(float(at), MouthShape(), i)
            yield RenderedFrame(at, frame, (landmarks,), MouthShape())
