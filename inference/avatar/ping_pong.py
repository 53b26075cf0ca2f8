"""The order of background frames: back and forth, so that the head never jumps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PingPongPosition:
    """A frame of the package and the direction to the next one: 1 or -1."""

    frame: int = 0
    direction: int = 1

    def step(self, n_frames: int) -> PingPongPosition:
        """Return the next position over all frames: 1, 2, ... to the last one and back to 0, each end once.

        Source: SyncTalk_2D inference_328.py, whose first output is frame 1. Deliberately different: a single frame is
        0.
        """
        return self.step_within(0, n_frames - 1)

    def step_within(self, first: int, last: int) -> PingPongPosition:
        """Return the next position towards a range of frames, then back and forth in it."""
        direction = self.direction
        if self.frame >= last:
            direction = -1
        if self.frame <= first:
            direction = 1
        if first == last == self.frame:
            return PingPongPosition(self.frame, direction)
        return PingPongPosition(self.frame + direction, direction)
