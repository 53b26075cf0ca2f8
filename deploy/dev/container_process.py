"""The container of the endpoints: `viseme serve --aws-routes` on a free port of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from deploy.dev.log_publisher import ServerLog

READY = "viseme is ready"
SERVE = (sys.executable, "-m", "container.cli", "serve", "--aws-routes", "--host", "127.0.0.1", "--port", "0")
# The account's port has rules of its own, and the container's only caller is the account.
NOT_PASSED_ON = ("VISEME_TOKEN", "VISEME_TLS_CERT", "VISEME_TLS_KEY", "VISEME_RATE_LIMIT", "SAGEMAKER_BIND_TO_PORT")


class ServerProcess:
    """The container's process, with its log passed on to stderr."""

    def __init__(self, environment: Mapping[str, str], url: str, log: ServerLog) -> None:
        """Start it, from the main thread: it ends when the thread that started it does.

        url: of the account, from which it reads videos. log: gets its lines, too.
        """
        self._log = log
        given = {name: value for name, value in environment.items() if name not in NOT_PASSED_ON}
        given |= {"AWS_ENDPOINT_URL_S3": url, "VISEME_JOB_WORKERS": "0"}
        command = (sys.executable, "-m", "deploy.dev.parent_death", str(os.getpid()), *SERVE)
        self._process = subprocess.Popen(
            command, env=given, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self.port: int | None = None
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait until the models are loaded; return False if they are not after that time, or if the process ended."""
        return self._is_ready.wait(timeout_s) and self.port is not None

    def terminate(self) -> None:
        """Ask it to finish what it does, and to end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def end(self, timeout_s: float) -> None:
        """Wait for its end, and kill what is left of it after that time."""
        give_up = time.monotonic() + timeout_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, give_up - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own: nothing else is in this group
        self._process.wait()
        self._reader.join(1.0)

    def _read_log(self) -> None:
        """Pass on each line; find the port in that which says that it is ready."""
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for encoded in lines:
                line = encoded.decode("utf-8", "replace")
                sys.stderr.write(line)
                sys.stderr.flush()
                is_ready_line = self.port is None and READY in line
                self._log.append(line.rstrip("\n"), is_last_of_start=is_ready_line)
                if is_ready_line:
                    self.port = json.loads(line)["port"]
                    self._is_ready.set()
        self._is_ready.set()
