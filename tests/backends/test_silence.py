"""OpenVINO sends no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONVERT = """
import os
forks = []
os.register_at_fork(before=lambda: forks.append(1))
import torch
from inference.backends.openvino_network import OpenVinoNetwork
from inference.backends.telemetry import import_openvino
import_openvino()
from openvino.tools.ovc import convert_model
model = convert_model(torch.nn.Linear(2, 2), example_input=(torch.zeros(1, 2),))
OpenVinoNetwork(model)
print(len(forks))
"""


def test_a_conversion_forks_nothing_and_writes_nothing(tmp_path: Path):
    """OpenVINO never sends telemetry in CI, so remove the variables that it detects CI by."""
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    run = subprocess.run(
        [sys.executable, "-c", CONVERT], env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "0"
    assert not list(tmp_path.rglob("*telemetry*"))
    assert not (tmp_path / "intel").exists()
