"""Make packs of mouth crops from rendered clips, in the format that `training.lip_reading.train` reads.

    python -m training.lip_reading.render_clips -o PACKS --clips 600 --of-each 2

The synthetic speaker says random sentences of the GRID language, `--of-each` of them by one person. Mouths are found
and cropped as in lip reading. Packs that exist already are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.preprocess import MouthCrop, crop_mouths, track_faces
from inference.media import Clip
from inference.settings import Settings
from inference.speaker import TimedWord
from training.common.arrays import Bytes, Floats
from training.common.mouth_packs import N_FRAMES
from training.common.packs import missing_packs, write_arrays
from training.common.synthetic_clips import FIRST_SEED, FPS, make_clip

PACK_SIZE = 100  # clips
JPEG_QUALITY = 90


@dataclass(frozen=True)
class PackedClip:
    """One clip as a pack stores it."""

    name: str
    person: str
    text: str
    jpeg: Bytes
    lips: npt.NDArray[np.float16]  # (75, 20, 2)
    word_start: Floats  # (6,) in frames
    word_end: Floats


def render_mouths(seed: int, person: int, landmarker: Landmarker) -> PackedClip:
    """Render the sentence of a seed, spoken by a person, and crop the mouth."""
    clip = make_clip(seed, person)
    frames = tuple(rendered.frame for rendered in clip.frames())
    tracker = FaceTracker(landmarker)
    mouths = list(crop_mouths(track_faces([Clip(frames, FPS)], tracker), f"seed {seed}", tracker))
    return pack_mouths(f"r{seed}", f"r{person}", mouths, clip.speech.timed_words())


def pack_mouths(name: str, person: str, mouths: Sequence[MouthCrop], words: Sequence[TimedWord]) -> PackedClip:
    """Pack the first 75 frames of a clip. Of a shorter one, the last lips repeat, as its last crop does when read."""
    mouths = mouths[:N_FRAMES]
    strip = np.concatenate([mouth.crop for mouth in mouths])
    _, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return PackedClip(
        name=name,
        person=person,
        text=" ".join(word.word for word in words),
        jpeg=np.asarray(jpeg, np.uint8).ravel(),
        lips=np.stack([mouths[min(i, len(mouths) - 1)].lips for i in range(N_FRAMES)]).astype(np.float16),
        word_start=np.array([word.start_s * FPS for word in words], np.float32),
        word_end=np.array([word.end_s * FPS for word in words], np.float32),
    )


def write_pack(clips: Sequence[PackedClip], path: Path) -> None:
    """Write a pack that `training.common.mouth_packs` reads."""
    arrays = {
        "jpeg": np.concatenate([clip.jpeg for clip in clips]),
        "offsets": np.cumsum([0] + [len(clip.jpeg) for clip in clips]),
        "coords": np.stack([clip.lips for clip in clips]),
        "clips": np.array([clip.name for clip in clips]),
        "people": np.array([clip.person for clip in clips]),
        "transcripts": np.array([clip.text for clip in clips]),
        "word_start": np.stack([clip.word_start for clip in clips]),
        "word_end": np.stack([clip.word_end for clip in clips]),
    }
    write_arrays(arrays, path)


def make_packs(folder: Path, n_clips: int, first_seed: int, of_each: int = 1) -> None:
    """Write packs of up to 100 clips each. of_each: clips of one person."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    for path, seeds in missing_packs(folder, first_seed, n_clips, PACK_SIZE):
        people = [first_seed + (seed - first_seed) // of_each for seed in seeds]
        clips = [render_mouths(seed, person, landmarker) for seed, person in zip(seeds, people, strict=True)]
        write_pack(clips, path)
        print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the packs that the command line describes."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lip_reading.render_clips", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--folder", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--clips", type=int, default=600, help="number of clips")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="seed of the first clip")
    parser.add_argument("--of-each", type=int, default=1, help="sentences by one person")
    args = parser.parse_args(arguments)
    make_packs(args.folder, args.clips, args.first_seed, args.of_each)


if __name__ == "__main__":
    main()
