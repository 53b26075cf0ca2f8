"""The engines: what reads lips, moves them, and speaks live."""

import sys

# OpenVINO tells its makers of each import and each conversion, by a fork of whatever process it is in: one that has
# threads and gRPC, which die in the copy. Where the package that tells is not to be found, it is silent.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
