"""Engines: the pipelines, loaded once, that run requests."""

from inference.engines.answer import Answer
from inference.engines.callbacks import RequestCallbacks
from inference.engines.engines import Engines, Prediction
from inference.engines.read import ReadResponse
from inference.engines.sync import SyncResponse
from inference.engines.visemes import VisemeResponse

__all__ = ["Answer", "Engines", "Prediction", "ReadResponse", "RequestCallbacks", "SyncResponse", "VisemeResponse"]
