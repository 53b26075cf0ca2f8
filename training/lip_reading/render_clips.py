"""Make packs of mouth crops from rendered clips, in the form that `training.lip_reading.train` reads.

    python -m training.lip_reading.render_clips -o PACKS --clips 600 --of-each 2

Sentences of the GRID language are drawn at random and said by the synthetic speaker, `--of-each` of them by one
person. The mouths are found and cut as reading finds and cuts them. A pack that is there already is kept.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.preprocess import Mouth, crop_mouths, track_faces
from inference.media import Clip
from inference.settings import Settings
from inference.speaker import SyntheticClip, SyntheticClipOptions, TimedWord
from training.lip_reading.mouth_packs import N_FRAMES

FPS = 25.0
PACK = 100  # clips
QUALITY = 90  # of the JPEG strips
# Seeds below this are left to tests and measurements: nobody is trained on and measured alike.
FIRST_SEED = 1_000_000
SLOTS = (
    "BIN LAY PLACE SET",
    "BLUE GREEN RED WHITE",
    "AT BY IN WITH",
    "A B C D E F G H I J K L M N O P Q R S T U V X Y Z",
    "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE",
    "AGAIN NOW PLEASE SOON",
)
SIZES = ((360, 288), (360, 288), (360, 288), (320, 240), (480, 360), (640, 480))


@dataclass(frozen=True)
class Rendered:
    """One clip as a pack holds it."""

    name: str
    person: str
    text: str
    jpeg: npt.NDArray[np.uint8]
    coords: npt.NDArray[np.float16]  # (75, 20, 2)
    word_start: npt.NDArray[np.float32]  # (6,) in frames
    word_end: npt.NDArray[np.float32]


def draw_sentence(seed: int) -> str:
    """A sentence of the GRID language; all are equally likely."""
    rng = np.random.default_rng((seed, 7))
    return " ".join(str(rng.choice(slot.split())) for slot in SLOTS)


def render_mouths(seed: int, person: int, landmarker: Landmarker) -> Rendered:
    """The sentence of a seed said by the person of another, and their mouth."""
    width, height = SIZES[person % len(SIZES)]
    text = draw_sentence(seed)
    film = SyntheticClip(
        text, person, SyntheticClipOptions(width=width, height=height, fps=FPS, length_s=N_FRAMES / FPS)
    )
    frames = tuple(shot.frame for shot in film.frames())
    tracker = FaceTracker(landmarker)
    mouths = list(crop_mouths(track_faces([Clip(frames, FPS)], tracker), f"seed {seed}", tracker))
    return pack_mouths(f"r{seed}", f"r{person}", mouths, film.speech.timed_words())


def pack_mouths(name: str, person: str, mouths: Sequence[Mouth], words: Sequence[TimedWord]) -> Rendered:
    strip = np.concatenate([mouth.crop for mouth in mouths])
    _, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return Rendered(
        name=name,
        person=person,
        text=" ".join(word.word for word in words),
        jpeg=np.asarray(jpeg, np.uint8).ravel(),
        coords=np.stack([mouth.lips for mouth in mouths]).astype(np.float16),
        word_start=np.array([word.start_s * FPS for word in words], np.float32),
        word_end=np.array([word.end_s * FPS for word in words], np.float32),
    )


def write_pack(clips: Sequence[Rendered], path: Path) -> None:
    """A pack as `training.lip_reading.mouth_packs` reads it, replaced in one move."""
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez(
        partial,
        jpeg=np.concatenate([clip.jpeg for clip in clips]),
        offsets=np.cumsum([0] + [len(clip.jpeg) for clip in clips]),
        coords=np.stack([clip.coords for clip in clips]),
        clips=np.array([clip.name for clip in clips]),
        people=np.array([clip.person for clip in clips]),
        transcripts=np.array([clip.text for clip in clips]),
        word_start=np.stack([clip.word_start for clip in clips]),
        word_end=np.stack([clip.word_end for clip in clips]),
    )
    os.replace(partial, path)


def make_packs(folder: Path, n_clips: int, first_seed: int, of_each: int = 1) -> None:
    """Packs of up to 100 clips each. of_each: clips of one person."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    for first in range(first_seed, first_seed + n_clips, PACK):
        path = folder / f"rendered_{first}.npz"
        if path.exists():
            continue
        seeds = range(first, min(first + PACK, first_seed + n_clips))
        write_pack(
            [render_mouths(seed, first_seed + (seed - first_seed) // of_each, landmarker) for seed in seeds], path
        )
        print(path, flush=True)


def main() -> None:
    """Read the command line and make the packs."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lip_reading.render_clips", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--folder", type=Path, required=True, help="where the packs go")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--of-each", type=int, default=1, help="sentences said by one person")
    asked = parser.parse_args()
    make_packs(asked.folder, asked.clips, asked.first_seed, asked.of_each)


if __name__ == "__main__":
    main()
