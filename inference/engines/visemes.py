"""Requests for the visemes of speech."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO

from inference.backends.device import count_threads
from inference.engines.answer import Answer
from inference.engines.callbacks import RequestCallbacks
from inference.engines.remote_files import RemoteFiles
from inference.errors import DeadlineExceeded, InvalidRequest, StorageError
from inference.media.audio_spool import AudioSpool
from inference.media.sandbox.decoder import SandboxedDecoder
from inference.media_types import VISEME_TYPES
from inference.requests import VisemeRequest
from inference.settings import Settings
from inference.visemes import VisemeEstimator
from inference.visemes.estimator import EstimateInfo
from inference.visemes.formats import MEDIA_TYPES, write_visemes

FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}


@dataclass(frozen=True)
class VisemeResponse:
    """Decoded audio, whose visemes are estimated while they are encoded: memory does not grow with its length."""

    audio: AudioSpool
    estimator: VisemeEstimator = field(repr=False)
    callbacks: RequestCallbacks
    start_s: float  # when the request began, as by `time.monotonic`

    @property
    def media_types(self) -> tuple[str, ...]:
        """The media types it can be encoded as."""
        return VISEME_TYPES

    def encode(self, media_type: str) -> Answer:
        """Estimate the visemes and encode them, once. The answer is a file if the callbacks name a folder.

        Raises: InvalidRequest for other types, DeadlineExceeded, StorageError; the errors of `callbacks.check`.
        """
        if media_type not in FORMATS:
            raise InvalidRequest(f"{media_type}: expected one of {', '.join(VISEME_TYPES)}")
        if self.callbacks.folder is None:
            text = io.StringIO()
            self._write(text, media_type)
            return Answer(text.getvalue().encode(), media_type)
        path = self.callbacks.folder / f"visemes.{FORMATS[media_type]}"
        try:
            with path.open("x", encoding="utf-8") as file:
                self._write(file, media_type)
        except OSError as err:
            raise StorageError(f"the visemes could not be stored ({err.strerror or err})") from err
        return Answer(path, media_type)

    def _write(self, file: IO[str], media_type: str) -> None:
        limit_s, info = self.callbacks.timeout_s, EstimateInfo()
        end = None if limit_s is None else self.start_s + limit_s

        def report(done_s: float, total_s: float) -> None:
            self.callbacks.check()
            if end is not None and time.monotonic() > end:
                raise DeadlineExceeded(f"the visemes of {done_s:g} s of {total_s:g} s of audio took {limit_s:g} s")
            self.callbacks.on_progress(done_s / total_s)

        with self.audio:
            write_visemes(file, self.estimator.updates_of(self.audio, info, report), info, FORMATS[media_type])


class VisemeEngine:
    """Runs requests for visemes. The network is loaded by the first one, in a fifth of a second."""

    def __init__(self, settings: Settings, remote_files: RemoteFiles, decoder: SandboxedDecoder) -> None:
        self._settings, self._remote_files, self._decoder = settings, remote_files, decoder

    @cached_property
    def estimator(self) -> VisemeEstimator:
        n_threads = count_threads(self._settings.wanted_threads)
        return VisemeEstimator(n_threads, voice=self._decoder.spool_audio)

    def run(self, request: VisemeRequest, callbacks: RequestCallbacks) -> VisemeResponse:
        """Fetch the audio if it is in S3, and decode it. Raises: the errors of `VisemeEstimator.estimate`."""
        start_s = time.monotonic()
        with self._remote_files.fetched(request.source, callbacks.check) as source:
            return VisemeResponse(self.estimator.decode(source), self.estimator, callbacks, start_s)
