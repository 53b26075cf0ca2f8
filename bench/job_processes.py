"""Processes that run jobs on what stands for several machines: for what is tried on jobs."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.settings import Settings


@dataclass(frozen=True)
class Times:
    """Seconds that replace those of the product."""

    lease_s: float
    poll_s: float
    grace_s: float

    def arguments(self) -> list[str]:
        return ["--lease", str(self.lease_s), "--poll", str(self.poll_s), "--grace", str(self.grace_s)]


@dataclass(frozen=True)
class JobMachines:
    """Folders of several machines that share a database, a broker and the storage of jobs."""

    root: Path
    database_url: str | None
    broker_url: str | None
    times: Times
    is_real: bool = False  # whether the children have the models

    def settings(self) -> Settings:
        """Return the settings of a server that runs no jobs itself."""
        return Settings.from_env(self.environment("server"))

    def environment(self, machine: str, **settings: str) -> dict[str, str]:
        """Return the variables of a process. settings: by their names without VISEME_, in lower case."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VISEME_")}
        own = {
            "data_dir": str(self.root / machine),
            "database_url": self.database_url or "",
            "broker_url": self.broker_url or "",
            "job_storage": str(self.root / "storage"),
            "job_attempts": "100",
        }
        folder = self.root / machine / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return kept | {"TMPDIR": str(folder)} | {f"VISEME_{name.upper()}": v for name, v in (own | settings).items()}

    def start_worker(self, machine: str, **settings: str) -> JobProcess:
        return self._start("worker", machine, self.environment(machine, **settings))

    def start_server(self, port: int, **settings: str) -> JobProcess:
        environment = self.environment("server", on_sagemaker="false", **settings)
        return self._start("server", "server", environment | {"SAGEMAKER_BIND_TO_PORT": str(port)})

    def _start(self, role: str, machine: str, environment: Mapping[str, str]) -> JobProcess:
        arguments = [role, machine, *self.times.arguments(), *(["--real"] if self.is_real else [])]
        return JobProcess(arguments, environment, self.root / machine / f"{secrets.token_hex(4)}.log")


class JobProcess:
    """A worker or a server, in a session of its own. Its log is a file."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.job_process", *arguments],
                env=dict(environment),
                stderr=file,
                stdout=file,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def is_ready(self) -> bool:
        return any(f"viseme {name} ready" in self.log for name in ("is", "worker is"))

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Kill the process alone: its children have to notice it."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout_s: float) -> int:
        return self._process.wait(timeout_s)

    def kill_all(self) -> None:
        """Kill the process and its children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
