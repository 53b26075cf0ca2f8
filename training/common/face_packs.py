"""Make packs of faces with their speech, to train lip sync and avatars with.

    python -m training.common.face_packs -o PACKS --clips GRID/talking [--leave-out s33]
    python -m training.common.face_packs -o PACKS --rendered 150

GRID: folder of the GRID clips. Faces are found and boxed as `viseme sync` does, and stored with a margin, so that
training can shift and scale them. Packs that exist already are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.audio import SAMPLE_RATE
from inference.faces import FaceTracker, Landmarker
from inference.faces.box import LIP_POINTS
from inference.faces.load import load_landmarker
from inference.lip_sync.locate import LocatedFace, face_box_of_landmarks
from inference.lip_sync.options import SyncOptions
from inference.lip_sync.preprocess import FACE_SIZE, FaceFrame, find_boxes, smooth_boxes
from inference.media import Frame, open_media
from inference.media.audio import read_audio
from inference.settings import Settings
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import Waveform, synthesise, synthesise_with_formants
from training.common.arrays import Bytes, Floats
from training.common.packs import find_packs, missing_packs, write_arrays
from training.common.synthetic_clips import FIRST_SEED, FPS, make_clip

MARGIN = 12  # px stored around the face of 96
PACKED_SIDE = FACE_SIZE + 2 * MARGIN  # px
JPEG_QUALITY = 95
PACK_SIZE = 50  # clips
FORMANT_EVERY = 4  # one in this many rendered people has a formant voice instead of espeak-ng's
FULL_SCALE = 32767

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class FaceClip:
    """The face of a clip, with its speech.

    strip_jpeg: (T * 120, 120, 3) BGR as JPEG. lips: (T, 20, 2) float32, points 48..67, px of the face of 96.
    samples: (N,) int16, 16 kHz mono.
    """

    name: str
    person: str
    strip_jpeg: Bytes
    lips: Floats
    samples: Samples

    def faces(self) -> Bytes:
        """Decode the faces with their margins: (T, 120, 120, 3) uint8 BGR. Raises: ValueError if they are damaged."""
        strip = cv2.imdecode(self.strip_jpeg, cv2.IMREAD_COLOR)
        if strip is None:
            raise ValueError(f"{self.name}: its JPEG strip cannot be decoded")
        return strip.astype(np.uint8, copy=False).reshape(-1, PACKED_SIDE, PACKED_SIDE, 3)


def crop_clip(name: str, person: str, frames: Iterable[Frame], samples: Samples, landmarker: Landmarker) -> FaceClip:
    """Crop the face of a video as lip sync does. Raises: ValueError if a frame shows no face."""
    tracker = FaceTracker(landmarker)
    points: list[npt.NDArray[np.float32]] = []

    def locate(frame: Frame) -> LocatedFace:
        face = tracker.follow([frame])[0]
        if face is None:
            raise ValueError(f"{name}: frame {len(points)} shows no face")
        points.append(face.points)
        return LocatedFace(face_box_of_landmarks(face.points))

    options = SyncOptions()
    face_frames = list(smooth_boxes(find_boxes(frames, locate, options.pads), options.smoothing))
    crops = [crop_with_margin(one, landmarks) for one, landmarks in zip(face_frames, points, strict=True)]
    strip = np.concatenate([face for face, _ in crops])
    _, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    lips = np.stack([one for _, one in crops]).astype(np.float32)
    return FaceClip(name, person, np.asarray(jpeg, np.uint8).ravel(), lips, samples)


def crop_with_margin(face_frame: FaceFrame, points: npt.NDArray[np.float32]) -> tuple[Frame, Floats]:
    """Return the face with its margin, (120, 120, 3), and its lips in pixels of the inner 96.

    Raises: ValueError if the frame has no box.
    """
    box = face_frame.box
    if box is None:
        raise ValueError("the frame has no face box")
    scale = np.array([FACE_SIZE / box.width, FACE_SIZE / box.height])
    corner = np.array([box.left, box.top])
    # Pixel centres map to pixel centres, as in cv2.resize.
    shift = MARGIN - corner * scale + (scale - 1) / 2
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    flags = cv2.INTER_AREA if scale.min() < 1 else cv2.INTER_LINEAR
    size = (PACKED_SIDE, PACKED_SIDE)
    face = cv2.warpAffine(face_frame.frame, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(face, np.uint8), ((points[LIP_POINTS] - corner) * scale).astype(np.float32)


def person_of(path: Path) -> str:
    return path.stem.partition("_")[0]


def crop_real_clip(path: Path, landmarker: Landmarker) -> FaceClip:
    """Crop a video with audio whose file is named SPEAKER_NAME.mp4."""
    with open_media(path) as media:
        frames = [frame for clip in media.read_clips(FPS) for frame in clip.frames]
    return crop_clip(path.stem, person_of(path), frames, read_audio(path, SAMPLE_RATE), landmarker)


def crop_rendered_clip(seed: int, landmarker: Landmarker) -> FaceClip:
    """Render the synthetic speaker of a seed, and crop the face."""
    clip = make_clip(seed, seed)
    samples = np.round(np.clip(synthesise_audio(clip, seed), -1, 1) * FULL_SCALE).astype(np.int16)
    frames = (rendered.frame for rendered in clip.frames())
    return crop_clip(f"r{seed}", f"r{seed}", frames, samples, landmarker)


def synthesise_audio(clip: SyntheticClip, seed: int) -> Waveform:
    """Synthesise the speech of a clip; every fourth person's with formants even if espeak-ng is installed."""
    return synthesise_with_formants(clip.speech, seed) if seed % FORMANT_EVERY == 0 else synthesise(clip.speech, seed)


def write_pack(clips: Sequence[FaceClip], path: Path) -> None:
    """Write a pack that `load_packs` reads."""
    arrays = {
        "names": np.array([clip.name for clip in clips]),
        "people": np.array([clip.person for clip in clips]),
        "jpeg": np.concatenate([clip.strip_jpeg for clip in clips]),
        "jpeg_ends": np.cumsum([len(clip.strip_jpeg) for clip in clips]),
        "lips": np.concatenate([clip.lips for clip in clips]).astype(np.float32),
        "lips_ends": np.cumsum([len(clip.lips) for clip in clips]),
        "samples": np.concatenate([clip.samples for clip in clips]),
        "samples_ends": np.cumsum([len(clip.samples) for clip in clips]),
    }
    write_arrays(arrays, path)


def load_packs(folder: Path) -> list[FaceClip]:
    """Return the clips of all packs (.npz) in a folder, sorted by name. Raises: FileNotFoundError if it has none."""
    clips = (clip for path in find_packs(folder, "faces with speech") for clip in load_pack(path))
    return sorted(clips, key=lambda clip: clip.name)


def load_pack(path: Path) -> Iterator[FaceClip]:
    with np.load(path, allow_pickle=False) as pack:
        names, people = pack["names"], pack["people"]
        parts = [np.split(pack[key], pack[f"{key}_ends"][:-1]) for key in ("jpeg", "lips", "samples")]
    for name, person, jpeg, lips, samples in zip(names, people, *parts, strict=True):
        yield FaceClip(str(name), str(person), jpeg, lips, samples)


def make_packs(
    folder: Path,
    clips: Path | None,
    n_rendered: int,
    first_seed: int = FIRST_SEED,
    leave_out: Sequence[str] = (),
) -> None:
    """Write packs of up to 50 clips each: of all videos in a folder, and of rendered people. leave_out: speakers."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    found = sorted(path for path in clips.iterdir() if path.suffix in (".mp4", ".mpg")) if clips else []
    videos = [path for path in found if person_of(path) not in leave_out]
    for first in range(0, len(videos), PACK_SIZE):
        path = folder / f"{videos[first].stem}.npz"
        if not path.exists():
            write_pack([crop_real_clip(video, landmarker) for video in videos[first : first + PACK_SIZE]], path)
            print(path, flush=True)
    for path, seeds in missing_packs(folder, first_seed, n_rendered, PACK_SIZE):
        write_pack([crop_rendered_clip(seed, landmarker) for seed in seeds], path)
        print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the packs that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m training.common.face_packs", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--folder", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--clips", type=Path, help="folder of real video clips with audio, SPEAKER_NAME.mp4")
    parser.add_argument("--rendered", type=int, default=0, help="number of clips of the synthetic speaker")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="seed of the first of them")
    parser.add_argument(
        "--leave-out", nargs="*", default=(), metavar="SPEAKER", help="speakers of the clips to leave out"
    )
    args = parser.parse_args(arguments)
    make_packs(args.folder, args.clips, args.rendered, args.first_seed, args.leave_out)


if __name__ == "__main__":
    main()
