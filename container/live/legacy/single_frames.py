"""Single frames requested by number, as older clients do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from container.live.frame_clock import FPS
from container.live.jpeg import PATCH_QUALITY, WHOLE_QUALITY, encode_jpeg, encode_webp
from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.audio.avatar_features import Features
    from inference.avatar import AvatarPackage

LEGACY_SAMPLE_RATE = 24_000  # Hz; older clients send audio at this rate, in windows of 640 ms
MAX_AUDIO_S = 10.0
VIDEO_TYPES = ("full_body", "face_regions", "crops_328", "rois_320", "masked_regions", "model_inputs")


@dataclass(frozen=True)
class NumberedFrame:
    """A rendered frame as JPEG, and how long it took. infer_ms is the time of the network alone.

    bounds: left, top, right, bottom of the face, in pixels of the whole frame.
    shape: height, width, channels of the JPEG.
    audio_source: `packaged`, `request` or `silence`.
    """

    jpeg: bytes
    bounds: tuple[float, float, float, float]
    shape: tuple[int, int, int]
    audio_source: str
    prepare_ms: float
    infer_ms: float
    compose_ms: float


@dataclass
class LatencyStats:
    """Statistics of the network's time per frame, in milliseconds."""

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
class LatencyByAvatar:
    """Statistics of single frames by avatar, over all protocols, because they share the network."""

    by_name: dict[str, LatencyStats] = field(default_factory=dict)

    def add(self, name: str, took_ms: float) -> None:
        self.by_name.setdefault(name, LatencyStats()).add(took_ms)

    def get(self, name: str) -> LatencyStats:
        return self.by_name.get(name, LatencyStats())


def render_frame_with_audio(
    package: AvatarPackage, frame_id: int, audio: bytes | None = None, sample_rate: int = LEGACY_SAMPLE_RATE
) -> NumberedFrame:
    """Render frame `frame_id` of the package, speaking. Call it in a thread.

    audio: int16 little-endian mono PCM. The frame speaks its middle 40 ms; the rest is context. None speaks the
    packaged audio features, or silence if the package has none.
    Raises: InvalidRequest if the frame does not exist or the audio is invalid, WeightsNotFound if the package has no
    audio encoder.
    """
    return render_frame(package, frame_id, lambda: features_for(package, frame_id, audio, sample_rate))


def render_frame(
    package: AvatarPackage,
    frame_id: int,
    get_features: Callable[[], tuple[Features, str]],
    *,
    is_whole: bool = True,
) -> NumberedFrame:
    """Render frame `frame_id` of the package from audio features.

    get_features: returns the (16, n_features) features and their source.
    is_whole: False renders the box of the face alone, at its own size.
    Raises: InvalidRequest if the frame does not exist, and the errors of `get_features`.
    """
    from inference.avatar.compose import compose_patch

    check_frame(package, frame_id)
    times = [time.perf_counter()]
    features, audio_source = get_features()
    times.append(time.perf_counter())
    face = package.generate(frame_id, features)
    times.append(time.perf_counter())
    box = package.box(frame_id)
    image = compose_patch(package.crop(frame_id), face, box)
    if is_whole:
        image = paste_patch(package, frame_id, image)
    jpeg = encode_jpeg(image, WHOLE_QUALITY if is_whole else PATCH_QUALITY)
    times.append(time.perf_counter())
    prepare_ms, infer_ms, compose_ms = ((b - a) * 1000 for a, b in pairwise(times))
    bounds = (float(box.left), float(box.top), float(box.right), float(box.bottom))
    height, width, n_channels = image.shape
    return NumberedFrame(jpeg, bounds, (height, width, n_channels), audio_source, prepare_ms, infer_ms, compose_ms)


def check_frame(package: AvatarPackage, frame_id: int) -> None:
    """Check that a frame exists. Raises: InvalidRequest."""
    if not 0 <= frame_id < package.n_frames:
        raise InvalidRequest(f"frame {frame_id} of {package.name}: expected 0 to {package.n_frames - 1}")


def paste_patch(package: AvatarPackage, frame_id: int, patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the background frame with the patch in its box: (H, W, 3) uint8 BGR."""
    from inference.faces.paste import overwrite_face

    whole: npt.NDArray[np.uint8] = overwrite_face(package.background(frame_id), patch, package.box(frame_id))
    return whole


def features_for(package: AvatarPackage, frame_id: int, audio: bytes | None, sample_rate: int) -> tuple[Features, str]:
    """Return the (16, n_features) audio features of a frame, and their source."""
    if audio:
        return encode_centre_window(package, decode_pcm(audio, sample_rate), sample_rate), "request"
    if package.packaged_features is not None:
        return package.features_at(frame_id), "packaged"
    return encode_centre_window(package, np.zeros(0, np.int16), sample_rate), "silence"


def decode_pcm(audio: bytes, sample_rate: int) -> npt.NDArray[np.int16]:
    """Return audio as an (n,) int16 array. Raises: InvalidRequest if it is no int16 PCM or too long."""
    if len(audio) % 2 or len(audio) > 2 * sample_rate * MAX_AUDIO_S:
        raise InvalidRequest(
            f"audio of {len(audio)} bytes; expected 16-bit mono PCM at {sample_rate} Hz, at most {MAX_AUDIO_S:g} s"
        )
    return np.frombuffer(audio, "<i2").astype(np.int16)


def encode_centre_window(package: AvatarPackage, samples: npt.NDArray[np.int16], sample_rate: int) -> Features:
    """Return the audio features of the middle 40 ms: of 16 spans of 40 ms the ninth, as upstream counts them."""
    from inference.audio import SAMPLE_RATE, Resampler, SampleBuffer
    from inference.audio.avatar_features import sample_range_of_window, windows_of_frame

    resampler, buffer = Resampler(sample_rate), SampleBuffer()
    buffer.append(resampler.push(samples))
    buffer.append(resampler.finish())
    middle = buffer.end * FPS // SAMPLE_RATE // 2
    windows = windows_of_frame(middle, package.look_ahead_windows)
    return np.stack([package.encode_audio(buffer.read(*sample_range_of_window(k))) for k in windows])


def encode_transparent_frame(package: AvatarPackage, frame_id: int) -> bytes:
    """Encode a frame of the source video as WebP without its background. Raises: InvalidRequest."""
    check_frame(package, frame_id)
    return encode_webp(package.background(frame_id), package.matte(frame_id))


def encode_video_frame(package: AvatarPackage, frame_id: int, video_type: str) -> bytes:
    """Encode a frame of the source video as JPEG, with its original mouth.

    video_type: `full_body` for the whole frame; `crops_328` or `face_regions` for the 328 px crop; `rois_320` for the
    part of the crop that the network gets; `model_inputs` or `masked_regions` for that part with the mouth masked.
    Raises: InvalidRequest if the frame or the video type does not exist.
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
        return encode_jpeg(mask_mouth(package.crop(frame_id)), WHOLE_QUALITY)
    raise InvalidRequest(f"video_type {video_type[:40]!r}; expected {', '.join(VIDEO_TYPES)}")


def mask_mouth(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the network's masked input: (320, 320, 3) uint8 BGR, cut from a 328 px crop."""
    from inference.avatar.compose import cut_face
    from inference.dimensions.avatar import MASKED_COLUMNS, MASKED_ROWS

    face = cut_face(crop).copy()
    face[MASKED_ROWS, MASKED_COLUMNS] = 0
    return face
