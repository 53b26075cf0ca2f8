"""Engines: the pipelines, loaded once, that run requests."""

from inference.engines.answer import Answer
from inference.engines.engines import Engines, Prediction
from inference.engines.hooks import RequestCallbacks
from inference.engines.reading import ReadResponse
from inference.engines.syncing import SyncResponse

__all__ = ["Answer", "Engines", "Prediction", "ReadResponse", "RequestCallbacks", "SyncResponse"]
