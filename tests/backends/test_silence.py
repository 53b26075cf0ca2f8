"""Nobody is told of what runs here."""

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
from inference.backends.openvino import OpenVinoNetwork, trace
OpenVinoNetwork(trace(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)))
print(len(forks))
"""


def test_a_conversion_forks_nothing_and_writes_nothing(tmp_path: Path):
    """Where tests run for a project, OpenVINO is silent anyhow: so this does as if they did not."""
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    run = subprocess.run(
        [sys.executable, "-c", CONVERT], env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "0"
    assert not list(tmp_path.rglob("*telemetry*"))
    assert not (tmp_path / "intel").exists()
