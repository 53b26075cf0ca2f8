"""Packages of the seed engine, brought into ours: both of its layouts, whatever of them is there.

Their file names and what they say of themselves differ from what is in them; what is in them counts.
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

from inference.audio.features import ROWS
from inference.avatar.build import choose_idle
from inference.avatar.compose import CROP_SIDE, cut_crop
from inference.avatar.crop_box import box_of_lms, mouth_gap, read_all_lms
from inference.avatar.crops import open_array
from inference.avatar.manifest import MAX_BYTES, MAX_FRAMES, MAX_SIDE, Idle, Manifest, describe_files, write_manifest
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.package import check_fit
from inference.avatar.write import FPS, Shot, package_folder, write_features, write_networks, write_pictures
from inference.errors import AvatarNotFound, BadPackage
from inference.faces import FaceBox
from inference.media import Frame, MediaDoor, MediaLimits, open_media
from inference.media.frames import make_even
from inference.weights.cache import sha256_of

FILMS = ("full_body_video.mp4", "full_body_576_face_enhanced.mp4")
CROP_FILMS = ("crops_328_video.mp4", "crops_328_1280x720.mp4")
BOXES = ("cache/crop_rectangles.json", "crop_rectangles.json", "crop_rects.json")
NETWORKS = (
    *("checkpoint/best_trainloss.pth", "best_trainloss.pth", "checkpoint/model_best.onnx", "model_best.onnx"),
    "models/generator.onnx",
)
ENCODERS = ("audio_visual_encoder.pth", "models/audio_encoder.onnx")
FEATURES, LMS, INFO = "aud_ave.npy", "landmarks", "package_info.json"
APART = 24.0  # levels: a film of crops that differs more from the film's own boxes, on average, is of something else


@dataclass
class Seed:
    """What there is of a seed package. notes: what in it contradicts what, and what was made of it."""

    folder: Path
    film: Path | None
    crops: Path | None
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
    media: MediaDoor = open_media,
) -> tuple[Manifest, list[str]]:
    """Write a seed package as one of ours to the folder `output`, whole or not at all.

    checkpoint, encoder: instead of those in it. Returns: the manifest, and notes on what was contradictory.
    Raises: AvatarNotFound, BadPackage naming all that is missing, InvalidRequest where `output` is there already,
    MediaError, WeightsError, StorageError.
    """
    seed = survey(source, checkpoint, encoder)
    film, network = check_whole(seed)
    unet = read_unet(network, mode)
    ear = None if seed.encoder is None else read_encoder(seed.encoder)
    if ear is not None:
        check_fit(ear.widths[-1], unet.audio_shape, source.name)
    boxes, idle = find_boxes(seed)
    features = find_features(seed, unet.audio_shape, len(boxes))
    with package_folder(output) as folder:
        written = write_pictures(folder, read_shots(seed, film, boxes, limits, media), film.name)
        if len(written.boxes) != len(boxes):
            raise BadPackage(f"{source}: {film.name} has {len(written.boxes)} frames; there are {len(boxes)} boxes")
        check_said(seed, len(boxes))
        write_networks(folder, unet, ear)
        if features is not None:
            write_features(folder, features)
        manifest = Manifest(
            name=output.name,
            frames=len(boxes),
            width=written.width,
            height=written.height,
            mode=unet.mode,  # type: ignore[arg-type]
            idle=idle,
            landmarks="lms110",
            made_from={path.name: sha256_of(path) for path in (film, network)},
            files=describe_files(folder),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)
    return manifest, seed.notes


def survey(source: Path, checkpoint: Path | None, encoder: Path | None) -> Seed:
    """Look for every part under each of its names."""
    if not source.is_dir():
        raise AvatarNotFound(f"{source}: no such folder; expected a seed package")
    info = read_json(source / INFO)
    said = info.get("videos", {}) if isinstance(info, dict) else {}
    lms = source / LMS
    seed = Seed(
        folder=source,
        film=find(source, (*named(said, "full_body_img"), *FILMS)),
        crops=find(source, (*named(said, "crops_328"), *CROP_FILMS)),
        boxes=find(source, BOXES),
        lms=lms if lms.is_dir() and any(lms.glob("*.lms")) else None,
        network=checkpoint or find(source, NETWORKS),
        encoder=encoder or find(source, ENCODERS),
        features=find(source, (FEATURES,)),
    )
    there = [name for name in NETWORKS if (source / name).is_file()]
    if checkpoint is None and len(there) > 1:
        seed.notes.append(f"of {' and '.join(there)}, {there[0]} was taken")
    return seed


def named(videos: Any, kind: str) -> tuple[str, ...]:
    """The file that the package's own description names, where that is a plain name."""
    entry = videos.get(kind) if isinstance(videos, dict) else None
    name = entry.get("video_file") if isinstance(entry, dict) else None
    return (name,) if isinstance(name, str) and Path(name).name == name else ()


def find(source: Path, names: Sequence[str]) -> Path | None:
    return next((source / name for name in names if (source / name).is_file()), None)


def check_whole(seed: Seed) -> tuple[Path, Path]:
    """The film and the network. Raises: BadPackage naming everything that is missing."""
    missing = []
    if seed.film is None:
        missing.append(f"the film of the whole picture ({' or '.join(FILMS)})")
    if seed.boxes is None and seed.lms is None:
        missing.append(f"the boxes ({' or '.join(BOXES)}, or {LMS}/*.lms)")
    if seed.network is None:
        missing.append(f"the network ({' or '.join(NETWORKS)}, or --checkpoint)")
    if missing or seed.film is None or seed.network is None:
        raise BadPackage(f"{seed.folder}: missing: {'; '.join(missing)}")
    return seed.film, seed.network


def find_boxes(seed: Seed) -> tuple[list[FaceBox], Idle]:
    """The boxes, checked against the landmarks where both are there, and the frames to be shown in silence."""
    points = read_all_lms(seed.lms) if seed.lms is not None else None
    by_lms = [box_of_lms(one) for one in points] if points is not None else None
    boxes = read_boxes(seed.boxes) if seed.boxes is not None else by_lms or []
    if by_lms is not None and len(by_lms) != len(boxes):
        seed.notes.append(f"landmarks of {len(by_lms)} frames, but {len(boxes)} boxes: the boxes count")
    elif by_lms is not None and by_lms != boxes:
        i = next(i for i, (a, b) in enumerate(zip(by_lms, boxes, strict=True)) if a != b)
        seed.notes.append(
            f"box {i} is {as_text(boxes[i])}, by its landmarks {as_text(by_lms[i])}: the boxes count "
            f"({sum(a != b for a, b in zip(by_lms, boxes, strict=True))} differ)"
        )
    if points is None or len(points) != len(boxes):
        return boxes, choose_idle([np.inf] * len(boxes))
    return boxes, choose_idle([mouth_gap(one) for one in points])


def read_boxes(path: Path) -> list[FaceBox]:
    """Of either form: a list of x1, y1, x2, y2, or objects with a "rect", by frame number. Raises: BadPackage."""
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
        raise BadPackage(f"{path}: boxes reach beyond {MAX_SIDE} px")
    return [FaceBox(*row) for row in boxes.astype(int).tolist()]


def find_features(seed: Seed, audio_shape: tuple[int, ...], n_frames: int) -> npt.NDArray[np.float32] | None:
    """The packaged features, (N, numbers); left out, with a note, where the network does not hear such ones."""
    if seed.features is None:
        return None
    found = open_array(seed.features)
    if not np.issubdtype(found.dtype, np.floating) or found.ndim < 2 or len(found) > MAX_FRAMES:
        raise BadPackage(f"{seed.features}: {found.dtype} of {found.shape}; expected floats of (N, numbers)")
    features = np.asarray(found, np.float32).reshape(len(found), -1)
    n_expected = int(np.prod(audio_shape)) // ROWS
    if features.shape[1] != n_expected:
        seed.notes.append(
            f"{FEATURES} has {features.shape[1]} numbers a frame, the network hears {n_expected}: left out"
        )
        return None
    if len(features) != n_frames:
        seed.notes.append(f"{FEATURES} has {len(features)} rows for {n_frames} frames: zeros stand for what is missing")
    return features


def read_shots(
    seed: Seed, film: Path, boxes: Sequence[FaceBox], limits: MediaLimits | None, media: MediaDoor
) -> Iterator[Shot]:
    """Each frame with its box and its crop: the package's own where it is of the same face, else cut out of the frame.

    Raises: BadPackage for a box outside its frame, or where there are more frames than boxes.
    """
    with ExitStack() as stack:
        crops = read_frames(seed.crops, limits, media, stack) if seed.crops is not None else iter(())
        for i, frame in enumerate(read_frames(film, limits, media, stack)):
            if i >= len(boxes):
                raise BadPackage(f"{seed.folder}: {film.name} has more frames than there are boxes, {len(boxes)}")
            box = boxes[i]
            height, width = frame.shape[:2]
            if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
                raise BadPackage(f"{seed.folder}: box {i}, {as_text(box)}, does not lie in its {width}x{height} frame")
            crop = next(crops, None)
            if crop is None or not is_of_box(seed, crop, frame, box, i):
                crop, crops = None, iter(())  # and from here on all are cut
            yield Shot(make_even(frame), box, crop)


def is_of_box(seed: Seed, crop: Frame, frame: Frame, box: FaceBox, i: int) -> bool:
    """Whether a crop of the package's own shows what its box shows; if not, a note says so."""
    assert seed.crops is not None
    if crop.shape[:2] != (CROP_SIDE, CROP_SIDE):
        found = f"is {crop.shape[1]}x{crop.shape[0]}, not {CROP_SIDE}x{CROP_SIDE}"
    elif (apart := float(np.abs(crop.astype(int) - cut_crop(frame, box)).mean())) > APART:
        found = f"is {apart:.0f} levels from what its box shows"
    else:
        return True
    seed.notes.append(f"{seed.crops.name}: frame {i} {found}: crops from there on were cut out of the film")
    return False


def read_frames(path: Path, limits: MediaLimits | None, media: MediaDoor, stack: ExitStack) -> Iterator[Frame]:
    opened = stack.enter_context(media(path, limits))
    return (frame for clip in opened.read_clips(FPS) for frame in clip.frames)


def check_said(seed: Seed, n_frames: int) -> None:
    """Note where the package's own description says something else than is there."""
    info = read_json(seed.folder / INFO)
    videos = info.get("videos") if isinstance(info, dict) else None
    for kind, entry in videos.items() if isinstance(videos, dict) else ():
        said = entry.get("frame_count") if isinstance(entry, dict) else None
        if isinstance(said, int) and said != n_frames:
            seed.notes.append(f"{INFO} says {said} frames of {kind}; there are {n_frames}")


def read_json(path: Path) -> Any:
    """None where there is no such file. Raises: BadPackage."""
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise BadPackage(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} expected")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as err:
        raise BadPackage(f"{path}: not JSON ({err})") from err


def as_text(box: FaceBox) -> str:
    return ",".join(str(int(value)) for value in (box.left, box.top, box.right, box.bottom))
