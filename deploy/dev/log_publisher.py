"""The container's log in CloudWatch, where SageMaker puts it: a group for each endpoint, a stream for each version."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from deploy.aws import Aws
from deploy.aws_requests import VARIANT
from deploy.dev.events import Wakeup
from deploy.dev.moto_account import endpoint_versions
from deploy.errors import CallFailed, DeployError
from deploy.logs import LOG_GROUP_FOLDER, create_log_group

logger = logging.getLogger("viseme.dev")
MAX_LINES = 10_000  # that wait to be published
POLL_S = 0.5


class ServerLog:
    """The lines of the container: those of its start, which each new version of an endpoint gets, and those since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start: list[str] = []
        self._recent: deque[str] = deque(maxlen=MAX_LINES)
        self._is_started = False

    def append(self, line: str, *, is_last_of_start: bool = False) -> None:
        with self._lock:
            if not self._is_started:
                self._start.append(line)
                self._is_started = is_last_of_start
            else:
                self._recent.append(line)

    def take(self) -> tuple[list[str], list[str]]:
        """Return the lines of the start, empty until it is over, and those since that were not taken before."""
        with self._lock:
            recent = list(self._recent)
            self._recent.clear()
            return (list(self._start) if self._is_started else []), recent


class LogPublisher(threading.Thread):
    """Publishes the container's lines in the log of every endpoint."""

    def __init__(self, aws: Aws, log: ServerLog, wakeup: Wakeup) -> None:
        super().__init__(name="log of the endpoints", daemon=True)
        self._aws, self._log, self._wakeup = aws, log, wakeup
        self._streams: set[tuple[str, str]] = set()

    def run(self) -> None:
        while not self._wakeup.is_stopped:
            self.publish()
            time.sleep(POLL_S)

    def publish(self) -> None:
        """Publish what is new: the start for new versions, and recent lines for those that have it."""
        start, recent = self._log.take()
        versions = set(endpoint_versions()) if start else set()
        for endpoint, version in versions:
            try:
                if (endpoint, version) not in self._streams:
                    self._create_stream(endpoint, version)
                    self._put(endpoint, version, start)
                self._put(endpoint, version, recent)
            except DeployError as err:  # such as a log group that was deleted
                logger.warning("%s: %s", self.name, err)
                self._streams.discard((endpoint, version))
        self._streams &= versions

    def _create_stream(self, endpoint: str, version: str) -> None:
        group = LOG_GROUP_FOLDER + endpoint
        create_log_group(self._aws, group, {})
        try:
            self._aws.call("logs", "CreateLogStream", logGroupName=group, logStreamName=stream_name(version))
        except CallFailed as err:
            if err.code != "ResourceAlreadyExistsException":  # the endpoint went back to an older version
                raise
        self._streams.add((endpoint, version))

    def _put(self, endpoint: str, version: str, lines: list[str]) -> None:
        now_ms = time.time_ns() // 10**6
        events = [{"timestamp": now_ms, "message": line} for line in lines if line]
        if events:
            place = {"logGroupName": LOG_GROUP_FOLDER + endpoint, "logStreamName": stream_name(version)}
            self._aws.call("logs", "PutLogEvents", **place, logEvents=events)


def stream_name(version: str) -> str:
    """Return the name of a container's stream. version: the name of the endpoint's configuration."""
    return f"{VARIANT}/{version}"
