"""The reference face: the unmasked face that a network gets beside the masked one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.lip_sync.preprocess import MASKED_FROM

Faces = npt.NDArray[np.float32]  # (B, 6, 96, 96), as `stack_faces` returns them

MAX_REFERENCE_DIFFERENCE = (
    0.07  # mean absolute difference of the upper halves, 0..1, from which a face counts as another face or view
)


class SteadyReference:
    """Keeps one reference face for as long as the faces that follow resemble it.

    If each frame is its own reference, the network copies the mouth that it should replace. A fixed reference shows
    what lips, teeth and chin look like, as another frame of the clip did in training, but not when they move. A face
    that differs in its upper half becomes the new reference: after a cut, or if the head has turned.
    """

    def __init__(self) -> None:
        self._reference: Faces | None = None

    def replace_references(self, faces: Faces) -> Faces:
        """Return a copy of the faces, in order, with the reference face in channels 3..5."""
        replaced = faces.copy()
        for face in replaced:
            unmasked = face[3:]
            if self._reference is None or upper_difference(unmasked, self._reference) > MAX_REFERENCE_DIFFERENCE:
                self._reference = unmasked.copy()
            face[3:] = self._reference
        return replaced


def upper_difference(one: Faces, other: Faces) -> float:
    """Return the mean absolute difference of the upper halves of two faces (3, 96, 96)."""
    return float(np.abs(one[:, :MASKED_FROM] - other[:, :MASKED_FROM]).mean())
