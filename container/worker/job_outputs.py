"""What a durable job makes: its files, its result, and reports while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from container.worker.messages import JobOutput, Progress
from container.worker.output_names import video_names
from inference.engines.engines import Engines, JobPrediction
from inference.engines.read import ReadResponse
from inference.engines.sync import SyncResponse
from inference.media_types import JSON, MP4, SRT, TEXT, VTT
from inference.requests import Request, SyncRequest

REPORT_INTERVAL_S = 1.0  # seconds between reports of progress: each is written to the database
TRANSCRIPTS = {"transcript.txt": TEXT, "transcript.srt": SRT, "transcript.vtt": VTT, "transcript.json": JSON}


class ProgressReport:
    """Sends the progress of one stage at most once a second."""

    def __init__(
        self, stage: str, send: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stage, self._send, self._clock = stage, send, clock
        self._next_at = clock()

    def update(self, share: float) -> None:
        """Send the share that is done, 0 to 1, unless another report has just been sent."""
        if self._clock() >= self._next_at:
            self._next_at = self._clock() + REPORT_INTERVAL_S
            self._send(Progress(self._stage, share))


def names_of_outputs(request: Request, engines: Engines) -> tuple[str, ...]:
    """Return the names of the files that a request makes, in the order of `write_outputs`."""
    if isinstance(request, SyncRequest):
        return video_names(engines.sync_engine.models_of(request))
    return tuple(TRANSCRIPTS)


def write_outputs(response: JobPrediction, folder: Path) -> tuple[JobOutput, ...]:
    """Return the files of a response; those of a transcript are written to the folder."""
    if isinstance(response, ReadResponse):
        return tuple(write_transcript(response, folder, name, kind) for name, kind in TRANSCRIPTS.items())
    return videos_of(response)


def write_transcript(response: ReadResponse, folder: Path, name: str, media_type: str) -> JobOutput:
    path = folder / name
    path.write_bytes(response.encode(media_type).read())
    return JobOutput(name, path, media_type)


def videos_of(response: SyncResponse) -> tuple[JobOutput, ...]:
    """Return the videos of a lip sync, with their places in S3 if the request named a folder there."""
    videos = []
    names = video_names([output.model for output in response.result.outputs])
    for i, output in enumerate(response.result.outputs):
        assert output.path is not None
        details = {"model": output.model, "num_frames": output.num_frames, "duration_s": output.duration_s}
        video = JobOutput(names[i], output.path, MP4, details)
        if response.stored:
            stored = response.stored[i]
            video = JobOutput(video.name, video.path, MP4, details, stored.bucket, stored.key, stored.url)
        videos.append(video)
    return tuple(videos)


def result_of(response: JobPrediction) -> dict[str, Any]:
    """Return the answer's JSON values without the videos themselves, which are files."""
    if isinstance(response, ReadResponse):
        transcript: dict[str, Any] = json.loads(response.encode(JSON).read())
        return transcript
    found = response.result.as_dict()
    for output in found["outputs"]:
        output.pop("path")
    video_values: dict[str, Any] = json.loads(json.dumps({"status": "success"} | found | {"memory": response.memory}))
    return video_values
