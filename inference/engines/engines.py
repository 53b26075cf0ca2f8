"""Every kind of request behind one call."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, overload

from inference.backends.telemetry import import_openvino
from inference.backends.threads import limit_threads
from inference.backends.torch_import import has_torch
from inference.engines.answer import Answer
from inference.engines.callbacks import RequestCallbacks
from inference.engines.read import ReadEngine, ReadResponse
from inference.engines.remote_files import RemoteFiles
from inference.engines.sync import SyncEngine, SyncResponse
from inference.engines.visemes import VisemeEngine, VisemeResponse
from inference.lip_reading import LipReader
from inference.media.sandbox.decoder import SandboxedDecoder
from inference.requests import NDJSON, AcceptHeader, ReadRequest, Request, SyncRequest, VisemeRequest
from inference.requests.parse import JobRequest
from inference.settings import Settings

JobPrediction = ReadResponse | SyncResponse
Prediction = JobPrediction | VisemeResponse
NO_CALLBACKS = RequestCallbacks()


class Engine(Protocol):
    """What runs one type of request."""

    def run(self, request: Any, callbacks: RequestCallbacks) -> Prediction:
        """Fetch the media, do the work and return the result."""


class Engines:
    """The loaded engines. One request at a time."""

    def __init__(
        self, settings: Settings, read_engine: ReadEngine, sync_engine: SyncEngine, decoder: SandboxedDecoder
    ) -> None:
        self.settings = settings
        self.read_engine = read_engine
        self.sync_engine = sync_engine
        self.decoder = decoder
        self.viseme_engine = VisemeEngine(settings, RemoteFiles(settings), decoder)

    @classmethod
    def from_env(cls, model_dir: str | None) -> Engines:
        """Load what the environment configures; weights in `model_dir`, if given, are used first.

        Raises: InvalidRequest if a setting is wrong; the errors of `load`.
        """
        settings = Settings.from_env()
        if model_dir:
            settings = settings.model_copy(update={"model_dir": Path(model_dir)})
        return cls.load(settings)

    @classmethod
    def load(cls, settings: Settings) -> Engines:
        """Load every model, and start the process that decodes media within its own limits.

        Missing lip-sync weights are not an error here; lip sync requests then fail with WeightsNotFound.
        Raises: WeightsNotFound, WrongWeights, DeviceUnavailable.
        """
        limit_threads(settings.wanted_threads)
        decoder = SandboxedDecoder(settings.media_limits)
        remote_files = RemoteFiles(settings)
        try:
            reader = LipReader(
                weights=None,
                device=settings.device,
                precision=settings.precision,
                settings=settings,
                media=decoder.open,
            )
            sync_engine = SyncEngine.load(settings, remote_files, decoder)
        except BaseException:
            decoder.close()
            raise
        return cls(settings, ReadEngine(reader, remote_files), sync_engine, decoder)

    @property
    def reader(self) -> LipReader:
        return self.read_engine.reader

    def close(self) -> None:
        """End the decoder process."""
        self.decoder.close()

    def answer(self, request: Request, accept: AcceptHeader, callbacks: RequestCallbacks = NO_CALLBACKS) -> Answer:
        """Run a request and encode its result as the best type that the caller accepts.

        The type is chosen before any work. `callbacks.on_words` is called only if the answer is newline-delimited
        JSON, which is sent line by line.
        Raises: UnsupportedContentType; the errors of `run`.
        """
        media_type = request.choose_type(accept)
        if media_type != NDJSON:
            callbacks = replace(callbacks, on_words=None)
        return self._engine_for(request).run(request, callbacks).encode(media_type)

    @overload
    def run(self, request: ReadRequest, callbacks: RequestCallbacks = ...) -> ReadResponse: ...

    @overload
    def run(self, request: SyncRequest, callbacks: RequestCallbacks = ...) -> SyncResponse: ...

    @overload
    def run(self, request: VisemeRequest, callbacks: RequestCallbacks = ...) -> VisemeResponse: ...

    @overload
    def run(self, request: JobRequest, callbacks: RequestCallbacks = ...) -> JobPrediction: ...

    @overload
    def run(self, request: Request, callbacks: RequestCallbacks = ...) -> Prediction: ...

    def run(self, request: Request, callbacks: RequestCallbacks = NO_CALLBACKS) -> Prediction:
        """Run a request; the result is not encoded yet.

        Raises: CallerError if the caller can correct it, other VisemeErrors if not.
        """
        return self._engine_for(request).run(request, callbacks)

    def _engine_for(self, request: Request) -> Engine:
        engines: dict[type[Request], Engine] = {
            ReadRequest: self.read_engine,
            SyncRequest: self.sync_engine,
            VisemeRequest: self.viseme_engine,
        }
        return engines[type(request)]

    def warm_up(self) -> dict[str, Any]:
        """Run every engine once. Returns: what is available here and what it runs with."""
        started = time.perf_counter()
        found = self.read_engine.warm_up() | self.sync_engine.warm_up()
        return {
            "inference_ready": True,
            "capabilities": {"lipread": True, "lipsync": bool(found["sync_models"])},
            "openvino_version": import_openvino().__version__,
            "torch_version": version("torch") if has_torch() else None,
            **found,
            "warm_up_ms": round((time.perf_counter() - started) * 1000, 1),
        }
