"""From a film of somebody talking to an avatar package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.avatar.crop_box import (
    Points,
    box_of_landmarks,
    box_of_lms,
    fill_gaps,
    fit_box,
    mouth_gap,
    read_all_lms,
)
from inference.avatar.manifest import MAX_FRAMES, FileInfo, Idle, Manifest, describe_files, write_manifest
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.package import check_fit
from inference.avatar.write import FPS, Shot, package_folder, write_features, write_networks, write_pictures
from inference.errors import BadPackage, MediaTooLarge, NoFaceFound, UnsupportedMedia
from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.media import Frame, MediaDoor, MediaLimits, open_media
from inference.media.frames import make_even
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.weights.cache import sha256_of

MOST_WITHOUT_FACE = 0.2  # of the frames: what lies between others is filled in
# Of the crop's side: lips at rest are less than this apart (0.006 to 0.026 in films at hand), and stay so.
SHUT_GAP, STILL_GAP = 0.03, 0.01
LEAST_IDLE, MOST_IDLE = 10, 100  # frames
Progress = Callable[[int], None]  # called with the number of frames looked at so far


@dataclass(frozen=True)
class Sitting:
    """What an avatar is built from.

    video: a film of one person, at any rate. checkpoint: a U-Net's weights. encoder: those of the network that hears;
    None leaves new speech to the encoder that the deployment has. lms: a folder with upstream's 110 landmarks of each
    frame; None: our own are found. features: (N, numbers) float32, to be spoken without sound. mode: of the
    checkpoint; None takes what its shapes tell.
    """

    video: Path
    checkpoint: Path
    encoder: Path | None = None
    lms: Path | None = None
    features: npt.NDArray[np.float32] | None = None
    mode: str | None = None


def build_package(
    sitting: Sitting,
    output: Path,
    landmarker: Landmarker,
    name: str | None = None,
    limits: MediaLimits | None = None,
    media: MediaDoor = open_media,
    progress: Progress | None = None,
) -> Manifest:
    """Write the package to the folder `output`, whole or not at all.

    name: None for that of the folder. Raises: InvalidRequest where the folder is there already, MediaError (below it
    NoFaceFound), WeightsError, BadPackage for landmarks that do not fit the film, StorageError.
    """
    unet, encoder = read_unet(sitting.checkpoint, sitting.mode), read_ear(sitting)
    if encoder is not None:
        check_fit(encoder.widths[-1], unet.audio_shape, sitting.checkpoint.name)
    film = Film(sitting.video, limits, media)
    points = find_points(film.frames(), landmarker, film.name, progress)
    with package_folder(output) as folder:
        written = write_pictures(folder, film.shots(choose_boxes(sitting, points)), film.name)
        manifest = Manifest(
            name=name or output.name,
            frames=len(written.boxes),
            width=written.width,
            height=written.height,
            mode=unet.mode,  # type: ignore[arg-type]
            idle=choose_idle([mouth_gap(one) for one in points]),
            landmarks=landmarker.name if sitting.lms is None else "lms110",
            made_from=describe_sources(sitting),
            files=complete(folder, unet, encoder, sitting.features),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)
    return manifest


class Film:
    """The film that an avatar is built from, read once for its landmarks and once for its pictures."""

    def __init__(self, video: Path, limits: MediaLimits | None, media: MediaDoor) -> None:
        self.name = video.name
        self._video, self._limits, self._media = video, limits, media

    def frames(self) -> Iterator[Frame]:
        with self._media(self._video, self._limits) as opened:
            n_frames = 0
            for clip in opened.read_clips(FPS):
                n_frames += len(clip.frames)
                if n_frames > MAX_FRAMES:
                    raise MediaTooLarge(f"{self.name}: over {MAX_FRAMES} frames; that is the limit")
                yield from map(make_even, clip.frames)

    def shots(self, boxes: Sequence[FaceBox]) -> Iterator[Shot]:
        n_frames = 0
        for frame, box in zip(self.frames(), boxes, strict=False):
            height, width = frame.shape[:2]
            yield Shot(frame, fit_box(box, width, height, f"{self.name}, frame {n_frames}"))
            n_frames += 1
        if n_frames != len(boxes):
            raise UnsupportedMedia(f"{self.name}: {n_frames} frames; {len(boxes)} when it was read first")


def find_points(
    frames: Iterable[Frame], landmarker: Landmarker, name: str, progress: Progress | None = None
) -> list[Points]:
    """The 68 landmarks of each frame; those of frames without a face lie between their neighbours'.

    Raises: NoFaceFound where more than a fifth have none.
    """
    tracker = FaceTracker(landmarker)
    found: list[Points | None] = []
    for frame in frames:
        (face,) = tracker.follow((frame,))
        found.append(None if face is None else face.points)
        if progress is not None:
            progress(len(found))
    n_without = sum(points is None for points in found)
    if n_without > MOST_WITHOUT_FACE * len(found) or n_without == len(found):
        raise NoFaceFound(
            f"{name}: {n_without} of {len(found)} frames show no face; at most {MOST_WITHOUT_FACE:.0%} expected"
        )
    return fill_gaps(found)


def choose_boxes(sitting: Sitting, points: Sequence[Points]) -> list[FaceBox]:
    """By upstream's landmarks where they are given, else by ours. Raises: BadPackage where there are not as many."""
    if sitting.lms is None:
        return [box_of_landmarks(one) for one in points]
    given = read_all_lms(sitting.lms)
    if len(given) != len(points):
        raise BadPackage(f"{sitting.lms}: landmarks of {len(given)} frames; {sitting.video.name} has {len(points)}")
    return [box_of_lms(one) for one in given]


def choose_idle(gaps: Sequence[float]) -> Idle:
    """The longest stretch with the mouth shut and still, of 0.4 to 4 s; the first 4 s, to be shut by the network, where
    there is none.

    gaps: between the lips, as shares of the crop's side.
    """
    first, n_shut, start = 0, 0, 0
    for i, gap in enumerate(gaps):
        if gap >= SHUT_GAP:
            start = i + 1
            continue
        while max(gaps[start : i + 1]) - min(gaps[start : i + 1]) > STILL_GAP or i - start >= MOST_IDLE:
            start += 1
        if i + 1 - start > n_shut:
            first, n_shut = start, i + 1 - start
    if n_shut < LEAST_IDLE:
        return Idle(first=0, last=min(len(gaps), MOST_IDLE) - 1, is_shut=False)
    return Idle(first=first, last=first + n_shut - 1, is_shut=True)


def complete(
    folder: Path, unet: AvatarUNet, encoder: AudioVisualEncoder | None, features: npt.NDArray[np.float32] | None
) -> dict[str, FileInfo]:
    write_networks(folder, unet, encoder)
    if features is not None:
        write_features(folder, features)
    return describe_files(folder)


def read_ear(sitting: Sitting) -> AudioVisualEncoder | None:
    return None if sitting.encoder is None else read_encoder(sitting.encoder)


def describe_sources(sitting: Sitting) -> dict[str, str]:
    given = [sitting.video, sitting.checkpoint, *([sitting.encoder] if sitting.encoder else [])]
    return {path.name: sha256_of(path) for path in given}
