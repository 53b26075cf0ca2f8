"""Loads the Lambda functions as modules; defines the bucket that their tests share."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

LAMBDAS = Path(__file__).parents[2] / "lambdas"
BUCKET = "viseme-videos"


def load(function: str) -> ModuleType:
    """Return a function's handler module, imported as Lambda does: from the folder that is uploaded."""
    return load_shared(f"{function}.handler")


def load_shared(module: str) -> ModuleType:
    """Return a module of the folder that is uploaded."""
    if str(LAMBDAS) not in sys.path:
        sys.path.append(str(LAMBDAS))
    return importlib.import_module(module)


def version_of(key: str, etag: str = "e1", **fields: Any) -> Any:
    """Return a version of an upload, as the functions know it."""
    return load_shared("jobs.version").UploadVersion.of_key(key, etag, **fields)
