"""The space for the inputs of jobs: a bound on their bytes, and what the disk keeps free.

The bytes on record are counted in the transactions that add and delete records, so that any number of servers keep the
bound. The disk is measured: there, only the submissions of one server are sure not to share the same free bytes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from container.jobs.repository import JobRepository
from container.jobs.storage import JobStorage
from container.jobs.transactions import JobLimits
from inference.errors import StorageFull, VisemeError

logger = logging.getLogger("viseme.jobs")
CROWDED_SHARE = 0.9  # of the bound, from which on inputs of finished jobs are deleted before their time


class InputSpace:
    """Admits inputs while there is space, and makes space of the inputs of finished jobs."""

    def __init__(self, repository: JobRepository, storage: JobStorage, limits: JobLimits) -> None:
        self._repository, self._storage, self._limits = repository, storage, limits
        self._lock = threading.Lock()
        self._n_writing = 0  # bytes that are being written to the disk

    def check(self, n_bytes: int) -> None:
        """Check that an input could be stored now. Raises: StorageFull; StorageError."""
        self._repository.check_input_bytes(n_bytes)
        self._check_disk(n_bytes)

    @contextlib.contextmanager
    def writing(self, source: Path) -> Iterator[None]:
        """Hold the space of an input while it is written. Raises: StorageFull if the disk has too little."""
        n_bytes = self._storage.bytes_to_write(source)
        with self._lock:
            self._check_disk(n_bytes)
            self._n_writing += n_bytes
        try:
            yield
        finally:
            with self._lock:
                self._n_writing -= n_bytes

    def make_room(self) -> int:
        """Delete inputs of finished jobs, the oldest first, while space is short. Returns: how many were deleted."""
        n_deleted = 0
        while self._is_crowded() and (batch := self._repository.finished_inputs()):
            n_before = n_deleted
            for job in batch:
                if not self._is_crowded():
                    break
                try:
                    self._storage.delete_input(job.id)
                except VisemeError as err:
                    logger.warning("the input of a job was not deleted", extra={"job": job.id, "reason": str(err)})
                    continue
                self._repository.mark_input_deleted(job.number)
                n_deleted += 1
            if n_deleted == n_before:  # none can be deleted now
                break
        if n_deleted:
            logger.info("inputs of finished jobs were deleted before their time", extra={"jobs": n_deleted})
        return n_deleted

    def _is_crowded(self) -> bool:
        if self._repository.input_bytes() > CROWDED_SHARE * self._limits.max_input_bytes:
            return True
        free = self._storage.free_bytes()
        return free is not None and free < 2 * self._limits.min_free_bytes

    def _check_disk(self, n_bytes: int) -> None:
        free = self._storage.free_bytes()
        if free is not None and free - self._n_writing - n_bytes < self._limits.min_free_bytes:
            raise StorageFull(
                f"the storage of jobs has {free} bytes free; expected {self._limits.min_free_bytes} beside an input of"
                f" {n_bytes}; try again later"
            )
