"""The sweeper: frees jobs whose workers are gone, and deletes what is no longer needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import islice

from container.jobs.job_queue import JobQueue
from container.jobs.processes import ProcessIdentity, is_alive
from container.jobs.records import JobRecord, JobState
from container.jobs.repository import JobRepository
from container.jobs.storage import JobStorage
from inference.errors import VisemeError

logger = logging.getLogger("viseme.jobs")
ORPHAN_AGE_S = 3600.0  # seconds after which files without a record are deleted: a submission takes at most minutes
ORPHAN_BATCH = 500  # ids looked up at once


class Sweeper:
    """Keeps the queue, the records and the storage in order. Several of them may work at once."""

    def __init__(
        self,
        queue: JobQueue,
        repository: JobRepository,
        storage: JobStorage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._repository, self._storage, self._clock = queue, repository, storage, clock
        self.n_swept = 0  # jobs whose lost files, and jobs that were deleted

    def free_dead(self) -> list[str]:
        """Free the leases of this host's dead processes. Returns: the ids of their jobs. Raises: StorageError."""
        freed = self._queue.free_dead_leases(ProcessIdentity.current().host, is_alive)
        if freed:
            logger.warning("jobs of dead workers are queued again", extra={"jobs": freed})
        return freed

    def free_expired(self) -> list[str]:
        """Free the leases that were not renewed. Returns: the ids of their jobs. Raises: StorageError."""
        freed = self._queue.free_expired_leases()
        if freed:
            logger.warning("jobs whose leases ran out are queued again", extra={"jobs": freed})
        return freed

    def sweep(self) -> None:
        """Delete the files of lost attempts, the jobs whose time is over, and spent turns. Raises: StorageError."""
        for job in self._repository.unswept():
            if self._try(job, lambda job=job: self._storage.delete_attempts(job.id, kept_attempt(job))):  # type: ignore[misc]
                self._repository.mark_swept(job.number)
        for job in self._repository.expired():
            if self._try(job, lambda job=job: self._storage.delete(job.id)):  # type: ignore[misc]
                self._repository.delete(job.number)
        self._repository.forget_turns()

    def delete_orphans(self) -> int:
        """Delete files without a record: their submission was never acknowledged. Returns: the number of jobs."""
        n_deleted = 0
        found = self._storage.job_ids(self._clock() - ORPHAN_AGE_S)
        while ids := list(islice(found, ORPHAN_BATCH)):
            known = self._repository.known_ids(ids)
            for job_id in ids:
                if job_id not in known:
                    self._storage.delete(job_id)
                    n_deleted += 1
        if n_deleted:
            logger.info("files without jobs were deleted", extra={"jobs": n_deleted})
        return n_deleted

    def _try(self, job: JobRecord, delete: Callable[[], None]) -> bool:
        """Delete something; return whether that worked. What did not is tried again in the next sweep."""
        try:
            delete()
        except VisemeError as err:
            logger.warning("files of a job were not deleted", extra={"job": job.id, "reason": str(err)})
            return False
        self.n_swept += 1
        return True


def kept_attempt(job: JobRecord) -> int | None:
    """Return the attempt whose files are kept; None if the job published nothing."""
    return job.attempt if job.state is JobState.SUCCEEDED else None
