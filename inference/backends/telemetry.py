"""Imports OpenVINO with its telemetry disabled."""

from __future__ import annotations

import sys
from types import ModuleType

PACKAGE = "openvino_telemetry"  # sends the events; OpenVINO and NNCF do without it if it can't be imported


def disable_telemetry() -> None:
    """Hide OpenVINO's telemetry package from every later import.

    OpenVINO and NNCF report their use to their makers: what users convert is private. And each report is sent from a
    fork of this process, which has threads and gRPC; such a copy dies with a fatal message.
    """
    sys.modules[PACKAGE] = None  # type: ignore[assignment]  # None makes the import fail


def import_openvino() -> ModuleType:
    """Import OpenVINO with its telemetry disabled. The import takes a fifth of a second, so import it late."""
    disable_telemetry()
    import openvino

    module: ModuleType = openvino
    return module
