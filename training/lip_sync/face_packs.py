"""Make packs of talking faces with their voices, which lip sync learns from.

    python -m training.lip_sync.face_packs -o PACKS --clips ../shared/grid/talking [--leave-out NAMES]
    python -m training.lip_sync.face_packs -o PACKS --rendered 150

Faces are found and boxed as `viseme sync` finds and boxes them, and kept with a margin so that training may shift
and scale them. A pack that is there already is kept.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.audio import SAMPLE_RATE
from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.faces.load import load_landmarker
from inference.lip_sync.options import SyncOptions
from inference.lip_sync.preprocess import SIDE, Shot, box_of_landmarks, find_boxes, smooth_boxes
from inference.media import Frame, open_media
from inference.media.sound import read_sound
from inference.settings import Settings
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.speaker.synthesis import Waveform, synthesise, synthesise_with_formants
from training.lip_reading.render_clips import FIRST_SEED, SIZES, draw_sentence

FPS = 25.0
MARGIN = 12  # px around the face of 96
KEPT = SIDE + 2 * MARGIN
QUALITY = 95  # of the JPEG strips
PACK = 50  # clips
TONES = 4  # one in so many rendered people speaks in tones
FULL_SCALE = 32767

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class TalkingClip:
    """A face that talks.

    strip_jpeg: (T * 120, 120, 3) BGR as JPEG. lips: (T, 20, 2) float32, points 48..67, px of the face of 96.
    samples: (N,) int16, 16 kHz mono.
    """

    name: str
    person: str
    strip_jpeg: Bytes
    lips: Floats
    samples: Samples

    def faces(self) -> Bytes:
        """(T, 120, 120, 3) uint8 BGR."""
        strip = cv2.imdecode(self.strip_jpeg, cv2.IMREAD_COLOR)
        if strip is None:
            raise ValueError(f"{self.name}: its JPEG strip does not decode")
        return strip.astype(np.uint8, copy=False).reshape(-1, KEPT, KEPT, 3)


def film_clip(name: str, person: str, frames: Iterable[Frame], samples: Samples, landmarker: Landmarker) -> TalkingClip:
    """The face of a film, cut as lip sync cuts it. Raises: ValueError where a frame shows none."""
    tracker = FaceTracker(landmarker)
    points: list[npt.NDArray[np.float32]] = []

    def locate(frame: Frame) -> FaceBox | None:
        face = tracker.follow([frame])[0]
        if face is None:
            raise ValueError(f"{name}: frame {len(points)} shows no face")
        points.append(face.points)
        return box_of_landmarks(face.points)

    options = SyncOptions()
    shots = list(smooth_boxes(find_boxes(frames, locate, options.pads), options.smoothing))
    cut = [cut_with_margin(shot, lips) for shot, lips in zip(shots, points, strict=True)]
    _, jpeg = cv2.imencode(".jpg", np.concatenate([face for face, _ in cut]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    lips = np.stack([one for _, one in cut]).astype(np.float32)
    return TalkingClip(name, person, np.asarray(jpeg, np.uint8).ravel(), lips, samples)


def cut_with_margin(shot: Shot, points: npt.NDArray[np.float32]) -> tuple[Frame, Floats]:
    """The face and what surrounds it, (120, 120, 3), and its lips in pixels of the inner 96."""
    box = shot.box
    if box is None:
        raise ValueError("a shot without a face")
    scale = np.array([SIDE / box.width, SIDE / box.height])
    corner = np.array([box.left, box.top])
    # Pixel centres map to pixel centres, as in cv2.resize.
    shift = MARGIN - corner * scale + (scale - 1) / 2
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    flags = cv2.INTER_AREA if scale.min() < 1 else cv2.INTER_LINEAR
    face = cv2.warpAffine(shot.frame, matrix, (KEPT, KEPT), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(face, np.uint8), ((points[LIP_POINTS] - corner) * scale).astype(np.float32)


def film_real(path: Path, landmarker: Landmarker) -> TalkingClip:
    """A clip called SPEAKER_NAME.mp4, with its own sound."""
    with open_media(path) as media:
        frames = [frame for clip in media.read_clips(FPS) for frame in clip.frames]
    return film_clip(path.stem, path.stem.partition("_")[0], frames, read_sound(path, SAMPLE_RATE), landmarker)


def film_rendered(seed: int, landmarker: Landmarker) -> TalkingClip:
    """The synthetic speaker of a seed."""
    width, height = SIZES[seed % len(SIZES)]
    film = SyntheticClip(
        draw_sentence(seed), seed, SyntheticClipOptions(width=width, height=height, fps=FPS, length_s=3.0)
    )
    samples = np.round(np.clip(voice_of(film, seed), -1, 1) * FULL_SCALE).astype(np.int16)
    return film_clip(f"r{seed}", f"r{seed}", (shot.frame for shot in film.frames()), samples, landmarker)


def voice_of(film: SyntheticClip, seed: int) -> Waveform:
    """Of every fourth one its voice where there is no espeak-ng."""
    return synthesise_with_formants(film.speech, seed) if seed % TONES == 0 else synthesise(film.speech, seed)


def write_pack(clips: Sequence[TalkingClip], path: Path) -> None:
    """Replaced in one move."""
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez(
        partial,
        names=np.array([clip.name for clip in clips]),
        people=np.array([clip.person for clip in clips]),
        jpeg=np.concatenate([clip.strip_jpeg for clip in clips]),
        jpeg_ends=np.cumsum([len(clip.strip_jpeg) for clip in clips]),
        lips=np.concatenate([clip.lips for clip in clips]).astype(np.float32),
        lips_ends=np.cumsum([len(clip.lips) for clip in clips]),
        samples=np.concatenate([clip.samples for clip in clips]),
        samples_ends=np.cumsum([len(clip.samples) for clip in clips]),
    )
    os.replace(partial, path)


def load_talking(folder: Path) -> list[TalkingClip]:
    """Every clip of every pack of a folder, by name. Raises: FileNotFoundError where there is no pack."""
    packs = sorted(folder.glob("*.npz"))
    if not packs:
        raise FileNotFoundError(f"{folder}: no .npz packs of talking faces")
    return sorted((clip for pack in packs for clip in load_pack(pack)), key=lambda clip: clip.name)


def load_pack(path: Path) -> Iterator[TalkingClip]:
    with np.load(path, allow_pickle=False) as pack:
        names, people = pack["names"], pack["people"]
        parts = [np.split(pack[key], pack[f"{key}_ends"][:-1]) for key in ("jpeg", "lips", "samples")]
    for name, person, jpeg, lips, samples in zip(names, people, *parts, strict=True):
        yield TalkingClip(str(name), str(person), jpeg, lips, samples)


def make_packs(folder: Path, clips: Path | None, n_rendered: int, first_seed: int = FIRST_SEED) -> None:
    """Packs of up to 50 clips each: of every film in a folder, and of so many rendered people."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    films = sorted(path for path in clips.iterdir() if path.suffix in (".mp4", ".mpg")) if clips else []
    for first in range(0, len(films), PACK):
        path = folder / f"{films[first].stem}.npz"
        if not path.exists():
            write_pack([film_real(film, landmarker) for film in films[first : first + PACK]], path)
            print(path, flush=True)
    for first in range(first_seed, first_seed + n_rendered, PACK):
        path = folder / f"rendered_{first}.npz"
        if not path.exists():
            seeds = range(first, min(first + PACK, first_seed + n_rendered))
            write_pack([film_rendered(seed, landmarker) for seed in seeds], path)
            print(path, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and make the packs."""
    parser = argparse.ArgumentParser(prog="python -m training.lip_sync.face_packs", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--folder", type=Path, required=True, help="where the packs go")
    parser.add_argument("--clips", type=Path, help="folder of filmed clips with sound, SPEAKER_NAME.mp4")
    parser.add_argument("--rendered", type=int, default=0, help="this many clips of the synthetic speaker")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    asked = parser.parse_args(words)
    make_packs(asked.folder, asked.clips, asked.rendered, asked.first_seed)


if __name__ == "__main__":
    main()
