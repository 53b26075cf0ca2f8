"""Cache of face boxes: detection takes much of the time, and the same video is often synced to several audio files."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.lip_sync.locate import FaceLocator, LocatedFace
from inference.lip_sync.options import SmoothingMode, SyncOptions
from inference.lip_sync.preprocess import SMOOTHING_REACH, SMOOTHING_WINDOW
from inference.media import Frame, MediaLimits, Source
from inference.weights.cache import atomic_public_file, sha256_of
from inference.weights.registry import MEDIAPIPE

logger = logging.getLogger("viseme.sync")

MAX_BYTES = 64 << 20  # bytes of all files together: some 13 hours of video
MAX_TRACK_BYTES = 16 << 20  # bytes of one file: no video within the limits has so many frames
CACHE_VERSION = "3"  # raise it if the boxes of a video change: with the tracker, or `face_box_of_landmarks`
SUFFIX = ".track"
MAX_COORDINATE = 1e6  # pixels; a larger coordinate is invalid
HEADER = np.dtype([("n_frames", "<u4"), ("is_whole", "u1")])
N_COLUMNS = 7  # of a track, see `BoxTrack`
NO_FACE = (np.nan,) * N_COLUMNS
# Frames that smoothing reads beyond the last one.
SMOOTHING_LOOKAHEAD: dict[SmoothingMode, int] = {
    "none": 0,
    "centred": SMOOTHING_REACH,
    "upstream": SMOOTHING_WINDOW - 1,
}


@dataclass(frozen=True)
class BoxTrack:
    """Face boxes of a video.

    boxes: (n, 7) float64 left, top, right, bottom, angle, shot, is usable, as detected, for each frame that differs
    from the one before it; NaN if there is no face. n_frames: number of frames they cover, repeated ones included.
    is_whole: whether the video ends there.
    """

    boxes: npt.NDArray[np.float64]
    n_frames: int
    is_whole: bool

    def covers(self, n_frames: int) -> bool:
        return self.is_whole or self.n_frames >= n_frames


class BoxCache:
    """Caches box tracks in a folder, each in a file named after the bytes of the video and all that boxes depend on.

    A damaged file, or one with another key, is ignored. If the folder is full, the least recently used files go first.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def find(self, key: str) -> BoxTrack | None:
        path = self._path_of(key)
        try:
            if path.stat().st_size > MAX_TRACK_BYTES:
                return None
            contents = path.read_bytes()
            os.utime(path)  # marks it as used now
        except OSError:
            return None
        return decode_track(contents, key)

    def store(self, key: str, track: BoxTrack) -> None:
        """Store a track atomically. A folder that cannot be written is logged; the next run then detects again."""
        contents = encode_track(track, key)
        if len(contents) > min(self._max_bytes, MAX_TRACK_BYTES):
            return
        try:
            with atomic_public_file(self._path_of(key)) as part:
                part.write_bytes(contents)
            self._evict_oldest()
        except OSError as err:
            logger.warning("face boxes could not be stored in %s (%s)", self._folder, err.strerror or err)

    def _evict_oldest(self) -> None:
        """Delete files, least recently used first; another process may be doing the same."""
        files = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append((status.st_mtime_ns, status.st_size, path))
        n_bytes = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if n_bytes <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            n_bytes -= size

    def _path_of(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + SUFFIX)


def encode_track(track: BoxTrack, key: str) -> bytes:
    """Encode a track: a hash over the key and the rest; the counts; the boxes."""
    head = np.array((track.n_frames, track.is_whole), HEADER).tobytes()
    rest = head + track.boxes.astype("<f8").tobytes()
    return hashlib.sha256(key.encode() + rest).digest() + rest


def decode_track(contents: bytes, key: str) -> BoxTrack | None:
    """Decode a track; None if `encode_track` did not write it for that key."""
    digest, rest = contents[:32], contents[32:]
    if hashlib.sha256(key.encode() + rest).digest() != digest or (len(rest) - HEADER.itemsize) % (8 * N_COLUMNS):
        return None
    n_frames, is_whole = np.frombuffer(rest[: HEADER.itemsize], HEADER)[0].tolist()
    boxes = np.frombuffer(rest[HEADER.itemsize :], "<f8").reshape(-1, N_COLUMNS)
    if not (np.isnan(boxes) | (np.abs(boxes) < MAX_COORDINATE)).all():
        return None
    return BoxTrack(boxes, n_frames, bool(is_whole))


def cache_key(digest: str, fps: object, options: SyncOptions, detector: str) -> str:
    """Return the cache key: all that boxes depend on. digest: of the video. detector: its name and weights."""
    parts = (
        CACHE_VERSION,
        digest,
        str(fps),
        f"{options.resize_factor} {options.shrinking}",
        str(options.face),
        options.boxes,
        detector,
        *([] if options.active_speaker is None else [repr(options.active_speaker)]),
    )
    return "\n".join(parts)


def mediapipe_detector_name() -> str:
    """Return the name of MediaPipe's detector with the hashes of its weights, for the key."""
    return "mediapipe " + " ".join(str(file.sha256) for file in MEDIAPIPE.files)


@dataclass(frozen=True)
class Fingerprint:
    """Digest of a video's bytes. status: inode, size and times of the file, to notice if it is replaced."""

    digest: str
    path: Path | None
    status: tuple[int, ...]

    @classmethod
    def of(cls, source: Source, limits: MediaLimits) -> Fingerprint | None:
        """Compute the fingerprint; None if the source is no plain file within the limits: opening it will raise."""
        if isinstance(source, bytes):
            return cls(hashlib.sha256(source).hexdigest(), None, ())
        path = Path(source)
        try:
            if not path.is_file() or path.stat().st_size > limits.max_bytes:
                return None
            status = file_status(path)
            return cls(sha256_of(path), path, status)
        except (OSError, ValueError):
            return None

    def is_unchanged(self) -> bool:
        try:
            return self.path is None or file_status(self.path) == self.status
        except OSError:
            return False


def file_status(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class CachingFaceLocator:
    """Returns cached boxes, else detects faces and records their boxes.

    make_locate: makes the detector on first use.
    """

    def __init__(self, make_locate: Callable[[], FaceLocator], cached: BoxTrack | None) -> None:
        self.is_cached = cached is not None
        self._make_locate = make_locate
        self._cached = cached
        self._locate: FaceLocator | None = None
        self._cached_rows = iter(cached.boxes) if cached is not None else iter(())
        self._rows: list[tuple[float, ...]] = []
        self._n_frames = 0
        self._is_whole = False

    def count_frames(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the same frames and count them."""
        for n_frames, frame in enumerate(frames, 1):
            self._n_frames = max(self._n_frames, n_frames)
            yield frame
        self._is_whole = True

    def rewind(self) -> None:
        """Begin again with the first frame of the video; faces that were located are returned from memory."""
        self._cached_rows = iter(self.recorded_track().boxes if self._cached is None else self._cached.boxes)

    def __call__(self, frame: Frame) -> LocatedFace | None:
        row = next(self._cached_rows, None)
        if row is not None:
            return located_of_row(row.tolist())
        self._locate = self._locate or self._make_locate()
        located = self._locate(frame)
        self._rows.append(row_of_located(located))
        return located

    def recorded_track(self) -> BoxTrack:
        """Return the boxes that were detected now."""
        return BoxTrack(np.array(self._rows, np.float64).reshape(-1, N_COLUMNS), self._n_frames, self._is_whole)


def row_of_located(located: LocatedFace | None) -> tuple[float, ...]:
    """Return the row of a track for the face of a frame."""
    if located is None:
        return NO_FACE
    box = located.box
    return box.left, box.top, box.right, box.bottom, located.angle_rad, located.shot, located.is_usable


def located_of_row(row: list[float]) -> LocatedFace | None:
    """Return the face that `row_of_located` made the row of."""
    if any(math.isnan(value) for value in row):
        return None
    left, top, right, bottom, angle_rad, shot, is_usable = row
    return LocatedFace(FaceBox(left, top, right, bottom), angle_rad, int(shot), bool(is_usable))
