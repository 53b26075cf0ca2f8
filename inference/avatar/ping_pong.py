"""Which frame of a package lies underneath: back and forth, so that the head never jumps."""

from __future__ import annotations

from dataclasses import dataclass


def index_of_step(step: int, n_frames: int) -> int:
    """The frame under step 0, 1, 2, ...: 1, 2, ... to the last one and back to 0; each end once.

    Source: SyncTalk_2D inference_328.py, whose first output is frame 1. Deliberately different: one frame alone is 0.
    """
    if n_frames == 1:
        return 0
    place = (step + 1) % (2 * n_frames - 2)
    return place if place < n_frames else 2 * n_frames - 2 - place


@dataclass(frozen=True)
class PingPongPosition:
    """A frame of the package and the way on from it: 1 or -1."""

    frame: int = 0
    direction: int = 1

    def step(self, n_frames: int) -> PingPongPosition:
        """The next over all frames, as `index_of_step` has it."""
        return self.step_within(0, n_frames - 1)

    def step_within(self, first: int, last: int) -> PingPongPosition:
        """The next towards that stretch, then back and forth in it."""
        direction = self.direction
        if self.frame >= last:
            direction = -1
        if self.frame <= first:
            direction = 1
        if first == last == self.frame:
            return PingPongPosition(self.frame, direction)
        return PingPongPosition(self.frame + direction, direction)
