"""Lip reading requests."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.engines.answer import Answer
from inference.engines.callbacks import RequestCallbacks
from inference.engines.remote_files import RemoteFiles
from inference.errors import InvalidRequest
from inference.lip_reading import LipReader, Transcript
from inference.lip_reading.captions import format_captions
from inference.media_types import READ_TYPES
from inference.requests import JSON, NDJSON, SRT, TEXT, VTT, ReadRequest


@dataclass(frozen=True)
class ReadResponse:
    """The result of a lip reading request, before it is encoded."""

    transcript: Transcript

    @property
    def media_types(self) -> tuple[str, ...]:
        """The media types it can be encoded as."""
        return READ_TYPES

    def as_dict(self) -> dict[str, Any]:
        return {"status": "success"} | self.transcript.as_dict()

    def encode(self, media_type: str) -> Answer:
        """Encode as JSON, text or captions, in UTF-8."""
        if media_type in (JSON, NDJSON):
            text = json.dumps(self.as_dict()) + ("\n" if media_type == NDJSON else "")
        elif media_type == TEXT:
            text = self.transcript.text + "\n"
        elif media_type in (VTT, SRT):
            text = format_captions(self.transcript.words, "vtt" if media_type == VTT else "srt")
        else:
            raise InvalidRequest(f"{media_type}: expected one of {', '.join(READ_TYPES)}")
        return Answer(text.encode(), media_type)


class ReadEngine:
    """A loaded lip reader that runs requests."""

    def __init__(self, reader: LipReader, remote_files: RemoteFiles) -> None:
        self.reader = reader
        self._remote_files = remote_files

    def run(self, request: ReadRequest, callbacks: RequestCallbacks) -> ReadResponse:
        """Fetch the video if it is in S3 or at a URL, and read it."""

        def on_progress(done_s: float, total_s: float | None) -> None:
            callbacks.check()
            if total_s:
                callbacks.on_progress(min(done_s / total_s, 1.0))

        started = time.perf_counter()
        with self._remote_files.fetched(request.source, callbacks.check) as source:
            fetch_ms = round((time.perf_counter() - started) * 1000, 1)
            transcript = self.reader.read(source, request.options, on_progress, on_words=callbacks.on_words)
        if not isinstance(request.source, bytes):
            timings = transcript.timings_ms
            timings["fetch"] = fetch_ms
            timings["total"] = round(timings["total"] + fetch_ms, 1)
        return ReadResponse(transcript)

    def warm_up(self) -> dict[str, Any]:
        """Run the reader once. Returns: the device, precision and weights it runs with."""
        self.reader.warm_up(np.zeros((96, 128, 3), np.uint8))
        return {
            "device": self.reader.device.name,
            "precision": self.reader.device.precision,
            "weights": self.reader.model.info.weights,
        }
