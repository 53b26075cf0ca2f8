"""The jobs, loaded once and run by request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.lip_reading import LipReader, Transcript
from inference.lip_reading.captions import to_captions
from inference.lip_reading.pipeline import OnWords, Progress
from inference.media.child import MediaChild
from inference.requests import JSON, NDJSON, SRT, TEXT, VTT, ReadRequest, S3Object
from inference.settings import Settings


@dataclass(frozen=True)
class Hooks:
    """Called while a request runs; a hook that raises ends it."""

    progress: Progress | None = None
    on_words: OnWords | None = None


@dataclass(frozen=True)
class Prediction:
    """What a request came to, before it is put into a form."""

    transcript: Transcript

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


class Engines:
    """Every job of this container that is ready. One request at a time."""

    def __init__(self, reader: LipReader, settings: Settings, child: MediaChild | None = None) -> None:
        self.reader = reader
        self._settings = settings
        self._child = child
        self._s3: Any = None  # made at the first use, and kept: a client takes a while to make

    @classmethod
    def load(cls, settings: Settings) -> Engines:
        """Load every model; media will be decoded by a child process with limits of its own.

        Raises: WeightsNotFound, WrongWeights, DeviceUnavailable.
        """
        child = MediaChild(settings.media_limits)
        reader = LipReader(
            weights=None,
            device=settings.device,
            precision=settings.precision,
            settings=settings,
            media=child.open,
        )
        return cls(reader, settings, child)

    def close(self) -> None:
        """End the decoder's process."""
        if self._child is not None:
            self._child.close()

    def run(self, request: ReadRequest, hooks: Hooks | None = None) -> Prediction:
        """Fetch what has to be fetched, and do the job."""
        hooks = hooks or Hooks()
        if isinstance(request.source, S3Object):
            return self._run_s3(request, request.source, hooks)
        return self._read(request.source, request, hooks)

    def _run_s3(self, request: ReadRequest, source: S3Object, hooks: Hooks) -> Prediction:
        from inference.media.fetch import fetched  # with it comes boto3: only where S3 is asked for
        from inference.media.s3 import s3_client

        settings = self._settings
        self._s3 = client = self._s3 or s3_client(settings.s3_endpoint_url)
        started = time.perf_counter()
        with fetched(
            source.bucket, source.key, client, max_bytes=settings.max_bytes, allowed=settings.allowed_buckets
        ) as path:
            fetch_ms = round((time.perf_counter() - started) * 1000, 1)
            prediction = self._read(path, request, hooks)
        timings = prediction.transcript.timings_ms
        timings["fetch"] = fetch_ms
        timings["total"] = round(timings["total"] + fetch_ms, 1)
        return prediction

    def _read(self, source: Path | bytes, request: ReadRequest, hooks: Hooks) -> Prediction:
        return Prediction(self.reader.read(source, request.options, hooks.progress, on_words=hooks.on_words))

    def measure(self) -> dict[str, Any]:
        """What works here, found out by running it: also the warm-up."""
        import openvino
        import torch

        started = time.perf_counter()
        self.reader.warm_up(np.zeros((96, 128, 3), np.uint8))
        return {
            "inference_ready": True,
            "capabilities": {"lipread": True},
            "openvino_version": openvino.__version__,
            "torch_version": torch.__version__,
            "device": self.reader.device.name,
            "precision": self.reader.device.precision,
            "weights": self.reader.model.info.weights,
            "warm_up_ms": round((time.perf_counter() - started) * 1000, 1),
        }


def headers_of(context: Any) -> Mapping[str, str]:
    """The request's headers, names in lower case; none where the context has none."""
    get: Callable[[int], Mapping[str, str] | None] | None = getattr(context, "get_all_request_header", None)
    if get is None:
        return {}
    return {str(name).lower(): str(value) for name, value in (get(0) or {}).items()}


def hooks_of(context: Any) -> Hooks:
    """What our own server wants to be told while a request runs."""
    hooks = getattr(context, "hooks", None)
    return hooks if isinstance(hooks, Hooks) else Hooks()
