"""Lip reading, lip sync and live avatars."""

import sys

# OpenVINO reports each import and each conversion to its vendor from a fork of the current process; the threads and
# gRPC of this process do not survive a fork. If its telemetry package cannot be imported, it reports nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
