"""The forms that answers come in."""

from __future__ import annotations

from inference.errors import UnsupportedContentType

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
VTT, SRT = "text/vtt", "application/x-subrip"
MP4 = "video/mp4"
READ_ANSWERS = (JSON, NDJSON, TEXT, VTT, SRT)
SYNC_ANSWERS = (JSON, MP4)
ANSWERS = (*READ_ANSWERS, MP4)  # to any task: which one it is, the body says
WHOLE_RANGES = {"text/*": TEXT, "video/*": MP4}


def choose_answer(accept: str | None, answers: tuple[str, ...] = READ_ANSWERS) -> str:
    """The first form of the Accept header that is among `answers`; JSON where it names none.

    Raises: UnsupportedContentType where it asks only for others.
    """
    wanted = [part.partition(";")[0].strip().lower() for part in (accept or "").split(",") if part.strip()]
    for one in wanted:
        if one in answers:
            return one
        if one in ("*/*", "application/*"):
            return JSON
        if WHOLE_RANGES.get(one) in answers:
            return WHOLE_RANGES[one]
    if not wanted:
        return JSON
    raise UnsupportedContentType(f"accept {accept}: expected one of {', '.join(answers)}")
