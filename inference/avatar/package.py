"""An avatar package: loaded from disk once, shared by all of its sessions."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from inference.audio.avatar_features import FEATURE_ROWS, Features, mel_of_window, rows_of_frame, sample_range_of_window
from inference.audio.mel import Samples
from inference.avatar import manifest as files
from inference.avatar.catalogue import find_encoder, find_folder, find_starter, is_starter
from inference.avatar.compose import CROP_SIDE, compose_patch, cut_face
from inference.avatar.crops import CropArray, open_npy
from inference.avatar.manifest import IdleRange, Manifest, check_files, read_manifest
from inference.avatar.mattes import Matte, MatteArchive
from inference.avatar.network import make_audio_encoder, make_generator, read_encoder, read_unet
from inference.avatar.session import MAX_QUEUED_S, AvatarSession
from inference.avatar.starter import discard
from inference.avatar.timed_frame import TimedFrame
from inference.avatar.utterance import FeatureRow
from inference.backends import Device, choose_device
from inference.backends.batching import BatchingNetwork, Network
from inference.errors import BadPackage, InvalidRequest, WeightsNotFound
from inference.faces import FaceBox
from inference.faces.paste import overwrite_face, slices_of
from inference.malloc_trim import trim_heap
from inference.media import Frame
from inference.media.frame_reader import FrameReader
from inference.settings import Settings

MAX_SILENT_PATCHES = 128  # cached; 5 s of idle frames
MISSING_ENCODER = (
    "{name}: contains no audio encoder, so it can speak only its packaged features; build it with --encoder "
    "audio_visual_encoder.pth (from SyncTalk_2D), or put that file into SM_MODEL_DIR or {cache}"
)
UNSUPPORTED_MODE = (
    "{name}: takes {mode} features, which Viseme cannot compute from audio; it can speak only given features"
)


@dataclass(frozen=True)
class PackageParts:
    """The opened parts of a package. audio_encoder: None if it cannot speak new audio."""

    crops: CropArray  # (N, 328, 328, 3)
    reader: FrameReader
    device: str  # cpu or cuda
    generator: Network
    audio_shape: tuple[int, ...]
    audio_encoder: BatchingNetwork | None
    missing_encoder_message: str  # error text if there is no audio encoder
    features: Features | None
    mattes: MatteArchive | None = None


class AvatarPackage:
    """A loaded avatar package.

    Immutable: sessions in any number of threads may share it. Close it when no session uses it any more.
    """

    def __init__(self, manifest: Manifest, parts: PackageParts) -> None:
        self._manifest, self._parts = manifest, parts
        self.name, self.n_frames, self.fps = manifest.name, manifest.frames, float(manifest.fps)
        self.width, self.height, self.mode = manifest.width, manifest.height, manifest.mode
        self.audio_shape, self.device = parts.audio_shape, parts.device
        self.packaged_features = parts.features
        self._silent_patches: LRUCache[int, Frame] = LRUCache(MAX_SILENT_PATCHES)
        self._silent_lock = threading.Lock()
        self._silence_features: FeatureRow | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        settings: Settings | None = None,
        *,
        is_shared: bool = False,
    ) -> AvatarPackage:
        """Load the package in that folder, or of that name in VISEME_AVATARS; `starter` is the bundled one.

        is_shared: whether several frames are rendered at the same time, as by a server; see `make_generator`.

        Raises: AvatarNotFound, BadPackage, WrongWeights, InvalidRequest, DeviceUnavailable, StorageError.
        """
        settings = settings or Settings.from_env()
        folder = find_folder(path, settings)
        chosen = choose_device(device, precision, settings.engine)
        try:
            return cls._open(folder, chosen, settings, is_shared=is_shared)
        except BadPackage:
            if not is_starter(folder, settings):
                raise
        discard(folder)  # it was generated here, and is generated again
        return cls._open(find_starter(settings), chosen, settings, is_shared=is_shared)

    @classmethod
    def _open(cls, folder: Path, chosen: Device, settings: Settings, *, is_shared: bool) -> AvatarPackage:
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        unet = read_unet(folder / files.NETWORK, manifest.mode)
        encoder = find_encoder(folder, manifest, settings)
        if encoder is not None:
            check_encoder_fits(read_encoder(encoder).sizes[-1], unet.sizes.audio_shape, manifest.name)
        cache, compiled = settings.weights_cache / "ave", settings.weight_sources.compiled
        missing_encoder_message = (MISSING_ENCODER if manifest.mode == "ave" else UNSUPPORTED_MODE).format(
            name=manifest.name, mode=manifest.mode, cache=cache
        )
        parts = PackageParts(
            crops=CropArray(folder / files.CROPS, (manifest.frames, CROP_SIDE, CROP_SIDE, 3)),
            reader=open_background(folder, manifest),
            device=chosen.name,
            generator=make_generator(
                unet, chosen, compiled=compiled, max_batch=settings.session_batch, is_shared=is_shared
            ),
            audio_shape=unet.sizes.audio_shape,
            audio_encoder=make_audio_encoder(read_encoder(encoder), chosen, compiled) if encoder is not None else None,
            missing_encoder_message=missing_encoder_message,
            features=open_features(folder, manifest, unet.sizes.audio_shape),
            mattes=open_mattes(folder, manifest),
        )
        del unet  # the graph has its own copy of the weights; release this one
        trim_heap()
        return cls(manifest, parts)

    @property
    def idle(self) -> IdleRange:
        return self._manifest.idle

    @property
    def look_ahead_windows(self) -> int:
        """Windows of audio that a frame looks ahead; the rest of the 16 are before."""
        return self._manifest.look_ahead_windows

    @property
    def accepts_audio(self) -> bool:
        """Whether it can speak new audio."""
        return self._parts.audio_encoder is not None

    @property
    def has_mattes(self) -> bool:
        """Whether its frames can be shown without their background."""
        return self._parts.mattes is not None

    def describe(self) -> dict[str, Any]:
        """Return plain values for JSON; of the boxes only their smallest and largest side."""
        plain = self._manifest.model_dump(mode="json", exclude={"boxes"})
        sides = [right - left for left, _, right, _ in self._manifest.boxes]
        features = None if self.packaged_features is None else list(self.packaged_features.shape)
        return plain | {
            "box_sides": [min(sides), max(sides)],
            "audio_shape": list(self.audio_shape),
            "packaged_features": features,
            "can_hear": self.accepts_audio,
        }

    def box(self, i: int) -> FaceBox:
        """Return the face box of frame i, in whole pixels."""
        return self._manifest.box(i)

    def crop(self, i: int) -> Frame:
        """Return the crop of frame i: (328, 328, 3) uint8 BGR, a read-only view of the memory-mapped file."""
        return self._parts.crops[i]

    def background(self, i: int) -> Frame:
        """Decode frame i, unless it is cached: (H, W, 3) uint8 BGR. Do not write to it."""
        return self._parts.reader.read(i)

    def matte(self, i: int) -> Matte:
        """Return how much of each pixel of frame i is the person: (H, W) uint8. Raises: InvalidRequest if unknown."""
        if self._parts.mattes is None:
            raise InvalidRequest(
                f"{self.name}: has no mattes; expected an avatar with {files.MATTES}, such as the starter"
            )
        return self._parts.mattes.read(i)

    def region(self, i: int) -> Frame:
        """Return the contents of the box in frame i: (h, w, 3) uint8 BGR."""
        return np.ascontiguousarray(self.background(i)[slices_of(self.box(i))])

    def compose_frame(self, timed: TimedFrame) -> Frame:
        """Paste a timed frame's patch into its background frame: (H, W, 3) uint8 BGR."""
        return overwrite_face(self.background(timed.background), timed.patch, timed.box)

    def generate(self, i: int, features: npt.ArrayLike) -> Frame:
        """Run the generator on frame i: (320, 320, 3) uint8 BGR, not composed. features: see `render`."""
        values = np.asarray(features, np.float32)
        if values.size != math.prod(self.audio_shape):
            raise InvalidRequest(
                f"{values.size} audio feature values; {self.name} takes {math.prod(self.audio_shape)}, "
                f"as {' x '.join(map(str, self.audio_shape))}"
            )
        face = np.ascontiguousarray(cut_face(self.crop(i)))
        (generated,) = self._parts.generator(face[None], values.reshape(1, *self.audio_shape))
        return np.asarray(generated[0], np.uint8)

    def render(self, i: int, features: npt.ArrayLike) -> Frame:
        """Render the box region of frame i with the generated mouth: (h, w, 3) uint8 BGR, at the box's size.

        features: float32 of `audio_shape`, or of any shape with as many values; in mode ave the 16 rows of a frame,
        (16, 512).

        Raises: InvalidRequest if the number of values is wrong, IndexError if the frame does not exist.
        """
        patch = compose_patch(self.crop(i), self.generate(i, features), self.box(i), self._manifest.feather)
        self._parts.crops.release(i)
        return patch

    def features_at(self, i: int) -> Features:
        """Return the packaged features of frame i: (16, numbers). Raises: InvalidRequest if there are none."""
        if self.packaged_features is None:
            raise InvalidRequest(f"{self.name}: contains no packaged audio features; send audio with the request")
        return rows_of_frame(self.packaged_features, i)

    def encode_audio(self, window: Samples) -> FeatureRow:
        """Return the features of one window: (numbers,) float32. window: its 3,801 samples, int16 at 16 kHz."""
        if self._parts.audio_encoder is None:
            raise WeightsNotFound(self._parts.missing_encoder_message)
        if not window.any():
            return self.encode_silence()
        return np.asarray(self._parts.audio_encoder(mel_of_window(window)[None, None])[0][0])

    def encode_silence(self) -> FeatureRow:
        """Return the features of a silent window."""
        if self._silence_features is None:
            if self._parts.audio_encoder is None:
                raise WeightsNotFound(self._parts.missing_encoder_message)
            low, high = sample_range_of_window(0)
            mel = mel_of_window(np.zeros(high - low, np.int16))
            self._silence_features = np.asarray(self._parts.audio_encoder(mel[None, None])[0][0])
        return self._silence_features

    def silent_patch(self, i: int) -> Frame:
        """Return the box region of frame i with the mouth closed: unchanged if it is closed there, else generated."""
        idle = self.idle
        if idle.is_shut and idle.first <= i <= idle.last:
            return self.region(i)
        with self._silent_lock:
            patch = self._silent_patches.get(i)
        if patch is None:
            patch = self.render(i, np.tile(self.encode_silence(), (FEATURE_ROWS, 1)))
            patch.flags.writeable = False
            with self._silent_lock:
                self._silent_patches[i] = patch
        return patch

    def session(self, sample_rate: int = 16_000, max_queued_s: float = MAX_QUEUED_S) -> AvatarSession:
        """Start a session. sample_rate: of the audio that will be pushed.

        Raises: InvalidRequest if the sample rate is not supported, WeightsNotFound if there is no audio encoder.
        """
        if not self.accepts_audio:
            raise WeightsNotFound(self._parts.missing_encoder_message)
        return AvatarSession(self, sample_rate, max_queued_s)

    def close(self) -> None:
        """Close the background video; no frame of it can be read afterwards."""
        self._parts.reader.close()
        if self._parts.mattes is not None:
            self._parts.mattes.close()


def open_mattes(folder: Path, manifest: Manifest) -> MatteArchive | None:
    if files.MATTES not in manifest.files:
        return None
    return MatteArchive(folder / files.MATTES, manifest.frames, manifest.width, manifest.height)


def open_features(folder: Path, manifest: Manifest, audio_shape: tuple[int, ...]) -> Features | None:
    if files.FEATURES not in manifest.files:
        return None
    features = open_npy(folder / files.FEATURES)
    n_numbers = math.prod(audio_shape) // FEATURE_ROWS
    if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != n_numbers:
        raise BadPackage(
            f"{folder / files.FEATURES}: {features.dtype} of {features.shape}; expected float32 of (N, {n_numbers})"
        )
    return features


def open_background(folder: Path, manifest: Manifest) -> FrameReader:
    reader = FrameReader(folder / files.BACKGROUND)
    found = (len(reader), reader.video.width, reader.video.height)
    expected = (manifest.frames, manifest.width, manifest.height)
    if found != expected:
        reader.close()
        raise BadPackage(
            f"{folder / files.BACKGROUND}: {found[0]} frames of {found[1]}x{found[2]}; "
            f"expected {expected[0]} of {expected[1]}x{expected[2]}"
        )
    return reader


def check_encoder_fits(n_features: int, audio_shape: tuple[int, ...], name: str) -> None:
    if n_features * FEATURE_ROWS != math.prod(audio_shape):
        raise BadPackage(
            f"{name}: the audio encoder returns {n_features} features, so {n_features * FEATURE_ROWS} in "
            f"{FEATURE_ROWS} rows; the network takes {math.prod(audio_shape)}"
        )
