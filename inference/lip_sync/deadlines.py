"""How long lip sync may take, as this deployment has it."""

from __future__ import annotations

from inference.settings import Settings
from inference.stages import Deadline

WHOLE = "the job"
# The pipeline's stages, by what a caller knows them as.
STAGES = {
    "decode": ("sound", "decode", "loop"),
    "inference": ("detect", "mel", "model", "enhance", "compose"),
    "encode": ("encode",),
}


def deadlines_of(settings: Settings, whole_s: float | None = None) -> tuple[Deadline, ...]:
    """whole_s: for the whole job, where whoever asks for it waits no longer than that."""
    most_s = settings.job_deadline_s if whole_s is None else min(whole_s, settings.job_deadline_s)
    asked = {
        "decode": settings.decode_deadline_s,
        "inference": settings.inference_deadline_s,
        "encode": settings.encode_deadline_s,
    }
    stages = [Deadline(name, seconds, STAGES[name]) for name, seconds in asked.items() if seconds is not None]
    return (*stages, Deadline(WHOLE, most_s))
