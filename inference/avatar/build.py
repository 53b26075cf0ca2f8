"""Building an avatar package from a video of a person talking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.audio.avatar_features import LAST_WINDOW
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
from inference.avatar.write_package import (
    FPS,
    CroppedFrame,
    atomic_package_folder,
    write_features,
    write_frames,
    write_networks,
)
from inference.errors import BadPackage, InvalidRequest, MediaTooLarge, NoFaceFound, UnsupportedMedia
from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.media import Frame, MediaLimits, MediaOpener, open_media
from inference.media.frames import pad_to_even
from inference.weights.architectures import NetworkWeights
from inference.weights.cache import sha256_of

MAX_SHARE_WITHOUT_FACE = 0.2  # of the frames; the landmarks of those without a face are interpolated
# Largest gap between lips at rest (0.006 to 0.026 in the videos tested), and its largest change, as shares of the
# crop's side.
SHUT_GAP, STILL_GAP = 0.03, 0.01
MIN_IDLE_FRAMES, MAX_IDLE_FRAMES = 10, 100  # 0.4 s, 4 s
Progress = Callable[[int], None]  # called with the number of frames processed so far


@dataclass(frozen=True)
class AvatarSource:
    """Inputs for building an avatar.

    video: a video of one person, at any frame rate. checkpoint: U-Net weights. encoder: audio encoder weights; if None,
    the deployment's encoder is used. lms: a folder with upstream's 110 landmarks of each frame; if None, Viseme's
    landmarker is used. features: (N, numbers) float32, to be spoken without audio. mode: of the checkpoint; if None,
    the mode that its shapes indicate. look_ahead: windows that the frames of these weights look ahead, -1 to 6; 6 as in
    published avatars, 1 for the starter's networks.
    Raises: InvalidRequest if the look-ahead is outside this range.
    """

    video: Path
    checkpoint: Path
    encoder: Path | None = None
    lms: Path | None = None
    features: npt.NDArray[np.float32] | None = None
    mode: str | None = None
    look_ahead: int = LAST_WINDOW

    def __post_init__(self) -> None:
        check_look_ahead(self.look_ahead)


def check_look_ahead(windows: int) -> None:
    """Raise InvalidRequest if frames of an avatar cannot look so far ahead."""
    if not -1 <= windows <= LAST_WINDOW:
        raise InvalidRequest(f"look-ahead {windows}: expected -1 to {LAST_WINDOW} windows")


def build_package(
    source: AvatarSource,
    output: Path,
    landmarker: Landmarker,
    name: str | None = None,
    limits: MediaLimits | None = None,
    media: MediaOpener = open_media,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write the package to the folder `output`, complete or not at all.

    name: by default the name of the folder. warn: called with what was changed in the frames of the video, such as HDR.
    Raises: InvalidRequest if the folder exists, MediaError (including
    NoFaceFound), WeightsError, BadPackage if the landmarks do not fit the video, StorageError.
    """
    unet, encoder = read_unet(source.checkpoint, source.mode), read_source_encoder(source)
    if encoder is not None:
        check_encoder_fits(encoder.sizes[-1], unet.sizes.audio_shape, source.checkpoint.name)
    video = SourceVideo(source.video, limits, media)
    points = track_landmarks(video.frames(), landmarker, video.name, progress)
    for warning in video.warnings:
        warn(warning)
    with atomic_package_folder(output) as folder:
        written = write_frames(folder, video.cropped_frames(choose_boxes(source, points)), video.name)
        manifest = Manifest(
            name=name or output.name,
            frames=len(written.boxes),
            width=written.width,
            height=written.height,
            mode=unet.sizes.mode,
            idle=choose_idle([mouth_gap(one) for one in points]),
            landmarks=landmarker.name if source.lms is None else "lms110",
            look_ahead_windows=source.look_ahead,
            made_from=describe_sources(source),
            files=write_networks_and_features(folder, unet, encoder, source.features),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)
    return manifest


class SourceVideo:
    """The source video, read once for landmarks and once for frames."""

    def __init__(self, video: Path, limits: MediaLimits | None, media: MediaOpener) -> None:
        self.name = video.name
        self.warnings: tuple[str, ...] = ()  # of the frames, once they are read
        self._video, self._limits, self._media = video, limits, media

    def frames(self) -> Iterator[Frame]:
        with self._media(self._video, self._limits) as opened:
            n_frames = 0
            for clip in opened.read_clips(FPS):
                n_frames += len(clip.frames)
                if n_frames > MAX_FRAMES:
                    raise MediaTooLarge(f"{self.name}: over {MAX_FRAMES} frames; that is the limit")
                yield from map(pad_to_even, clip.frames)
            self.warnings = opened.warnings

    def cropped_frames(self, boxes: Sequence[FaceBox]) -> Iterator[CroppedFrame]:
        n_frames = 0
        for frame, box in zip(self.frames(), boxes, strict=False):
            height, width = frame.shape[:2]
            yield CroppedFrame(frame, fit_box(box, width, height, f"{self.name}, frame {n_frames}"))
            n_frames += 1
        if n_frames != len(boxes):
            raise UnsupportedMedia(f"{self.name}: {n_frames} frames; {len(boxes)} when it was first read")


def track_landmarks(
    frames: Iterable[Frame], landmarker: Landmarker, name: str, progress: Progress | None = None
) -> list[Points]:
    """Return the 68 landmarks of each frame; frames without a face get interpolated ones.

    Raises: NoFaceFound if more than a fifth of the frames have no face.
    """
    tracker = FaceTracker(landmarker)
    found: list[Points | None] = []
    n_unclear = 0
    for frame in frames:
        (face,) = tracker.follow((frame,))
        found.append(None if face is None else face.points)
        n_unclear += face is None and tracker.unclear is not None
        if progress is not None:
            progress(len(found))
    n_without = sum(points is None for points in found)
    if n_without > MAX_SHARE_WITHOUT_FACE * len(found) or n_without == len(found):
        shown = f"no face, or one in profile or unclear ({n_unclear})" if n_unclear else "no face"
        raise NoFaceFound(
            f"{name}: {n_without} of {len(found)} frames show {shown}; at most {MAX_SHARE_WITHOUT_FACE:.0%} expected"
        )
    return interpolate_missing(found)


def choose_boxes(source: AvatarSource, points: Sequence[Points]) -> list[FaceBox]:
    """Return boxes from upstream's landmarks if given, else from ours. Raises: BadPackage if their number is wrong."""
    if source.lms is None:
        return [crop_box_from_landmarks(one) for one in points]
    given = read_all_lms(source.lms)
    if len(given) != len(points):
        raise BadPackage(f"{source.lms}: landmarks of {len(given)} frames; {source.video.name} has {len(points)}")
    return [crop_box_from_lms(one) for one in given]


def choose_idle(gaps: Sequence[float]) -> IdleRange:
    """Return the longest range of 0.4 to 4 s with the mouth closed and still.

    If there is none, return the first 4 s, whose mouths the network closes. gaps: between the lips, as shares of the
    crop's side.
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
    folder: Path, unet: NetworkWeights, encoder: NetworkWeights | None, features: npt.NDArray[np.float32] | None
) -> dict[str, FileInfo]:
    write_networks(folder, unet, encoder)
    if features is not None:
        write_features(folder, features)
    return describe_files(folder)


def read_source_encoder(source: AvatarSource) -> NetworkWeights | None:
    return None if source.encoder is None else read_encoder(source.encoder)


def describe_sources(source: AvatarSource) -> dict[str, str]:
    given = [source.video, source.checkpoint, *([source.encoder] if source.encoder else [])]
    return {path.name: sha256_of(path) for path in given}
