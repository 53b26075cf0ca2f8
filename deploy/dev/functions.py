"""The stack's functions, each in a process of its own, as Lambda runs them: started once, called again and again."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from deploy.dev.stack import REGION, FunctionSpec

Event = dict[str, Any]
STOP_TIMEOUT_S = 2.0
RUNTIME = "deploy.dev.function_runtime"
# Of the caller's environment: another account than the local one, or another address.
FOREIGN_PREFIX = "AWS_"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # any keys are accepted


class FunctionFailed(Exception):
    """A function raised an exception, ended, or took too long. error: as Lambda returns it to a caller."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.error = {"errorType": kind, "errorMessage": message}


def local_environment(url: str) -> dict[str, str]:
    """Return the environment for processes that call the account at this URL, and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIX)}
    region = {"AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}
    no_metadata = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    return kept | KEYS | region | no_metadata | {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_ENDPOINT_URL": url}


class LocalFunction:
    """A function: one call at a time. Its process starts with the first call, and is replaced if it ends."""

    def __init__(self, spec: FunctionSpec, environment: Mapping[str, str]) -> None:
        self.spec = spec
        self._environment = {**environment, **spec.variables, "AWS_LAMBDA_FUNCTION_NAME": spec.name}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._is_closed = False

    def invoke(self, event: Event) -> Any:
        """Return what the function returns. Raises: FunctionFailed."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(event) + "\n")
                process.stdin.flush()
                line = self._answers.get(timeout=self.spec.timeout_s)
            except OSError:
                line = ""
            except queue.Empty:
                self._end()
                raise FunctionFailed("Sandbox.Timedout", f"Task timed out after {self.spec.timeout_s:.2f} s") from None
            if not line.endswith("\n"):  # nothing, or a part of an answer
                self._end()
                raise FunctionFailed("Runtime.ExitError", "the function's process ended")
        answer = json.loads(line)
        if error := answer.get("error"):
            raise FunctionFailed(error["errorType"], error["errorMessage"])
        return answer["result"]

    def close(self) -> None:
        """End the process, even if a call is running."""
        self._is_closed = True
        self._end()

    def _started(self) -> subprocess.Popen[str]:
        if self._is_closed:
            raise FunctionFailed("ServiceException", "the account is closing")
        if self._process is None:
            self._answers = queue.SimpleQueue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", RUNTIME, str(self.spec.code), self.spec.handler],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C in a terminal is for us: the call that runs is finished first
            )
            threading.Thread(target=read_answers, args=(self._process, self._answers), daemon=True).start()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_answers(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    """Pass on each line of a function's process, and an empty one at its end."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            answers.put(line)
    answers.put("")
