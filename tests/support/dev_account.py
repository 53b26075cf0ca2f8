"""A real `viseme dev` in its own process, and the AWS CLI against it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import psutil

from support.live_server import PATIENCE_S

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
STOP_S = 30.0  # in which it must have ended after SIGTERM
N_COMMANDS = 7


class DevAccount:
    """The process, and what it prints."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        """folder: of its data and its output. data_dir: with the face models."""
        self._folder, self._data_dir = folder, data_dir
        self.start()

    def start(self) -> None:
        """Start it on a free port, and wait until it printed its commands. Raises: AssertionError with its log."""
        self.log, output = self._folder / "log", self._folder / "output"
        command = [str(Path(sys.executable).parent / "viseme"), "dev", "--port", "0", "--data"]
        # The caller's own account must not be used, whatever his environment has.
        foreign = {"AWS_PROFILE": "company", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_SESSION_TOKEN": "x"}
        env = os.environ | foreign | {"VISEME_DATA_DIR": str(self._data_dir)}
        with self.log.open("wb") as stderr, output.open("wb") as stdout:
            self.process = subprocess.Popen(
                [*command, str(self._folder / "data")], env=env, stdout=stdout, stderr=stderr
            )
        give_up = time.monotonic() + PATIENCE_S
        while len(lines := output.read_text().splitlines()) < N_COMMANDS:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < give_up, self.log.read_text()[-3000:]
            time.sleep(0.05)
        self.lines = lines
        [self.url] = set(re.findall(r"--endpoint-url (\S+)", "\n".join(lines)))

    def stop(self) -> list[psutil.Process]:
        """Send SIGTERM, and wait for the end. Return the processes of it that are left."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_S) == 0, self.log.read_text()[-3000:]
        return [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def env(self) -> dict[str, str]:
        """The environment for clients, which have no configuration."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return own | KEYS | {"AWS_ENDPOINT_URL": self.url}

    def run(self, cli: Path, command: str, folder: Path) -> str:
        """Run a command that was printed by an AWS CLI; return its output.

        The address is in the command, or, if the command has none, in the environment.
        """
        words, env = command.split(), self.env
        assert words[0] == "aws"
        if "--endpoint-url" in words:
            del env["AWS_ENDPOINT_URL"]
        run = subprocess.run([str(cli), *words[1:]], cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{command}: {run.stderr}"
        return run.stdout

    def client(self, service: str) -> Any:
        """Return a client of boto3; any keys are accepted."""
        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "keys", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=self.url, **keys)

    def wait_for(self, location: str) -> Any:
        """Return the JSON object at s3://bucket/key once it exists. Raises: AssertionError with the log."""
        bucket, _, key = location.removeprefix("s3://").partition("/")
        s3, give_up = self.client("s3"), time.monotonic() + PATIENCE_S
        while True:
            try:
                return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            except s3.exceptions.NoSuchKey:
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < give_up, self.log.read_text()[-3000:]
                time.sleep(0.05)
