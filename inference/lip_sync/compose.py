"""From frames with face boxes and mel windows to frames with generated mouths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.faces.paste import (
    Mask,
    blend_lower_face,
    lower_face_mask,
    overwrite_face,
    resize_patch,
    whole_face_mask,
)
from inference.faces.turned_box import paste_turned
from inference.lip_sync.options import PasteMode, ReferenceMode
from inference.lip_sync.preprocess import FaceFrame, cut_face, stack_faces
from inference.lip_sync.reference import SteadyReference
from inference.media import Frame

Mel = npt.NDArray[np.float32]
# Takes (B, 1, 80, 16) mels and (B, 6, 96, 96) faces, returns (B, 3, 96, 96) in 0..1.
FaceGenerator = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
PASTE_FUNCTIONS: dict[PasteMode, Callable[[Frame, Frame, FaceBox], Frame]] = {
    "blend": blend_lower_face,
    "overwrite": overwrite_face,
}
# The weight of a turned patch, (height, width): the same parts of the face are replaced.
TURNED_WEIGHTS: dict[PasteMode, Callable[[int, int], Mask]] = {"blend": lower_face_mask, "overwrite": whole_face_mask}


@dataclass(frozen=True)
class FaceFrameBatch:
    """Consecutive frames, and the faces that each network generated for them.

    mels: one (80, 16) for each frame. patches: for each network, (96, 96, 3) uint8 BGR for each face, or larger.
    """

    face_frames: tuple[FaceFrame, ...]
    mels: tuple[Mel, ...]
    patches: tuple[Sequence[Frame], ...] = ()


def batch_frames(face_frames: Iterable[FaceFrame], mels: Iterable[Mel], size: int) -> Iterator[FaceFrameBatch]:
    """Yield batches of at most `size` frames, for as long as there are mels."""
    pairs = zip(face_frames, mels, strict=False)  # the frames may outlast the mels
    while batch := list(islice(pairs, size)):
        yield FaceFrameBatch(tuple(face_frame for face_frame, _ in batch), tuple(mel for _, mel in batch))


def generate_patches(
    batches: Iterable[FaceFrameBatch], networks: Sequence[FaceGenerator], reference: ReferenceMode = "each"
) -> Iterator[FaceFrameBatch]:
    """Yield the batches with the faces that each network generates; frames without a face cost nothing."""
    steady = SteadyReference()
    for batch in batches:
        with_face = [
            (face_frame, mel)
            for face_frame, mel in zip(batch.face_frames, batch.mels, strict=True)
            if face_frame.box is not None
        ]
        if not with_face:
            yield FaceFrameBatch(batch.face_frames, batch.mels, tuple([] for _ in networks))
            continue
        faces = stack_faces(
            [
                cut_face(face_frame.frame, face_frame.box, face_frame.angle_rad)
                for face_frame, _ in with_face
                if face_frame.box is not None
            ]
        )
        faces = steady.replace_references(faces) if reference == "steady" else faces
        mels = np.stack([mel for _, mel in with_face])[:, None]
        yield FaceFrameBatch(
            batch.face_frames, batch.mels, tuple(list(to_patches(network(mels, faces))) for network in networks)
        )


def to_patches(faces: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Convert (B, 3, 96, 96) in 0..1 to (B, 96, 96, 3) uint8, truncated as upstream does. NaN becomes black."""
    levels = np.clip(np.nan_to_num(faces) * 255, 0, 255)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1).astype(np.uint8))


def paste_faces(batches: Iterable[FaceFrameBatch], paste: PasteMode) -> Iterator[tuple[Frame, ...]]:
    """Yield each frame once per network, with the generated face pasted in; a frame without a face is unchanged."""
    for batch in batches:
        n_faces = 0
        for face_frame in batch.face_frames:
            if face_frame.box is None:
                yield tuple(face_frame.frame for _ in batch.patches)
                continue
            index = n_faces
            yield tuple(paste_face(face_frame, face_frame.box, patches[index], paste) for patches in batch.patches)
            n_faces += 1


def paste_face(face_frame: FaceFrame, box: FaceBox, patch: Frame, paste: PasteMode) -> Frame:
    """Return the frame with a generated face pasted into its box."""
    if face_frame.angle_rad == 0:
        return PASTE_FUNCTIONS[paste](face_frame.frame, patch, box)
    weight = TURNED_WEIGHTS[paste](int(box.height), int(box.width))
    return paste_turned(face_frame.frame, resize_patch(patch, box), weight, box, face_frame.angle_rad)
