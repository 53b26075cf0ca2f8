"""The jobs, loaded once and run by request."""

from inference.engines.engines import Engines, Prediction
from inference.engines.hooks import Hooks, headers_of, hooks_of
from inference.engines.reading import Reading
from inference.engines.syncing import Synced

__all__ = ["Engines", "Hooks", "Prediction", "Reading", "Synced", "headers_of", "hooks_of"]
