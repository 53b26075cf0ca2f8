"""The face that a network is shown whole, beside the one that it is to make speak."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.lip_sync.preprocess import MASKED_FROM

Faces = npt.NDArray[np.float32]  # (B, 6, 96, 96), as `stack_faces` makes them

FAR = 0.07  # of 0..1, the mean over an upper half: a face is another one, or seen otherwise, from here on


class SteadyReference:
    """One face for as long as those that follow look like it.

    Shown each frame whole, a network follows the mouth that it is to replace. One that stays tells it what lips, teeth
    and chin look like, as another frame of the clip did in training, and nothing of when they move. A face that
    differs in its upper half takes its place: after a cut, or where a head has turned.
    """

    def __init__(self) -> None:
        self._kept: Faces | None = None

    def show(self, faces: Faces) -> Faces:
        """The faces of a film, in their order, with the second of each the one that stays."""
        shown = faces.copy()
        for face in shown:
            whole = face[3:]
            if self._kept is None or difference(whole, self._kept) > FAR:
                self._kept = whole.copy()
            face[3:] = self._kept
        return shown


def difference(one: Faces, other: Faces) -> float:
    """Of two faces (3, 96, 96) in their upper halves."""
    return float(np.abs(one[:, :MASKED_FROM] - other[:, :MASKED_FROM]).mean())
