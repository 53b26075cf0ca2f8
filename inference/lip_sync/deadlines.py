"""Time limits of a lip-sync job, from the settings."""

from __future__ import annotations

from inference.settings import Settings
from inference.stage_timer import Deadline

JOB_NAME = "the job"
# Stages of the pipeline in each phase that callers can limit.
STAGES_OF_PHASE = {
    "decode": ("sound", "decode", "loop"),
    "inference": ("detect", "mel", "model", "enhance", "compose"),
    "encode": ("encode",),
}


def make_deadlines(settings: Settings, job_limit_s: float | None = None) -> tuple[Deadline, ...]:
    """Return the time limits of one job.

    job_limit_s: limit of the whole job, if the caller waits no longer than that.
    """
    limit_s = settings.job_deadline_s if job_limit_s is None else min(job_limit_s, settings.job_deadline_s)
    phase_limits_s = {
        "decode": settings.decode_deadline_s,
        "inference": settings.inference_deadline_s,
        "encode": settings.encode_deadline_s,
    }
    stages = [
        Deadline(name, seconds, STAGES_OF_PHASE[name])
        for name, seconds in phase_limits_s.items()
        if seconds is not None
    ]
    return (*stages, Deadline(JOB_NAME, limit_s))
