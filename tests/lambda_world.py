"""The Lambdas as modules, and the bucket their tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

LAMBDAS = Path(__file__).parents[1] / "lambdas"
BUCKET = "viseme-films"


def load(function: str) -> ModuleType:
    """The handler of a function; all are called handler.py, as Lambda finds them."""
    spec = importlib.util.spec_from_file_location(f"lambda_{function}", LAMBDAS / function / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
