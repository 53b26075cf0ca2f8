"""Measure what `--enhance video` adds to generated mouths, and what it costs.

    python -m bench.video_detail [--checkpoint starter] [--grid FOLDER] [--videos VIDEO ...] [--clips N]
        [--pictures DIR]

FOLDER contains clips/*.mpg, eval/*.mpg and people/*.mpg. The audio of each clip is applied to the next one's face. The
first table compares generated mouths without and with detail:

  energy   mean square of the Laplacian around the lips, over that of the original video
  flicker  mean change of fine detail from frame to frame, beside the lips, over that of the original video
  r        correlation of the generated mouth opening with that of the speaker
  near     share of the frames to which detail was added
  ms       CPU milliseconds for each frame of the video and for each generated frame, one thread

The second shows how true the detail is. Frames of the first half of a video are made as soft as generated ones: they
are brought to 96 x 96 pixels and blurred by a Gaussian of sigma 0, 1 and 2 of these pixels. Detail comes from the
second half alone. SSIM and energy are those around the lips, against the true frames.

Pictures show six moments of each face: above the generated frame, below it the same with detail.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.lips import (
    Curve,
    Points,
    SpeakingVideo,
    correlate_at_lag,
    mel_window_starts,
    mouth_opening,
    read_speaking_video,
)
from bench.sync_quality import find_clips
from inference.audio import cut_window
from inference.faces import Landmarker
from inference.faces.box import LIP_POINTS
from inference.faces.load import load_landmarker
from inference.faces.ssim import ssim
from inference.lip_sync import LipSyncer
from inference.lip_sync.compose import FaceFrameBatch, batch_frames, generate_patches, paste_face
from inference.lip_sync.mouth_bank import collect_mouths
from inference.lip_sync.mouth_shape import measure_mouth
from inference.lip_sync.preprocess import FACE_SIZE, FaceFrame, cut_face
from inference.lip_sync.video_detail import add_detail
from inference.media import Frame
from inference.settings import Settings

MARGIN = 0.12  # of the width of the face box, around the lips
FINE_SIGMA = 1.5 / FACE_SIZE  # of the width of the face box: what is finer counts as detail
BLURS = (0.0, 1.0, 2.0)
N_MOMENTS, PICTURE = 6, (300, 240)
MAX_FRAMES = 250  # of a video


@dataclass(frozen=True)
class Gain:
    """Figures of one clip; the module's docstring explains them."""

    energy_plain: float
    energy: float
    flicker_plain: float
    flicker: float
    r_plain: float
    r: float
    near: float
    ms_source: float
    ms_frame: float


def main() -> None:
    """Print two tables; write pictures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="starter")
    parser.add_argument("--grid", type=Path, default=Path("../shared/grid"), help="skipped if it does not exist")
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="other videos of one speaker, with audio")
    parser.add_argument("--clips", type=int, help="most clips of each kind")
    parser.add_argument("--pictures", type=Path, help="folder for pictures, one for each face")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    syncer = LipSyncer([args.checkpoint])
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    kinds = find_clips(args.grid, 0, args.videos, Path())
    print(f"{'clips':20}{'n':>4}" + "".join(f"{name:>14}" for name in Gain.__annotations__))
    truths: dict[str, list[list[float]]] = {}
    for kind, paths in kinds.items():
        videos = [shorten(read_speaking_video(path, landmarker)) for path in paths[: args.clips]]
        gains = []
        for i, video in enumerate(videos):
            speaker = videos[(i + 1) % len(videos)]
            gains.append(measure_gain(video, speaker, syncer, landmarker, args.pictures))
        mean = np.mean([list(vars(one).values()) for one in gains], axis=0)
        print(f"{kind:20}{len(gains):4}" + "".join(f"{value:14.3f}" for value in mean))
        truths[kind] = np.mean([measure_truth(video, landmarker) for video in videos], axis=0).tolist()
    print(f"\n{'softened by sigma':20}" + "".join(f"{sigma:>32.0f}" for sigma in BLURS))
    print(" " * 20 + "  ssim: soft    new  energy: soft   new".rjust(32) * len(BLURS))
    for kind, rows in truths.items():
        print(f"{kind:20}" + "".join("".join(f"{value:8.3f}" for value in row) for row in rows))


def shorten(video: SpeakingVideo) -> SpeakingVideo:
    """Return the first frames of a video; landmarks are repeated with frames that are, as its rate was raised."""
    face_frames = video.face_frames[:MAX_FRAMES]
    is_new = [k > 0 and one.frame is not face_frames[k - 1].frame for k, one in enumerate(face_frames)]
    return SpeakingVideo(video.name, face_frames, video.points[np.cumsum(is_new)], video.samples)


def measure_gain(
    video: SpeakingVideo, speaker: SpeakingVideo, syncer: LipSyncer, landmarker: Landmarker, folder: Path | None
) -> Gain:
    """Apply the audio of a speaker to a video, without and with detail. folder: for a picture."""
    n_frames = min(len(video.face_frames), len(speaker.face_frames))
    face_frames = video.face_frames[:n_frames]
    mels = [cut_window(speaker.samples, start) for start in mel_window_starts(n_frames)]
    batches = list(
        generate_patches(batch_frames(face_frames, mels, 4), [syncer.generators[0].generate_faces], "steady")
    )
    patches = [patch for batch in batches for patch in batch.patches[0]]
    start = time.process_time()
    bank = collect_mouths(video.face_frames, landmarker)
    middle = time.process_time()
    detailed = [batch.patches[0][0] for batch in add_detail(batches, bank, landmarker)]
    end = time.process_time()
    plain, new = paste_all(face_frames, patches), paste_all(face_frames, detailed)
    true = [one.frame for one in face_frames]
    if folder is not None:
        write_picture(folder / f"{video.name}.png", plain, new, video.points)
    energies = [np.mean([energy_of(*one) for one in around_lips(frames, video)]) for frames in (true, plain, new)]
    flickers = [flicker_of(frames, video) for frames in (true, plain, new)]
    curves = [opening_of(face_frames, each, landmarker) for each in (patches, detailed)]
    r_plain, r = (correlate_at_lag(curve, speaker.opening) for curve in curves)
    return Gain(
        energy_plain=float(energies[1] / energies[0]),
        energy=float(energies[2] / energies[0]),
        flicker_plain=flickers[1] / flickers[0],
        flicker=flickers[2] / flickers[0],
        r_plain=r_plain,
        r=r,
        near=float(np.mean([one is not other for one, other in zip(patches, detailed, strict=True)])),
        ms_source=(middle - start) * 1000 / len(video.face_frames),
        ms_frame=(end - middle) * 1000 / n_frames,
    )


def measure_truth(video: SpeakingVideo, landmarker: Landmarker) -> list[list[float]]:
    """Return, for each blur, SSIM and energy of soft mouths and of the same with detail, against the true ones."""
    half = len(video.face_frames) // 2
    bank = collect_mouths(video.face_frames[half:], landmarker)
    face_frames = video.face_frames[:half]
    true = list(around_lips([one.frame for one in face_frames], video))
    rows = []
    for sigma in BLURS:
        faces = [cut_face(one.frame, one.box, one.angle_rad) for one in face_frames if one.box is not None]
        soft = [face if sigma == 0 else np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.uint8) for face in faces]
        batch = FaceFrameBatch(tuple(face_frames), (), (soft,))
        new = [one.patches[0][0] for one in add_detail([batch], bank, landmarker)]
        row = []
        for patches in (soft, new):
            found = list(around_lips(paste_all(face_frames, patches), video))
            likeness = np.mean([ssim(one, other) for (one, _), (other, _) in zip(found, true, strict=True)])
            energy = np.mean([energy_of(*one) for one in found]) / np.mean([energy_of(*one) for one in true])
            row.append((float(likeness), float(energy)))
        rows.append([row[0][0], row[1][0], row[0][1], row[1][1]])
    return rows


def paste_all(face_frames: Sequence[FaceFrame], patches: Sequence[Frame]) -> list[Frame]:
    return [
        paste_face(one, one.box, patch, "blend")
        for one, patch in zip(face_frames, patches, strict=True)
        if one.box is not None
    ]


def opening_of(face_frames: Sequence[FaceFrame], patches: Sequence[Frame], landmarker: Landmarker) -> Curve:
    """Measure the mouth opening of generated faces."""
    found: list[Points] = []
    for one, patch in zip(face_frames, patches, strict=True):
        assert one.box is not None
        mouth = measure_mouth(one.frame, one.box, one.angle_rad, landmarker, patch)
        found.append(found[-1] if mouth is None else mouth.points.astype(np.float32))
    return mouth_opening(np.stack(found))


def around_lips(frames: Sequence[Frame], video: SpeakingVideo) -> list[tuple[Frame, float]]:
    """Return the lips of each frame with a margin, and the width of the face box."""
    regions = []
    for frame, points, face_frame in zip(frames, video.points, video.face_frames, strict=False):
        assert face_frame.box is not None
        margin = MARGIN * face_frame.box.width
        lips = points[LIP_POINTS]
        left, top = np.maximum(lips.min(axis=0) - margin, 0).astype(int)
        right, bottom = np.ceil(lips.max(axis=0) + margin).astype(int)
        regions.append((frame[top:bottom, left:right], face_frame.box.width))
    return regions


def energy_of(region: Frame, _: float) -> float:
    grey = cv2.cvtColor(region, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return float((cv2.Laplacian(grey, cv2.CV_32F) ** 2).mean())


def flicker_of(frames: Sequence[Frame], video: SpeakingVideo) -> float:
    """Return the mean change of fine detail on the chin and cheeks, in levels.

    The same pixels of two frames are compared, so that movement of the head counts in the original video as well.
    """
    changes: list[float] = []
    last = None
    for frame, points, face_frame in zip(frames, video.points, video.face_frames, strict=False):
        box = face_frame.box
        assert box is not None
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32)
        fine = grey - cv2.GaussianBlur(grey, (0, 0), FINE_SIGMA * box.width)
        lips = points[LIP_POINTS]
        margin = int(MARGIN * box.width)
        bottom, left, right = int(lips[:, 1].max()) + margin, int(lips[:, 0].min()), int(lips[:, 0].max())
        skin = slice(bottom, int(box.bottom - 0.1 * box.height)), slice(left, right)
        if last is not None and fine[skin].size:
            changes.append(float(np.abs(fine - last)[skin].mean()))
        last = fine
    return float(np.mean(changes))


def write_picture(path: Path, plain: list[Frame], new: list[Frame], points: Points) -> None:
    """Write moments of a video side by side, enlarged."""
    columns = []
    for i in np.linspace(0, len(plain) - 1, N_MOMENTS + 2).astype(int)[1:-1]:
        lips = points[i][LIP_POINTS]
        (x, y), side = lips.mean(axis=0), 1.1 * np.ptp(lips[:, 0])
        rows = slice(max(int(y - 0.8 * side), 0), int(y + 0.8 * side))
        around = rows, slice(max(int(x - side), 0), int(x + side))
        pair = [cv2.resize(frame[around], PICTURE, interpolation=cv2.INTER_CUBIC) for frame in (plain[i], new[i])]
        columns.append(np.vstack(pair))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.hstack(columns))


if __name__ == "__main__":
    main()
