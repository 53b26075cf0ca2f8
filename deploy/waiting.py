"""Waits for an endpoint, reports progress on stderr, and explains a failure with the container's log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from deploy.aws import Answer, Aws
from deploy.diagnostics import explain_failure
from deploy.errors import CallFailed, DeployError, RolledBack

TRANSIENT_STATUSES = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}
N_LOG_LINES = 20  # log lines shown after a failure
N_LOG_STREAMS = 20  # newest log streams searched; each container has one
PLATFORM_STREAM = "/data-log"  # ends the name of a stream that SageMaker writes for an asynchronous endpoint
READY = "viseme is ready"  # in the line that a container logs once its models are loaded
READY_FIELDS = ("device", "gpu", "driver", "torch_version", "torch_cuda", "openvino_version")
N_READY_PAGES = 5  # of FilterLogEvents, which may return empty ones
REPORT_INTERVAL_S = 60  # between two progress lines of the same status
MAX_CLOCK_SKEW_S = 120  # this machine's clock ahead of AWS's; no instance starts faster than that


def write_stderr(text: str) -> None:
    """Write a progress or error line to stderr: stdout is for data."""
    sys.stderr.write(f"{text}\n")


@dataclass(frozen=True)
class WaitPolicy:
    """How often to poll, how long to wait, and where to report progress."""

    poll_s: float = 15.0
    timeout_s: float = 3600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    report: Callable[[str], None] = write_stderr


def wait_until_in_service(aws: Aws, endpoint: str, config: str, wait_policy: WaitPolicy) -> None:
    """Wait until the endpoint serves that configuration.

    Raises: RolledBack if it went back to another configuration; DeployError if it failed or took too long.
    """
    started = created_at(config)
    found = wait_until_settled(aws, endpoint, wait_policy, started)
    status, reason = found.get("EndpointStatus"), found.get("FailureReason", "SageMaker gave no reason")
    if status == "InService" and found.get("EndpointConfigName") == config:
        wait_policy.report(f"{endpoint}: in service with {config}")
        return
    log_lines = read_last_log_lines(aws, endpoint, started)
    if status == "InService":
        subject = f"{endpoint}: the update to {config} was rolled back; {found.get('EndpointConfigName')} still serves"
        raise RolledBack(explain_failure(subject, reason, log_lines))
    raise DeployError(explain_failure(f"{endpoint}: {status}", reason, log_lines))


def wait_until_deleted(aws: Aws, endpoint: str, wait_policy: WaitPolicy) -> None:
    """Wait until the endpoint no longer exists. Raises: DeployError if its deletion fails."""
    found = wait_until_settled(aws, endpoint, wait_policy)
    if found:
        reason = found.get("FailureReason", f"its status is {found.get('EndpointStatus')}")
        raise DeployError(f"{endpoint}: not deleted: {reason}")


def wait_until_settled(aws: Aws, endpoint: str, wait_policy: WaitPolicy, started: datetime | None = None) -> Answer:
    """Return the endpoint's description once its status no longer changes; empty if it does not exist.

    started: when the awaited version was created; log lines of older containers are left out.
    Raises: DeployError with the container's last log lines if that takes too long.
    """
    start = wait_policy.clock()
    reported: tuple[str, float] | None = None
    while found := describe_endpoint(aws, endpoint):
        status = str(found.get("EndpointStatus"))
        waited_s = wait_policy.clock() - start
        if status not in TRANSIENT_STATUSES:
            break
        if reported is None or reported[0] != status or waited_s - reported[1] >= REPORT_INTERVAL_S:
            wait_policy.report(f"{endpoint}: {status} ({waited_s:.0f} s)")
            reported = status, waited_s
        if waited_s >= wait_policy.timeout_s:
            reason = "a container that hangs often has the wrong NVIDIA driver (see deploy/README.md)"
            subject = f"{endpoint}: still {status} after {waited_s:.0f} s"
            raise DeployError(explain_failure(subject, reason, read_last_log_lines(aws, endpoint, started)))
        wait_policy.sleep(wait_policy.poll_s)
    return found


def created_at(config: str) -> datetime | None:
    """Return when a version was created, from its name; None if the name was not made by this tool."""
    try:
        return datetime.strptime(config[-14:], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def describe_endpoint(aws: Aws, endpoint: str) -> Answer:
    """Return the endpoint's description; empty if there is no such endpoint."""
    try:
        return aws.call("sagemaker", "DescribeEndpoint", EndpointName=endpoint)
    except CallFailed as err:
        if is_missing(err):
            return {}
        raise


def is_missing(err: CallFailed) -> bool:
    """Return whether a resource does not exist: SageMaker has no error code of its own for that."""
    return err.code == "ResourceNotFound" or (
        err.code == "ValidationException" and "could not find" in err.aws_message.lower()
    )


def read_last_log_lines(aws: Aws, endpoint: str, started: datetime | None = None) -> list[str]:
    """Return the container's last log lines; one line with the error code if the log may not be read.

    started: containers older than this are skipped. During an update the old containers keep logging, and their
        lines do not explain why the new ones failed.
    """
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    try:
        stream = find_log_stream(aws, group, started)
        if stream is None:
            return []
        found = aws.call(
            "logs",
            "GetLogEvents",
            logGroupName=group,
            logStreamName=stream,
            limit=N_LOG_LINES,
            startFromHead=False,
        )
        return [event["message"].rstrip() for event in found.get("events", [])]
    except CallFailed as err:
        # The endpoint's own failure matters more: an unreadable log is only mentioned.
        return [] if err.code == "ResourceNotFoundException" else [f"(the log cannot be read: {err.code})"]


def find_log_stream(aws: Aws, group: str, started: datetime | None) -> str | None:
    """Return the stream of the container that logged last, among those that are new enough."""
    found = aws.call(
        "logs",
        "DescribeLogStreams",
        logGroupName=group,
        orderBy="LastEventTime",
        descending=True,
        limit=N_LOG_STREAMS,
    )
    since_ms = (started.timestamp() - MAX_CLOCK_SKEW_S) * 1000 if started else 0
    names: list[str] = [
        one["logStreamName"]
        for one in found.get("logStreams", [])
        if one["creationTime"] >= since_ms and not one["logStreamName"].endswith(PLATFORM_STREAM)
    ]
    return names[0] if names else None


def find_ready_line(aws: Aws, endpoint: str, started: datetime | None = None) -> str | None:
    """Return what the container reported of its hardware and libraries, as text; None if that cannot be found.

    started: older lines are skipped.
    """
    more = {"startTime": int((started.timestamp() - MAX_CLOCK_SKEW_S) * 1000)} if started else {}
    try:
        for _ in range(N_READY_PAGES):
            page = aws.call(
                "logs",
                "FilterLogEvents",
                logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}",
                filterPattern=f'"{READY}"',
                **more,
            )
            found = [text for event in page.get("events", []) if (text := describe_ready_line(event["message"]))]
            if found:
                return found[-1]
            if not page.get("nextToken"):
                return None
            more["nextToken"] = page["nextToken"]
    except CallFailed as err:  # the answers matter more: an unreadable log is only mentioned
        return None if err.code == "ResourceNotFoundException" else f"(the log cannot be read: {err.code})"
    return None


def describe_ready_line(message: str) -> str | None:
    """Return the fields of a ready line: JSON itself, or JSON after other text."""
    start, end = message.find("{"), message.rfind("}")
    try:
        found = json.loads(message[start : end + 1])
    except ValueError:
        return None
    return ", ".join(f"{name} {found[name]}" for name in READY_FIELDS if found.get(name)) or None
