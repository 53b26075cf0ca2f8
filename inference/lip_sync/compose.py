"""From shots and a voice to frames that speak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.faces.paste import blend_lower_face, overwrite_face
from inference.lip_sync.options import Paste, Reference
from inference.lip_sync.preprocess import Shot, cut_face, stack_faces
from inference.lip_sync.reference import SteadyReference
from inference.media import Frame

Mel = npt.NDArray[np.float32]
# Takes (B, 1, 80, 16) mels and (B, 6, 96, 96) faces, gives (B, 3, 96, 96) of 0..1.
Speak = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
PASTES: dict[Paste, Callable[[Frame, Frame, FaceBox], Frame]] = {
    "blend": blend_lower_face,
    "overwrite": overwrite_face,
}


@dataclass(frozen=True)
class Batch:
    """Shots in a row, and what each network made of the faces among them.

    mels: one (80, 16) for each shot. patches: for each network, (96, 96, 3) uint8 BGR for each face, or larger.
    """

    shots: tuple[Shot, ...]
    mels: tuple[Mel, ...]
    patches: tuple[Sequence[Frame], ...] = ()


def in_batches(shots: Iterable[Shot], mels: Iterable[Mel], size: int) -> Iterator[Batch]:
    pairs = zip(shots, mels, strict=False)  # the shots end where the mels do
    while pair := list(islice(pairs, size)):
        yield Batch(tuple(shot for shot, _ in pair), tuple(mel for _, mel in pair))


def speak(batches: Iterable[Batch], networks: Sequence[Speak], reference: Reference = "each") -> Iterator[Batch]:
    """The batches with the faces that each network gives; frames without a face cost nothing."""
    steady = SteadyReference()
    for batch in batches:
        heard = [(shot, mel) for shot, mel in zip(batch.shots, batch.mels, strict=True) if shot.box is not None]
        if not heard:
            yield Batch(batch.shots, batch.mels, tuple([] for _ in networks))
            continue
        faces = stack_faces([cut_face(shot.frame, shot.box) for shot, _ in heard if shot.box is not None])
        faces = steady.show(faces) if reference == "steady" else faces
        mels = np.stack([mel for _, mel in heard])[:, None]
        yield Batch(batch.shots, batch.mels, tuple(list(to_patches(network(mels, faces))) for network in networks))


def to_patches(faces: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(B, 3, 96, 96) of 0..1 to (B, 96, 96, 3) uint8, truncated as upstream does. Not a number is black."""
    levels = np.clip(np.nan_to_num(faces) * 255, 0, 255)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1).astype(np.uint8))


def paste_faces(batches: Iterable[Batch], paste: Paste) -> Iterator[tuple[Frame, ...]]:
    """For each shot its frame once per network; a frame without a face as it came."""
    put = PASTES[paste]
    for batch in batches:
        n_faces = 0
        for shot in batch.shots:
            if shot.box is None:
                yield tuple(shot.frame for _ in batch.patches)
                continue
            box, place = shot.box, n_faces
            yield tuple(put(shot.frame, patches[place], box) for patches in batch.patches)
            n_faces += 1
