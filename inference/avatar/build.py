"""From a film of somebody talking to an avatar package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.avatar.crop_box import (
    Points,
    crop_box_from_landmarks,
    crop_box_from_lms,
    fit_box,
    interpolate_missing,
    mouth_gap,
    read_all_lms,
)
from inference.avatar.manifest import MAX_FRAMES, FileInfo, IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.package import check_encoder_fits
from inference.avatar.write import (
    FPS,
    CroppedFrame,
    atomic_package_folder,
    write_features,
    write_frames,
    write_networks,
)
from inference.errors import BadPackage, MediaTooLarge, NoFaceFound, UnsupportedMedia
from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.media import Frame, MediaDoor, MediaLimits, open_media
from inference.media.frames import make_even
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.weights.cache import sha256_of

MAX_SHARE_WITHOUT_FACE = 0.2  # of the frames: what lies between others is filled in
# Of the crop's side: lips at rest are less than this apart (0.006 to 0.026 in films at hand), and stay so.
SHUT_GAP, STILL_GAP = 0.03, 0.01
MIN_IDLE_FRAMES, MAX_IDLE_FRAMES = 10, 100  # frames
Progress = Callable[[int], None]  # called with the number of frames looked at so far


@dataclass(frozen=True)
class AvatarSource:
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
    source: AvatarSource,
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
    unet, encoder = read_unet(source.checkpoint, source.mode), read_source_encoder(source)
    if encoder is not None:
        check_encoder_fits(encoder.widths[-1], unet.audio_shape, source.checkpoint.name)
    video = SourceVideo(source.video, limits, media)
    points = track_landmarks(video.frames(), landmarker, video.name, progress)
    with atomic_package_folder(output) as folder:
        written = write_frames(folder, video.cropped_frames(choose_boxes(source, points)), video.name)
        manifest = Manifest(
            name=name or output.name,
            frames=len(written.boxes),
            width=written.width,
            height=written.height,
            mode=unet.mode,  # type: ignore[arg-type]
            idle=choose_idle([mouth_gap(one) for one in points]),
            landmarks=landmarker.name if source.lms is None else "lms110",
            made_from=describe_sources(source),
            files=write_networks_and_features(folder, unet, encoder, source.features),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)
    return manifest


class SourceVideo:
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

    def cropped_frames(self, boxes: Sequence[FaceBox]) -> Iterator[CroppedFrame]:
        n_frames = 0
        for frame, box in zip(self.frames(), boxes, strict=False):
            height, width = frame.shape[:2]
            yield CroppedFrame(frame, fit_box(box, width, height, f"{self.name}, frame {n_frames}"))
            n_frames += 1
        if n_frames != len(boxes):
            raise UnsupportedMedia(f"{self.name}: {n_frames} frames; {len(boxes)} when it was read first")


def track_landmarks(
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
    if n_without > MAX_SHARE_WITHOUT_FACE * len(found) or n_without == len(found):
        raise NoFaceFound(
            f"{name}: {n_without} of {len(found)} frames show no face; at most {MAX_SHARE_WITHOUT_FACE:.0%} expected"
        )
    return interpolate_missing(found)


def choose_boxes(source: AvatarSource, points: Sequence[Points]) -> list[FaceBox]:
    """By upstream's landmarks where they are given, else by ours. Raises: BadPackage where there are not as many."""
    if source.lms is None:
        return [crop_box_from_landmarks(one) for one in points]
    given = read_all_lms(source.lms)
    if len(given) != len(points):
        raise BadPackage(f"{source.lms}: landmarks of {len(given)} frames; {source.video.name} has {len(points)}")
    return [crop_box_from_lms(one) for one in given]


def choose_idle(gaps: Sequence[float]) -> IdleRange:
    """The longest stretch with the mouth shut and still, of 0.4 to 4 s; the first 4 s, to be shut by the network, where
    there is none.

    gaps: between the lips, as shares of the crop's side.
    """
    first, n_shut, start = 0, 0, 0
    for i, gap in enumerate(gaps):
        if gap >= SHUT_GAP:
            start = i + 1
            continue
        while max(gaps[start : i + 1]) - min(gaps[start : i + 1]) > STILL_GAP or i - start >= MAX_IDLE_FRAMES:
            start += 1
        if i + 1 - start > n_shut:
            first, n_shut = start, i + 1 - start
    if n_shut < MIN_IDLE_FRAMES:
        return IdleRange(first=0, last=min(len(gaps), MAX_IDLE_FRAMES) - 1, is_shut=False)
    return IdleRange(first=first, last=first + n_shut - 1, is_shut=True)


def write_networks_and_features(
    folder: Path, unet: AvatarUNet, encoder: AudioVisualEncoder | None, features: npt.NDArray[np.float32] | None
) -> dict[str, FileInfo]:
    write_networks(folder, unet, encoder)
    if features is not None:
        write_features(folder, features)
    return describe_files(folder)


def read_source_encoder(source: AvatarSource) -> AudioVisualEncoder | None:
    return None if source.encoder is None else read_encoder(source.encoder)


def describe_sources(source: AvatarSource) -> dict[str, str]:
    given = [source.video, source.checkpoint, *([source.encoder] if source.encoder else [])]
    return {path.name: sha256_of(path) for path in given}
