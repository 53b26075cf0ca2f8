"""Packs of aligned mouth crops with their lip points, words and word times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.lip_reading.decode import FIRST_SYMBOL, SYMBOLS

CROP_HEIGHT, CROP_WIDTH = 64, 128
N_FRAMES = 75  # 3 s at 25 fps
NO_TARGET = -100  # cross-entropy passes over these frames
BETWEEN_WORDS = -1

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MouthClip:
    """One clip, its pictures still packed as JPEG."""

    name: str
    person: str  # clips of one person may be joined
    words: tuple[str, ...]
    strip_jpeg: Bytes  # frames stacked from top to bottom
    lips: Floats  # (75, 20, 2), x / frame width and y / frame height
    slots: Integers  # (75,) which word each frame says, -1 for none
    within: Floats  # (75,) how far into its word each frame is, 0..1

    @property
    def text(self) -> str:
        return " ".join(self.words)


def load_packs(folder: Path) -> list[MouthClip]:
    """Every clip of every pack (.npz) in a folder, by name.

    Raises: FileNotFoundError where there is no pack.
    """
    packs = sorted(folder.glob("*.npz"))
    if not packs:
        raise FileNotFoundError(f"{folder}: no .npz packs of mouth crops")
    return sorted((clip for pack in packs for clip in load_pack(pack)), key=lambda clip: clip.name)


def load_pack(path: Path) -> list[MouthClip]:
    """Where a pack does not say who speaks, its name does: s1_00 is of s1."""
    with np.load(path, allow_pickle=False) as pack:
        arrays = {name: pack[name] for name in pack.files}
    arrays.setdefault("people", np.full(len(arrays["clips"]), path.stem.partition("_")[0]))
    return [clip_of(arrays, i) for i in range(len(arrays["clips"]))]


def clip_of(arrays: dict[str, npt.NDArray[np.generic]], i: int) -> MouthClip:
    start, end = (int(offset) for offset in arrays["offsets"][i : i + 2])
    slots, within = place_words(arrays["word_start"][i], arrays["word_end"][i])
    return MouthClip(
        name=str(arrays["clips"][i]),
        person=str(arrays["people"][i]),
        words=tuple(str(arrays["transcripts"][i]).split()),
        strip_jpeg=arrays["jpeg"][start:end].astype(np.uint8),
        lips=arrays["coords"][i].astype(np.float32),
        slots=slots,
        within=within,
    )


def place_words(starts: npt.NDArray[np.generic], ends: npt.NDArray[np.generic]) -> tuple[Integers, Floats]:
    """Word times in frames -> for each of 75 frames its word's number (-1: none) and the part of it gone by."""
    slots = np.full(N_FRAMES, BETWEEN_WORDS, np.int64)
    within = np.zeros(N_FRAMES, np.float32)
    middles = np.arange(N_FRAMES, dtype=np.float32) + 0.5
    for slot, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        inside = (middles >= start) & (middles < end)
        slots[inside] = slot
        within[inside] = (middles[inside] - start) / (end - start)
    return slots, within


def decode_strip(clip: MouthClip) -> Bytes:
    """The clip's pictures: (75, 64, 128, 3) uint8 BGR; the last is repeated where the clip is short."""
    strip = cv2.imdecode(clip.strip_jpeg, cv2.IMREAD_COLOR)
    if strip is None:
        raise ValueError(f"{clip.name}: its JPEG strip does not decode")
    frames = strip.astype(np.uint8, copy=False).reshape(-1, CROP_HEIGHT, CROP_WIDTH, 3)
    missing = N_FRAMES - len(frames)
    return np.concatenate([frames, frames[-1:].repeat(missing, 0)]) if missing > 0 else frames[:N_FRAMES]


def symbols_of(text: str) -> Integers:
    """Classes of a text's characters: space 1, A..Z 2..27."""
    return np.array([SYMBOLS.index(character) + FIRST_SYMBOL for character in text], np.int64)


def visible_text(words: Sequence[str], slots: Integers, within: Floats) -> str:
    """What is said in these frames: of a word that an end of them cuts, the characters whose middle is inside."""
    said = slots[slots != BETWEEN_WORDS]
    if not len(said):
        return ""
    first, last = int(said[0]), int(said[-1])
    shown = []
    for slot in range(first, last + 1):
        word = words[slot]
        middles = (np.arange(len(word)) + 0.5) / len(word)
        opens = within[0] if slots[0] == slot else 0.0
        closes = within[-1] if slots[-1] == slot else 1.0
        shown.append("".join(np.array(list(word))[(middles >= opens) & (middles <= closes)]))
    return " ".join(part for part in shown if part)


def spread_characters(words: Sequence[str], slots: Integers, within: Floats) -> Integers:
    """A character for each frame: those of a word in equal parts of its time.

    Returns: (T,) 0..26, counted from the space; -100 where no word is said, and in the last frame of a word,
    which CTC may need for the space.
    """
    targets = np.full(len(slots), NO_TARGET, np.int64)
    for slot, word in enumerate(words):
        at = np.flatnonzero(slots == slot)
        character = np.minimum((within[at] * len(word)).astype(np.int64), len(word) - 1)
        targets[at] = symbols_of(word)[character] - FIRST_SYMBOL
        if len(at) > 1 and slot < len(words) - 1:
            targets[at[-1]] = NO_TARGET
    return targets
