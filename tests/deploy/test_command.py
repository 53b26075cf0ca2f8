"""What the commands do when their reader or their caller leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.command import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, run_command

ROOT = Path(__file__).parents[2]
DRY_RUN = ["--endpoint-name", "viseme", "--role-arn", "arn:aws:iam::123456789012:role/X", "--region", "eu-west-1"]


def test_a_reader_that_leaves_is_no_error():
    """As `--dry-run | head -1`: the rest is printed to no reader, by a whole process that ends by itself."""
    command = [sys.executable, "-m", "deploy.endpoint", *DRY_RUN, "--dry-run"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as run:
        assert run.stdout.readline().startswith(b'{"service": "sagemaker", "operation": "DescribeEndpoint"')
        run.stdout.close()
        err = run.stderr.read().decode()
    assert run.returncode == EXIT_BROKEN_PIPE
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_buffer_that_cannot_be_written_is_no_error():
    """The same if all output still is in the buffer, and is written at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "deploy.endpoint", *DRY_RUN, "--no-smoke-test", "--dry-run"]
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=env)
    os.close(writer)
    assert run.returncode == EXIT_BROKEN_PIPE
    assert "BrokenPipe" not in run.stderr


def test_ctrl_c(capsys: pytest.CaptureFixture[str]):
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run_command("deploy.endpoint", interrupt) == EXIT_INTERRUPTED
    assert "stopped waiting; the operation continues on AWS" in capsys.readouterr().err
