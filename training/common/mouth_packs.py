"""Packs of aligned mouth crops, with their lip points, words and word times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.common.arrays import Bytes, Floats, Integers
from training.common.packs import find_packs

CROP_HEIGHT, CROP_WIDTH = 64, 128
N_FRAMES = 75  # 3 s at 25 fps
BETWEEN_WORDS = -1  # word index of a frame in a pause


@dataclass(frozen=True)
class MouthClip:
    """One clip, its crops still encoded as JPEG."""

    name: str
    person: str  # clips of one person may be concatenated
    words: tuple[str, ...]
    strip_jpeg: Bytes  # crops stacked from top to bottom
    lips: Floats  # (75, 20, 2), x / frame width and y / frame height
    word_indices: Integers  # (75,) the word spoken in each frame, or BETWEEN_WORDS
    word_progress: Floats  # (75,) the part of the word that is over, 0..1

    @property
    def text(self) -> str:
        return " ".join(self.words)


def load_packs(folder: Path) -> list[MouthClip]:
    """Return the clips of all packs (.npz) in a folder, sorted by name. Raises: FileNotFoundError if it has none."""
    clips = (clip for path in find_packs(folder, "mouth crops") for clip in load_pack(path))
    return sorted(clips, key=lambda clip: clip.name)


def load_pack(path: Path) -> list[MouthClip]:
    """Return the clips of one pack. If it does not list people, its name gives the speaker: s1_00 is of s1."""
    with np.load(path, allow_pickle=False) as pack:
        arrays = {name: pack[name] for name in pack.files}
    arrays.setdefault("people", np.full(len(arrays["clips"]), path.stem.partition("_")[0]))
    return [make_clip(arrays, i) for i in range(len(arrays["clips"]))]


def make_clip(arrays: Mapping[str, npt.NDArray[np.generic]], i: int) -> MouthClip:
    start, end = (int(offset) for offset in arrays["offsets"][i : i + 2])
    word_indices, word_progress = place_words(arrays["word_start"][i], arrays["word_end"][i])
    return MouthClip(
        name=str(arrays["clips"][i]),
        person=str(arrays["people"][i]),
        words=tuple(str(arrays["transcripts"][i]).split()),
        strip_jpeg=arrays["jpeg"][start:end].astype(np.uint8),
        lips=arrays["coords"][i].astype(np.float32),
        word_indices=word_indices,
        word_progress=word_progress,
    )


def place_words(starts: npt.NDArray[np.generic], ends: npt.NDArray[np.generic]) -> tuple[Integers, Floats]:
    """Return the word of each frame, and the part of it that is over: (75,) each.

    starts, ends: of each word, in frames. A frame belongs to the word spoken at its middle; between words the index is
    BETWEEN_WORDS.
    """
    word_indices = np.full(N_FRAMES, BETWEEN_WORDS, np.int64)
    word_progress = np.zeros(N_FRAMES, np.float32)
    middles = np.arange(N_FRAMES, dtype=np.float32) + 0.5
    for word, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        inside = (middles >= start) & (middles < end)
        word_indices[inside] = word
        word_progress[inside] = (middles[inside] - start) / (end - start)
    return word_indices, word_progress


def decode_crops(clip: MouthClip) -> Bytes:
    """Decode the crops of a clip: (75, 64, 128, 3) uint8 BGR. A short clip repeats its last one.

    Raises: ValueError if the JPEG is damaged.
    """
    strip = cv2.imdecode(clip.strip_jpeg, cv2.IMREAD_COLOR)
    if strip is None:
        raise ValueError(f"{clip.name}: its JPEG strip cannot be decoded")
    frames = strip.astype(np.uint8, copy=False).reshape(-1, CROP_HEIGHT, CROP_WIDTH, 3)
    missing = N_FRAMES - len(frames)
    return np.concatenate([frames, frames[-1:].repeat(missing, 0)]) if missing > 0 else frames[:N_FRAMES]
