"""Imports OpenVINO with its telemetry disabled, and without its model converter."""

from __future__ import annotations

import sys
from types import ModuleType

CONVERTER = "openvino.tools.ovc"
PACKAGE = "openvino_telemetry"  # sends the events; OpenVINO and NNCF do without it if it can't be imported


def disable_telemetry() -> None:
    """Hide OpenVINO's telemetry package from every later import.

    OpenVINO and NNCF report their use to their makers: what users convert is private. And each report is sent from a
    fork of this process, which has threads and gRPC; such a copy dies with a fatal message.
    """
    sys.modules[PACKAGE] = None  # type: ignore[assignment]  # None makes the import fail


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry and its model converter; late, since it takes a twentieth of a second.

    With the converter, which nothing here uses, it would take a seventh. It can be imported afterwards.
    """
    disable_telemetry()
    hidden = "openvino" not in sys.modules and CONVERTER not in sys.modules
    if hidden:
        sys.modules[CONVERTER] = None  # type: ignore[assignment]  # OpenVINO does without it
    try:
        import openvino
    finally:
        if hidden:
            sys.modules.pop(CONVERTER, None)
    module: ModuleType = openvino
    return module
