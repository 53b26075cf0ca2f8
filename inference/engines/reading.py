"""Lip reading by request."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.engines.bucket import Buckets
from inference.engines.hooks import Hooks
from inference.errors import InvalidRequest
from inference.lip_reading import LipReader, Transcript
from inference.lip_reading.captions import to_captions
from inference.requests import JSON, NDJSON, SRT, TEXT, VTT, ReadRequest, S3Object
from inference.requests.answers import READ_ANSWERS


@dataclass(frozen=True)
class Reading:
    """What a request came to, before it is put into a form."""

    transcript: Transcript

    @property
    def answers(self) -> tuple[str, ...]:
        """The forms it can be put into."""
        return READ_ANSWERS

    def as_dict(self) -> dict[str, Any]:
        return {"status": "success"} | self.transcript.as_dict()

    def encode(self, form: str) -> bytes:
        """The answer as JSON, text or captions, in UTF-8."""
        if form in (JSON, NDJSON):
            text = json.dumps(self.as_dict()) + ("\n" if form == NDJSON else "")
        elif form == TEXT:
            text = self.transcript.text + "\n"
        elif form in (VTT, SRT):
            text = to_captions(self.transcript.words, "vtt" if form == VTT else "srt")
        else:
            raise InvalidRequest(f"answer {form}: not spoken here")
        return text.encode()


class ReadEngine:
    """A loaded reader that answers requests."""

    def __init__(self, reader: LipReader, buckets: Buckets) -> None:
        self.reader = reader
        self._buckets = buckets

    def run(self, request: ReadRequest, hooks: Hooks) -> Reading:
        """Fetch what has to be fetched, and read it."""
        started = time.perf_counter()
        with self._buckets.fetched(request.source) as source:
            fetch_ms = round((time.perf_counter() - started) * 1000, 1)
            transcript = self.reader.read(source, request.options, hooks.progress, on_words=hooks.on_words)
        if isinstance(request.source, S3Object):
            timings = transcript.timings_ms
            timings["fetch"] = fetch_ms
            timings["total"] = round(timings["total"] + fetch_ms, 1)
        return Reading(transcript)

    def measure(self) -> dict[str, Any]:
        """On what it runs, found out by running it."""
        self.reader.warm_up(np.zeros((96, 128, 3), np.uint8))
        return {
            "device": self.reader.device.name,
            "precision": self.reader.device.precision,
            "weights": self.reader.model.info.weights,
        }
