"""Counting of the frames with a face, and of those without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from inference.errors import NoFaceFound
from inference.faces import FaceChoice
from inference.lip_sync.preprocess import FaceFrame


class FaceCounter:
    """Counts frames with a face in the source, and in the output those without one, and those of faces passed on."""

    def __init__(self, name: str, choice: FaceChoice = "largest") -> None:
        self.n_without = self.n_passed_on = 0
        self._name, self._choice = name, choice
        self._n_frames = self._n_output = 0
        self._has_face = self._is_passed_on = False

    def count_source(self, located: Iterable[FaceFrame]) -> Iterator[FaceFrame]:
        """Count faces in the source. Raises: NoFaceFound at its end if no frame has one."""
        for face_frame in located:
            self._n_frames += 1
            self._has_face = self._has_face or face_frame.box is not None
            self._is_passed_on = self._is_passed_on or face_frame.is_passed_on
            yield face_frame
        self.check()

    def count_output(self, located: Iterable[FaceFrame]) -> Iterator[FaceFrame]:
        for face_frame in located:
            self._n_output += not face_frame.is_outside
            self.n_passed_on += face_frame.is_passed_on
            self.n_without += face_frame.box is None and not face_frame.is_passed_on and not face_frame.is_outside
            yield face_frame

    def check(self) -> None:
        if self._has_face:
            return
        found = "only faces in profile or unclear ones" if self._is_passed_on else "no face found"
        if self._choice != "largest":
            others = "only others, or unclear ones" if self._is_passed_on else "no face found"
            found = f"face {self._choice} was asked for, counted from 0; {others}"
        raise NoFaceFound(f"{self._name}: {found} in {self._n_frames} frames")

    def warnings(self) -> tuple[str, ...]:
        if not self.n_passed_on:
            return ()
        return (
            f"{self.n_passed_on} of {self._n_output} frames show a face in profile, an unclear or another one; "
            "they are unchanged",
        )
