"""Every job of this container, behind one call."""

from __future__ import annotations

import time
from typing import Any

from inference.engines.bucket import Buckets
from inference.engines.hooks import Hooks
from inference.engines.reading import ReadEngine, Reading
from inference.engines.syncing import Synced, SyncEngine
from inference.lip_reading import LipReader
from inference.media.child import MediaChild
from inference.requests import ReadRequest, Request
from inference.settings import Settings

Prediction = Reading | Synced


class Engines:
    """Every job that is ready. One request at a time."""

    def __init__(self, reading: ReadEngine, syncing: SyncEngine, child: MediaChild) -> None:
        self.reading = reading
        self.syncing = syncing
        self._child = child

    @classmethod
    def load(cls, settings: Settings) -> Engines:
        """Load every model; media will be decoded by a child process with limits of its own.

        Raises: WeightsNotFound, WrongWeights, DeviceUnavailable. That no lip-sync weights were brought is no
        fault: requests for it are told.
        """
        child = MediaChild(settings.media_limits)
        buckets = Buckets(settings)
        try:
            reader = LipReader(
                weights=None,
                device=settings.device,
                precision=settings.precision,
                settings=settings,
                media=child.open,
            )
            syncing = SyncEngine.load(settings, buckets, child)
        except BaseException:
            child.close()
            raise
        return cls(ReadEngine(reader, buckets), syncing, child)

    @property
    def reader(self) -> LipReader:
        return self.reading.reader

    def close(self) -> None:
        """End the decoder's process."""
        self._child.close()

    def run(self, request: Request, hooks: Hooks | None = None) -> Prediction:
        """Fetch what has to be fetched, and do the job."""
        hooks = hooks or Hooks()
        if isinstance(request, ReadRequest):
            return self.reading.run(request, hooks)
        return self.syncing.run(request, hooks)

    def measure(self) -> dict[str, Any]:
        """What works here, found out by running it: also the warm-up."""
        import openvino
        import torch

        started = time.perf_counter()
        found = self.reading.measure() | self.syncing.measure()
        return {
            "inference_ready": True,
            "capabilities": {"lipread": True, "lipsync": bool(found["sync_models"])},
            "openvino_version": openvino.__version__,
            "torch_version": torch.__version__,
            **found,
            "warm_up_ms": round((time.perf_counter() - started) * 1000, 1),
        }
