"""Frames for as long as a voice lasts, from a film that may be shorter, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType

import numpy as np

from inference.errors import StorageError
from inference.lip_sync.options import Loop
from inference.lip_sync.preprocess import Shot

SPOOL_BYTES = 4 << 30  # on disk; 25 minutes of 360x288, a minute of 720p


class ShotSpool:
    """The last shots of a film, kept in a file without a name, so that it can run backwards.

    Of a film larger than the spool the oldest shots are forgotten. To be used as a context manager.
    """

    def __init__(self, max_bytes: int = SPOOL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._file = tempfile.TemporaryFile(prefix="viseme-frames-")  # noqa: SIM115 (closed by __exit__)
        self._boxes: list[Shot] = []  # of the shots kept, without their frames
        self._shape: tuple[int, ...] = ()
        self._n_seen = 0

    def __len__(self) -> int:
        return min(self._n_seen, self._n_slots) if self._n_seen else 0

    @property
    def n_forgotten(self) -> int:
        return self._n_seen - len(self)

    def add(self, shot: Shot) -> None:
        """Raises: StorageError where the disk is full."""
        self._shape = shot.frame.shape
        slot = self._n_seen % self._n_slots
        try:
            self._file.seek(slot * shot.frame.nbytes)
            self._file.write(np.ascontiguousarray(shot.frame).data)
        except OSError as err:
            raise StorageError(f"frames could not be kept for the loop ({err.strerror or err})") from err
        boxed = Shot(np.zeros((0, 0, 3), np.uint8), shot.box)
        self._boxes[slot : slot + 1] = [boxed]
        self._n_seen += 1

    def __getitem__(self, index: int) -> Shot:
        """Counted from the oldest that is kept."""
        slot = (self.n_forgotten + index) % self._n_slots
        n_bytes = int(np.prod(self._shape))
        self._file.seek(slot * n_bytes)
        frame = np.frombuffer(self._file.read(n_bytes), np.uint8).reshape(self._shape)
        return Shot(frame, self._boxes[slot].box)

    @property
    def _n_slots(self) -> int:
        return max(self._max_bytes // int(np.prod(self._shape)), 2)

    def __enter__(self) -> ShotSpool:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def loop_shots(shots: Iterable[Shot], n_frames: int, loop: Loop, *, spooled: bool = True) -> Iterator[Shot]:
    """Exactly `n_frames` shots: the film's, then back and forth (each end once), or again from the start.

    spooled: False where the film is known to be long enough, and need not be kept.
    """
    n_given = 0
    with ShotSpool() as spool:
        for shot in shots:
            if n_given == n_frames:
                return
            if spooled:
                spool.add(shot)
            yield shot
            n_given += 1
            last = shot
        while n_given < n_frames:
            yield spool[index_of(n_given - spool.n_forgotten, len(spool), loop)] if spooled else last
            n_given += 1


def index_of(step: int, n: int, loop: Loop) -> int:
    """Which of n frames is shown at a step, the first being step 0."""
    if loop == "restart" or n == 1:
        return step % n
    place = step % (2 * n - 2)
    return place if place < n else 2 * n - 2 - place
