"""Loads the Lambda functions as modules; defines the bucket that their tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

LAMBDAS = Path(__file__).parents[2] / "lambdas"
BUCKET = "viseme-videos"


def load(function: str) -> ModuleType:
    """Return a function's handler module; all are named handler.py, as in Lambda."""
    spec = importlib.util.spec_from_file_location(f"lambda_{function}", LAMBDAS / function / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses need their module there
    spec.loader.exec_module(module)
    return module
