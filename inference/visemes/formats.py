"""Visemes as JSON, as a table and as subtitles, written while they are estimated."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from itertools import chain
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from inference.media_types import JSON, SRT, TSV
from inference.visemes.blendshapes import BLENDSHAPES
from inference.visemes.estimator import EstimateInfo
from inference.visemes.phonemes import OCULUS_VISEMES, PAUSE
from inference.visemes.stream import FPS, LOOK_AHEAD_MS, VisemeFrame, VisemeSegment, VisemeUpdate
from inference.weights.registry import STARTER_VISEMES

VisemeFormat = Literal["json", "tsv", "srt"]
MEDIA_TYPES: dict[VisemeFormat, str] = {"json": JSON, "tsv": TSV, "srt": SRT}
SPOOLED_BYTES = 1 << 20  # of frames in memory; more are on disk until the segments are written
TIME_DIGITS, VALUE_DIGITS = 4, 3


def write_visemes(
    output: IO[str], updates: Iterable[VisemeUpdate], info: EstimateInfo, viseme_format: VisemeFormat
) -> None:
    """Write the visemes of a file as they are estimated: memory does not grow with its length. info: see `updates`."""
    write = {"json": write_json, "tsv": write_tsv, "srt": write_srt}[viseme_format]
    rest = iter(updates)
    first = next(rest)  # raises, before anything is written, if the file cannot be decoded
    write(output, chain((first,), rest), info)


def write_json(output: IO[str], updates: Iterable[VisemeUpdate], info: EstimateInfo) -> None:
    """Write one JSON object: names, "segments" with their times, "frames" of 40 ms, and what is known at the end."""
    names = {"visemes": OCULUS_VISEMES, "blendshapes": BLENDSHAPES, "fps": FPS, "look_ahead_ms": LOOK_AHEAD_MS}
    output.write(json.dumps({"status": "success"} | names)[:-1] + ', "segments": [')
    with tempfile.SpooledTemporaryFile(SPOOLED_BYTES, "w+", encoding="ascii") as later:
        write_segment, write_frame = item_writer(output), item_writer(later)
        for update in updates:
            for segment in update.segments:
                write_segment(describe_segment(segment))
            for frame in update.frames:
                write_frame(describe_frame(frame))
        output.write('], "frames": [')
        later.seek(0)
        shutil.copyfileobj(later, output)
    end = {"duration_s": round(info.duration_s, TIME_DIGITS), "model": describe_model(), "warnings": info.warnings}
    output.write("], " + json.dumps(end)[1:] + "\n")


def item_writer(output: IO[str]) -> Callable[[dict[str, Any]], None]:
    """Return a function that writes one more item of a JSON list."""
    separator = ""

    def write(item: dict[str, Any]) -> None:
        nonlocal separator
        output.write(separator + json.dumps(item))
        separator = ", "

    return write


def describe_model() -> dict[str, str | None]:
    return {
        "name": STARTER_VISEMES.architecture,
        "weights": STARTER_VISEMES.name,
        "sha256": STARTER_VISEMES.files[0].sha256,
    }


def describe_segment(segment: VisemeSegment) -> dict[str, Any]:
    """Return a segment as JSON values; times in seconds, weights and blendshapes in the order of their names."""
    return {
        "start": round(segment.start_s, TIME_DIGITS),
        "end": round(segment.end_s, TIME_DIGITS),
        "phoneme": segment.phoneme,
        "viseme": segment.viseme,
        "weights": rounded(segment.weights),
        "blendshapes": rounded(segment.blendshapes),
    }


def describe_frame(frame: VisemeFrame) -> dict[str, Any]:
    """Return a frame as JSON values, as `describe_segment` does."""
    return {
        "time": round(frame.start_s, TIME_DIGITS),
        "phoneme": frame.phoneme,
        "viseme": frame.viseme,
        "weights": rounded(frame.weights),
        "blendshapes": rounded(frame.blendshapes),
    }


def rounded(values: npt.NDArray[np.float32]) -> list[float]:
    return [round(value, VALUE_DIGITS) for value in values.tolist()]


def write_tsv(output: IO[str], updates: Iterable[VisemeUpdate], _info: EstimateInfo) -> None:
    """Write a table with tabs, a row for each segment: times in milliseconds, then all weights and blendshapes."""
    output.write("\t".join(("start", "end", "phoneme", "viseme", *OCULUS_VISEMES, *BLENDSHAPES)) + "\n")
    for update in updates:
        for one in update.segments:
            times = (round(one.start_s * 1000), round(one.end_s * 1000))
            cells = (*times, one.phoneme, one.viseme, *rounded(one.weights), *rounded(one.blendshapes))
            output.write("\t".join(map(str, cells)) + "\n")


def write_srt(output: IO[str], updates: Iterable[VisemeUpdate], _info: EstimateInfo) -> None:
    """Write SubRip: each viseme and its phoneme at its time. Silence has no entry."""
    n = 0
    for update in updates:
        for one in update.segments:
            if one.phoneme == PAUSE:
                continue
            n += 1
            times = f"{subrip_time(one.start_s)} --> {subrip_time(one.end_s)}"
            output.write(f"{n}\n{times}\n{one.viseme} ({one.phoneme})\n\n")


def subrip_time(time_s: float) -> str:
    """Return a time as SubRip writes it: HH:MM:SS,mmm."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{ms:03}"
