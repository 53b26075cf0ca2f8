"""Where faces were found in films, kept: detection is a good part of the time, and the same face speaks many voices."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox
from inference.lip_sync.options import Smoothing, SyncOptions
from inference.lip_sync.preprocess import REACH, Locate, T
from inference.media import Frame, MediaLimits, Source
from inference.weights.registry import MEDIAPIPE
from inference.weights.cache import sha256_of, whole_file

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20  # of all tracks: some 20 hours
MAX_TRACK_BYTES = 16 << 20  # of one: no film within limits has so many frames
RULE = "1"  # to be raised where boxes of the same film change: with the tracker, or `box_of_landmarks`
SUFFIX = ".track"
MOST_PX = 1e6  # of a coordinate that is one
HEAD = np.dtype([("n_frames", "<u4"), ("is_whole", "u1")])
LOOKAHEAD: dict[Smoothing, int] = {"none": 0, "centred": REACH, "upstream": T - 1}  # frames read beyond the last


@dataclass(frozen=True)
class Track:
    """boxes: (n, 4) float64 left, top, right, bottom, as found, for each frame that differs from the one before it;
    not a number where there was no face. n_frames: how many frames they are for, repeated ones too. is_whole:
    whether the film ends there.
    """

    boxes: npt.NDArray[np.float64]
    n_frames: int
    is_whole: bool

    def covers(self, n_frames: int) -> bool:
        return self.is_whole or self.n_frames >= n_frames


class TrackCache:
    """Tracks in a folder, each in a file named for the film's bytes and all that boxes depend on.

    A file that is damaged, or of another key, is not taken. The least used ones go when there are too many bytes.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def find(self, key: str) -> Track | None:
        path = self._path_of(key)
        try:
            if path.stat().st_size > MAX_TRACK_BYTES:
                return None
            contents = path.read_bytes()
            os.utime(path)  # used last
        except OSError:
            return None
        return unpack(contents, key)

    def keep(self, key: str, track: Track) -> None:
        """Whole or not at all; a folder that cannot be written costs the next run time, and no more."""
        contents = pack(track, key)
        if len(contents) > min(self._max_bytes, MAX_TRACK_BYTES):
            return
        try:
            with whole_file(self._path_of(key)) as part:
                part.write_bytes(contents)
            self._make_room()
        except OSError as err:
            log.warning("where the face is could not be kept in %s (%s)", self._folder, err.strerror or err)

    def _make_room(self) -> None:
        """By age of last use; another process may be doing the same."""
        found = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        n_bytes = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if n_bytes <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            n_bytes -= size

    def _path_of(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + SUFFIX)


def pack(track: Track, key: str) -> bytes:
    """A hash over the key and what follows; then the counts; then the boxes."""
    head = np.array((track.n_frames, track.is_whole), HEAD).tobytes()
    rest = head + track.boxes.astype("<f8").tobytes()
    return hashlib.sha256(key.encode() + rest).digest() + rest


def unpack(contents: bytes, key: str) -> Track | None:
    """None for what `pack` did not write for that key."""
    digest, rest = contents[:32], contents[32:]
    if hashlib.sha256(key.encode() + rest).digest() != digest or (len(rest) - HEAD.itemsize) % 32:
        return None
    n_frames, is_whole = np.frombuffer(rest[: HEAD.itemsize], HEAD)[0].tolist()
    boxes = np.frombuffer(rest[HEAD.itemsize :], "<f8").reshape(-1, 4)
    if not (np.isnan(boxes) | (np.abs(boxes) < MOST_PX)).all():
        return None
    return Track(boxes, n_frames, bool(is_whole))


def key_of(digest: str, fps: object, options: SyncOptions, detector: str) -> str:
    """All that boxes depend on. digest: of the film's bytes. detector: which one, and its weights."""
    parts = (
        RULE,
        digest,
        str(fps),
        f"{options.resize_factor} {options.shrinking}",
        str(options.face),
        options.boxes,
        detector,
    )
    return "\n".join(parts)


def mediapipe_detector() -> str:
    return "mediapipe " + " ".join(str(file.sha256) for file in MEDIAPIPE.files)


@dataclass(frozen=True)
class Fingerprint:
    """Of a film's bytes; status: when and how large the file was, to notice that it is another one now."""

    digest: str
    path: Path | None
    status: tuple[int, ...]

    @classmethod
    def of(cls, source: Source, limits: MediaLimits) -> Fingerprint | None:
        """None for what is no plain file of a size that is taken: the door will say so."""
        if isinstance(source, bytes):
            return cls(hashlib.sha256(source).hexdigest(), None, ())
        path = Path(source)
        try:
            if not path.is_file() or path.stat().st_size > limits.max_bytes:
                return None
            status = status_of(path)
            return cls(sha256_of(path), path, status)
        except (OSError, ValueError):
            return None

    def still_holds(self) -> bool:
        try:
            return self.path is None or status_of(self.path) == self.status
        except OSError:
            return False


def status_of(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class KeptLocator:
    """Finds faces as they were found before, else now, and writes down what it found.

    make_locate: the detector, which is not made where it is not needed.
    """

    def __init__(self, make_locate: Callable[[], Locate], known: Track | None) -> None:
        self.is_known = known is not None
        self._make_locate = make_locate
        self._locate: Locate | None = None
        self._known = iter(known.boxes) if known is not None else iter(())
        self._rows: list[tuple[float, ...]] = []
        self._n_frames = 0
        self._is_whole = False

    def watch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, counted."""
        for frame in frames:
            self._n_frames += 1
            yield frame
        self._is_whole = True

    def __call__(self, frame: Frame) -> FaceBox | None:
        row = next(self._known, None)
        if row is not None:
            return None if np.isnan(row).any() else FaceBox(*row.tolist())
        self._locate = self._locate or self._make_locate()
        box = self._locate(frame)
        self._rows.append((np.nan,) * 4 if box is None else (box.left, box.top, box.right, box.bottom))
        return box

    def found(self) -> Track:
        """What was found now."""
        return Track(np.array(self._rows, np.float64).reshape(-1, 4), self._n_frames, self._is_whole)
