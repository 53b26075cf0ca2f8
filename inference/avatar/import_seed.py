"""Import of seed packages, the avatars of the older SyncTalk_2D servers, in both of their layouts, complete or not.

Their file names and descriptions contradict their contents; the contents count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.audio.avatar_features import FEATURE_ROWS, LAST_WINDOW
from inference.avatar.build import check_look_ahead, choose_idle
from inference.avatar.compose import CROP_SIDE, cut_crop
from inference.avatar.crop_box import crop_box_from_lms, mouth_gap, read_all_lms
from inference.avatar.crops import open_npy
from inference.avatar.manifest import (
    MAX_FRAMES,
    MAX_MANIFEST_BYTES,
    MAX_SIDE,
    IdleRange,
    Manifest,
    describe_files,
    write_manifest,
)
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.package import check_encoder_fits
from inference.avatar.write_package import (
    FPS,
    CroppedFrame,
    atomic_package_folder,
    write_features,
    write_frames,
    write_networks,
)
from inference.errors import AvatarNotFound, BadPackage
from inference.faces import FaceBox
from inference.media import Frame, MediaLimits, MediaOpener, open_media
from inference.media.frames import pad_to_even
from inference.weights.cache import sha256_of

VIDEO_NAMES = ("full_body_video.mp4", "full_body_576_face_enhanced.mp4")
CROP_VIDEO_NAMES = ("crops_328_video.mp4", "crops_328_1280x720.mp4")
BOX_NAMES = ("cache/crop_rectangles.json", "crop_rectangles.json", "crop_rects.json")
NETWORK_NAMES = (
    *("checkpoint/best_trainloss.pth", "best_trainloss.pth", "checkpoint/model_best.onnx", "model_best.onnx"),
    "models/generator.onnx",
)
ENCODER_NAMES = ("audio_visual_encoder.pth", "models/audio_encoder.onnx")
FEATURES, LMS, INFO = "aud_ave.npy", "landmarks", "package_info.json"
# Mean difference in grey levels between a packaged crop and its box; above it the crop shows something else.
MAX_CROP_DIFFERENCE = 24.0


@dataclass
class SeedPackage:
    """Files found in a seed package. notes: inconsistencies, and how each was resolved."""

    folder: Path
    video: Path | None
    crop_video: Path | None
    boxes: Path | None
    lms: Path | None
    network: Path | None
    encoder: Path | None
    features: Path | None
    notes: list[str] = field(default_factory=list)


def import_package(
    source: Path,
    output: Path,
    checkpoint: Path | None = None,
    encoder: Path | None = None,
    mode: str | None = None,
    limits: MediaLimits | None = None,
    media: MediaOpener = open_media,
    look_ahead: int = LAST_WINDOW,
) -> tuple[Manifest, list[str]]:
    """Write a seed package as an avatar package to the folder `output`, complete or not at all.

    checkpoint, encoder: used instead of those in the package. look_ahead: windows that the frames of these weights look
    ahead, -1 to 6, as in AvatarSource. Returns: the manifest, and notes on inconsistencies.

    Raises: AvatarNotFound, BadPackage naming everything that is missing, InvalidRequest if `output` exists or the
    look-ahead is outside this range, MediaError, WeightsError, StorageError.
    """
    check_look_ahead(look_ahead)
    seed = scan_package(source, checkpoint, encoder)
    video, network = require_parts(seed)
    unet = read_unet(network, mode)
    audio_encoder = None if seed.encoder is None else read_encoder(seed.encoder)
    if audio_encoder is not None:
        check_encoder_fits(audio_encoder.sizes[-1], unet.sizes.audio_shape, source.name)
    boxes, idle = find_boxes(seed)
    features = find_features(seed, unet.sizes.audio_shape, len(boxes))
    with atomic_package_folder(output) as folder:
        written = write_frames(folder, read_cropped_frames(seed, video, boxes, limits, media), video.name)
        if len(written.boxes) != len(boxes):
            raise BadPackage(f"{source}: {video.name} has {len(written.boxes)} frames; there are {len(boxes)} boxes")
        check_declared_counts(seed, len(boxes))
        write_networks(folder, unet, audio_encoder)
        if features is not None:
            write_features(folder, features)
        manifest = Manifest(
            name=output.name,
            frames=len(boxes),
            width=written.width,
            height=written.height,
            mode=unet.sizes.mode,
            idle=idle,
            landmarks="lms110",
            look_ahead_windows=look_ahead,
            made_from={path.name: sha256_of(path) for path in (video, network)},
            files=describe_files(folder),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)
    return manifest, seed.notes


def scan_package(source: Path, checkpoint: Path | None, encoder: Path | None) -> SeedPackage:
    """Find every part of the package under each of its possible names."""
    if not source.is_dir():
        raise AvatarNotFound(f"{source}: no such folder; expected a seed package of the older servers")
    info = read_json(source / INFO)
    declared = info.get("videos", {}) if isinstance(info, dict) else {}
    lms = source / LMS
    seed = SeedPackage(
        folder=source,
        video=find_first(source, (*declared_video(declared, "full_body_img"), *VIDEO_NAMES)),
        crop_video=find_first(source, (*declared_video(declared, "crops_328"), *CROP_VIDEO_NAMES)),
        boxes=find_first(source, BOX_NAMES),
        lms=lms if lms.is_dir() and any(lms.glob("*.lms")) else None,
        network=checkpoint or find_first(source, NETWORK_NAMES),
        encoder=encoder or find_first(source, ENCODER_NAMES),
        features=find_first(source, (FEATURES,)),
    )
    present = [name for name in NETWORK_NAMES if (source / name).is_file()]
    if checkpoint is None and len(present) > 1:
        seed.notes.append(f"found {' and '.join(present)}; {present[0]} was used")
    return seed


def declared_video(videos: Any, kind: str) -> tuple[str, ...]:
    """Return the file that the package's description names, if it is a plain file name."""
    entry = videos.get(kind) if isinstance(videos, dict) else None
    name = entry.get("video_file") if isinstance(entry, dict) else None
    return (name,) if isinstance(name, str) and Path(name).name == name else ()


def find_first(source: Path, names: Sequence[str]) -> Path | None:
    return next((source / name for name in names if (source / name).is_file()), None)


def require_parts(seed: SeedPackage) -> tuple[Path, Path]:
    """Return the video and the network. Raises: BadPackage naming everything that is missing."""
    missing = []
    if seed.video is None:
        missing.append(f"the full-frame video ({' or '.join(VIDEO_NAMES)})")
    if seed.boxes is None and seed.lms is None:
        missing.append(f"the boxes ({' or '.join(BOX_NAMES)}, or {LMS}/*.lms)")
    if seed.network is None:
        missing.append(f"the network ({' or '.join(NETWORK_NAMES)}, or --checkpoint)")
    if missing or seed.video is None or seed.network is None:
        raise BadPackage(f"{seed.folder}: missing: {'; '.join(missing)}")
    return seed.video, seed.network


def find_boxes(seed: SeedPackage) -> tuple[list[FaceBox], IdleRange]:
    """Return the boxes, checked against the landmarks if both exist, and the frames to show in silence."""
    points = read_all_lms(seed.lms) if seed.lms is not None else None
    by_lms = [crop_box_from_lms(one) for one in points] if points is not None else None
    boxes = read_boxes(seed.boxes) if seed.boxes is not None else by_lms or []
    if by_lms is not None and len(by_lms) != len(boxes):
        seed.notes.append(f"landmarks of {len(by_lms)} frames, but {len(boxes)} boxes: the boxes were used")
    elif by_lms is not None and by_lms != boxes:
        i = next(i for i, (a, b) in enumerate(zip(by_lms, boxes, strict=True)) if a != b)
        seed.notes.append(
            f"box {i} is {format_box(boxes[i])}, by its landmarks {format_box(by_lms[i])}: the boxes were used "
            f"({sum(a != b for a, b in zip(by_lms, boxes, strict=True))} differ)"
        )
    if points is None or len(points) != len(boxes):
        return boxes, choose_idle([np.inf] * len(boxes))
    return boxes, choose_idle([mouth_gap(one) for one in points])


def read_boxes(path: Path) -> list[FaceBox]:
    """Read boxes of either form: a list of x1, y1, x2, y2, or objects with a "rect" by frame number.

    Raises: BadPackage if they are invalid.
    """
    found = read_json(path)
    try:
        if isinstance(found, dict):
            if sorted(map(int, found)) != list(range(len(found))):
                raise BadPackage(f"{path}: frames are not numbered 0 to {len(found) - 1}")
            found = [found[str(i)]["rect"] for i in range(len(found))]
        boxes = np.array(found, np.float64)
    except (ValueError, TypeError, KeyError) as err:
        raise BadPackage(f'{path}: expected a list of four numbers each, or "rect" by frame ({err})') from err
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not 0 < len(boxes) <= MAX_FRAMES:
        raise BadPackage(f"{path}: numbers of shape {boxes.shape}; expected (N, 4), N of 1 to {MAX_FRAMES}")
    if not (np.isfinite(boxes).all() and (np.abs(boxes) <= MAX_SIDE).all()):
        raise BadPackage(f"{path}: box coordinates above {MAX_SIDE} px")
    return [FaceBox(*row) for row in boxes.astype(int).tolist()]


def find_features(seed: SeedPackage, audio_shape: tuple[int, ...], n_frames: int) -> npt.NDArray[np.float32] | None:
    """Return the packaged features, (N, numbers). If the network takes another number, return None and add a note."""
    if seed.features is None:
        return None
    found = open_npy(seed.features)
    if not np.issubdtype(found.dtype, np.floating) or found.ndim < 2 or len(found) > MAX_FRAMES:
        raise BadPackage(f"{seed.features}: {found.dtype} of {found.shape}; expected floats of (N, numbers)")
    features = np.asarray(found, np.float32).reshape(len(found), -1)
    n_expected = int(np.prod(audio_shape)) // FEATURE_ROWS
    if features.shape[1] != n_expected:
        seed.notes.append(
            f"{FEATURES} has {features.shape[1]} numbers per frame, the network takes {n_expected}: left out"
        )
        return None
    if len(features) != n_frames:
        seed.notes.append(f"{FEATURES} has {len(features)} rows for {n_frames} frames: missing rows are zeros")
    return features


def read_cropped_frames(
    seed: SeedPackage, video: Path, boxes: Sequence[FaceBox], limits: MediaLimits | None, media: MediaOpener
) -> Iterator[CroppedFrame]:
    """Yield each frame with its box and its crop: the packaged crop if it shows the same face, else cut from the frame.

    Raises: BadPackage if a box is outside its frame, or there are more frames than boxes.
    """
    with ExitStack() as stack:
        crops = read_frames(seed.crop_video, limits, media, stack) if seed.crop_video is not None else iter(())
        for i, frame in enumerate(read_frames(video, limits, media, stack)):
            if i >= len(boxes):
                raise BadPackage(f"{seed.folder}: {video.name} has more frames than there are boxes, {len(boxes)}")
            box = boxes[i]
            height, width = frame.shape[:2]
            if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
                raise BadPackage(f"{seed.folder}: box {i}, {format_box(box)}, is outside its {width}x{height} frame")
            crop = next(crops, None)
            if crop is None or not matches_box(seed, crop, frame, box, i):
                crop, crops = None, iter(())  # from here on every crop is cut from its frame
            yield CroppedFrame(pad_to_even(frame), box, crop)


def matches_box(seed: SeedPackage, crop: Frame, frame: Frame, box: FaceBox, i: int) -> bool:
    """Return whether a packaged crop shows the contents of its box; if not, add a note."""
    assert seed.crop_video is not None
    if crop.shape[:2] != (CROP_SIDE, CROP_SIDE):
        found = f"is {crop.shape[1]}x{crop.shape[0]}, not {CROP_SIDE}x{CROP_SIDE}"
    elif (difference := float(np.abs(crop.astype(int) - cut_crop(frame, box)).mean())) > MAX_CROP_DIFFERENCE:
        found = f"differs by {difference:.0f} levels from its box"
    else:
        return True
    seed.notes.append(f"{seed.crop_video.name}: frame {i} {found}: from there on crops were cut from the video")
    return False


def read_frames(path: Path, limits: MediaLimits | None, media: MediaOpener, stack: ExitStack) -> Iterator[Frame]:
    opened = stack.enter_context(media(path, limits))
    return (frame for clip in opened.read_clips(FPS) for frame in clip.frames)


def check_declared_counts(seed: SeedPackage, n_frames: int) -> None:
    """Add a note if the package's description contradicts its contents."""
    info = read_json(seed.folder / INFO)
    videos = info.get("videos") if isinstance(info, dict) else None
    for kind, entry in videos.items() if isinstance(videos, dict) else ():
        declared = entry.get("frame_count") if isinstance(entry, dict) else None
        if isinstance(declared, int) and declared != n_frames:
            seed.notes.append(f"{INFO} declares {declared} frames of {kind}; there are {n_frames}")


def read_json(path: Path) -> Any:
    """Read a JSON file, or return None if there is no such file. Raises: BadPackage if it is invalid."""
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BadPackage(f"{path}: {path.stat().st_size} bytes; at most {MAX_MANIFEST_BYTES} expected")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as err:
        raise BadPackage(f"{path}: not JSON ({err})") from err


def format_box(box: FaceBox) -> str:
    return ",".join(str(int(value)) for value in (box.left, box.top, box.right, box.bottom))
