"""Single frames asked for by their number, as older clients do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from container.live.frame_clock import FPS
from container.live.jpeg import PATCH_QUALITY, WHOLE_QUALITY, encode_jpeg
from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.audio.features import Features
    from inference.avatar import AvatarPackage

LEGACY_RATE = 24_000  # of the sound that older clients send, in windows of 640 ms
MAX_SOUND_S = 10.0
VIDEO_TYPES = ("full_body", "face_regions", "crops_328", "rois_320", "masked_regions", "model_inputs")


@dataclass(frozen=True)
class Still:
    """A frame with the mouth that speaks, as a JPEG, and what it took; infer_ms is of the network alone.

    bounds: left, top, right, bottom of the face in the whole frame. shape: height, width, channels of the picture.
    heard: `packaged`, `request` or `silence`.
    """

    jpeg: bytes
    bounds: tuple[float, float, float, float]
    shape: tuple[int, int, int]
    heard: str
    prepare_ms: float
    infer_ms: float
    compose_ms: float


@dataclass
class Tally:
    """What one avatar, or a door, was asked for."""

    n_requests: int = 0
    total_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0

    def add(self, took_ms: float) -> None:
        self.min_ms = min(self.min_ms, took_ms) if self.n_requests else took_ms
        self.max_ms = max(self.max_ms, took_ms)
        self.n_requests += 1
        self.total_ms += took_ms

    @property
    def mean_ms(self) -> float:
        return self.total_ms / max(self.n_requests, 1)


@dataclass
class Tallies:
    """Frames made by number, by avatar; over all doors, as the engine is one."""

    of: dict[str, Tally] = field(default_factory=dict)

    def add(self, name: str, took_ms: float) -> None:
        self.of.setdefault(name, Tally()).add(took_ms)

    def read(self, name: str) -> Tally:
        return self.of.get(name, Tally())


def make_still(
    package: AvatarPackage, frame_id: int, audio: bytes | None = None, sample_rate: int = LEGACY_RATE
) -> Still:
    """Frame `frame_id` of the package while it speaks; to be called in a thread.

    audio: 16-bit little-endian mono PCM, of which the frame speaks the middle 40 ms and hears the rest around it.
    None speaks the packaged audio where there is some, else silence.
    Raises: InvalidRequest for a frame that does not exist, or sound that is none; WeightsNotFound where the package
    cannot hear.
    """
    return draw_still(package, frame_id, lambda: hear(package, frame_id, audio, sample_rate))


def draw_still(
    package: AvatarPackage, frame_id: int, listen: Callable[[], tuple[Features, str]], *, is_whole: bool = True
) -> Still:
    """The same with what `listen` gives: the features that the frame hears, (16, numbers), and whose sound that is.

    is_whole: else the region of the face's box alone, at the box's own size.
    """
    from inference.avatar.compose import compose_patch

    check_frame(package, frame_id)
    times = [time.perf_counter()]
    features, heard = listen()
    times.append(time.perf_counter())
    said = package.paint(frame_id, features)
    times.append(time.perf_counter())
    box = package.box(frame_id)
    picture = compose_patch(package.crop(frame_id), said, box)
    if is_whole:
        picture = paste(package, frame_id, picture)
    jpeg = encode_jpeg(picture, WHOLE_QUALITY if is_whole else PATCH_QUALITY)
    times.append(time.perf_counter())
    prepare_ms, infer_ms, compose_ms = ((b - a) * 1000 for a, b in pairwise(times))
    bounds = (float(box.left), float(box.top), float(box.right), float(box.bottom))
    height, width, n_channels = picture.shape
    return Still(jpeg, bounds, (height, width, n_channels), heard, prepare_ms, infer_ms, compose_ms)


def check_frame(package: AvatarPackage, frame_id: int) -> None:
    if not 0 <= frame_id < package.n_frames:
        raise InvalidRequest(f"frame {frame_id} of {package.name}: expected 0 to {package.n_frames - 1}")


def paste(package: AvatarPackage, frame_id: int, patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from inference.faces.paste import overwrite_face

    whole: npt.NDArray[np.uint8] = overwrite_face(package.background(frame_id), patch, package.box(frame_id))
    return whole


def hear(package: AvatarPackage, frame_id: int, audio: bytes | None, sample_rate: int) -> tuple[Features, str]:
    """What the frame hears, (16, numbers), and whose sound that is."""
    if audio:
        return hear_middle(package, to_samples(audio, sample_rate), sample_rate), "request"
    if package.packaged_features is not None:
        return package.features_at(frame_id), "packaged"
    return hear_middle(package, np.zeros(0, np.int16), sample_rate), "silence"


def to_samples(audio: bytes, sample_rate: int) -> npt.NDArray[np.int16]:
    if len(audio) % 2 or len(audio) > 2 * sample_rate * MAX_SOUND_S:
        raise InvalidRequest(
            f"audio of {len(audio)} bytes; expected 16-bit mono PCM at {sample_rate} Hz, {MAX_SOUND_S:g} s at most"
        )
    return np.frombuffer(audio, "<i2").astype(np.int16)


def hear_middle(package: AvatarPackage, samples: npt.NDArray[np.int16], sample_rate: int) -> Features:
    """What the middle 40 ms of the sound hear: of 16 stretches of 40 ms the ninth, as upstream counts them."""
    from inference.audio import SAMPLE_RATE, Resampler, Tape
    from inference.audio.features import reach_of_window, windows_of_frame

    resampler, tape = Resampler(sample_rate), Tape()
    tape.append(resampler.push(samples))
    tape.append(resampler.finish())
    middle = tape.end * FPS // SAMPLE_RATE // 2
    return np.stack([package.hear(tape.read(*reach_of_window(k))) for k in windows_of_frame(middle)])


def make_video_frame(package: AvatarPackage, frame_id: int, video_type: str) -> bytes:
    """A frame of what was filmed, as a JPEG, the mouth as it was.

    video_type: `full_body` the whole frame; `crops_328`, or `face_regions`, the crop of 328 px; `rois_320` what the
    network sees of it; `model_inputs`, or `masked_regions`, that with the mouth hidden. Raises: InvalidRequest.
    """
    from inference.avatar.compose import cut_face

    check_frame(package, frame_id)
    if video_type == "full_body":
        return encode_jpeg(package.background(frame_id), WHOLE_QUALITY)
    if video_type in ("crops_328", "face_regions"):
        return encode_jpeg(package.crop(frame_id), WHOLE_QUALITY)
    if video_type == "rois_320":
        return encode_jpeg(cut_face(package.crop(frame_id)), WHOLE_QUALITY)
    if video_type in ("model_inputs", "masked_regions"):
        return encode_jpeg(hide_mouth(package.crop(frame_id)), WHOLE_QUALITY)
    raise InvalidRequest(f"video_type {video_type[:40]!r}; expected {', '.join(VIDEO_TYPES)}")


def hide_mouth(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(320, 320, 3) of a crop of 328: the second picture that the network is given."""
    from inference.avatar.compose import cut_face
    from inference.models.avatar_unet import MASKED_COLUMNS, MASKED_ROWS

    face = cut_face(crop).copy()
    face[MASKED_ROWS, MASKED_COLUMNS] = 0
    return face
