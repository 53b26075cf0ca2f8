"""The gRPC stubs, generated as the build does it if the checkout is not installed."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "container" / "protos"
NAMES = ("optimized_lipsyncsrv_pb2.py", "optimized_lipsyncsrv_pb2.pyi", "optimized_lipsyncsrv_pb2_grpc.py")


def make_stubs(folder: Path) -> None:
    runpy.run_path(str(ROOT / "setup.py"))["make_stubs"](folder)


def make_if_missing() -> None:
    if not all((PROTOS / name).is_file() for name in NAMES):
        make_stubs(ROOT)
