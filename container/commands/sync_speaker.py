"""The active speaker of `viseme sync` as it is written on the command line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.lip_sync import ActiveSpeaker

NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
POINT = re.compile(rf"(?P<frame>\d{{1,9}}):(?P<x>{NUMBER}),(?P<y>{NUMBER})")
MAX_FILE_BYTES = 32 << 20


def parse_speaker(text: str) -> ActiveSpeaker:
    """Parse "auto", FRAME:X,Y, or the path of a JSON file with a box for each frame. Raises: InvalidRequest."""
    from inference.lip_sync import ActiveSpeaker

    if text == "auto":
        return ActiveSpeaker("auto")
    if match := POINT.fullmatch(text):
        return ActiveSpeaker(frame=int(match["frame"]), point=(float(match["x"]), float(match["y"])))
    if Path(text).suffix.lower() != ".json":
        raise InvalidRequest(f"--speaker {text!r}: expected auto, FRAME:X,Y such as 12:320,180, or BOXES.json")
    return ActiveSpeaker(boxes=read_boxes(Path(text)))


def speaker_fields(text: str) -> dict[str, Any]:
    """Return the field "active_speaker" of a request for what `parse_speaker` parses. Raises: InvalidRequest."""
    return {name: value for name, value in asdict(parse_speaker(text)).items() if value is not None}


def read_boxes(path: Path) -> tuple[tuple[float, float, float, float] | None, ...]:
    """Read a JSON list of boxes, [x1, y1, x2, y2] or null. Raises: InvalidRequest."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidRequest(f"--speaker {path}: over {MAX_FILE_BYTES >> 20} MiB; that is the limit")
        found = json.loads(path.read_bytes())
    except OSError as err:
        raise InvalidRequest(f"--speaker {path}: {err.strerror or err}") from err
    except (ValueError, RecursionError) as err:
        raise InvalidRequest(f"--speaker {path}: not JSON ({err})") from err
    is_list = isinstance(found, list) and all(one is None or isinstance(one, list) for one in found)
    if not is_list:
        raise InvalidRequest(f"--speaker {path}: expected a list of [x1, y1, x2, y2] or null, one for each frame")
    return tuple(None if one is None else tuple(one) for one in found)
