"""Waiting for an endpoint, with a word on stderr now and then, and the reason where it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from deploy.aws import Answer, Aws
from deploy.diagnostics import explain_failure
from deploy.errors import CallFailed, DeployError, RolledBack

BUSY = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}
N_LOG_LINES = 20
N_LOG_STREAMS = 20  # the newest; a container has one
TELL_EVERY_S = 60
CLOCKS_APART_S = 120  # as much as ours may be ahead of AWS's; no instance starts faster than that


def say(text: str) -> None:
    """Progress and complaints: on stderr, since data go to stdout."""
    sys.stderr.write(f"{text}\n")


@dataclass(frozen=True)
class Patience:
    """How often to ask, how long to wait, and whom to tell."""

    poll_s: float = 15.0
    limit_s: float = 3600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = say


def wait_until_in_service(aws: Aws, endpoint: str, config: str, patience: Patience) -> None:
    """Until the endpoint runs that configuration.

    Raises: RolledBack where it runs another again; DeployError where it failed or took too long.
    """
    started = made_at(config)
    found = watch(aws, endpoint, patience, started)
    status, reason = found.get("EndpointStatus"), found.get("FailureReason", "SageMaker gives no reason")
    if status == "InService" and found.get("EndpointConfigName") == config:
        patience.say(f"{endpoint}: in service with {config}")
        return
    log_lines = last_log_lines(aws, endpoint, started)
    if status == "InService":
        what = f"{endpoint}: the update to {config} was rolled back; {found.get('EndpointConfigName')} serves on"
        raise RolledBack(explain_failure(what, reason, log_lines))
    raise DeployError(explain_failure(f"{endpoint}: {status}", reason, log_lines))


def wait_until_gone(aws: Aws, endpoint: str, patience: Patience) -> None:
    """Until there is no such endpoint. Raises: DeployError where its deletion fails."""
    found = watch(aws, endpoint, patience)
    if found:
        reason = found.get("FailureReason", f"its status is {found.get('EndpointStatus')}")
        raise DeployError(f"{endpoint}: not deleted: {reason}")


def watch(aws: Aws, endpoint: str, patience: Patience, started: datetime | None = None) -> Answer:
    """The endpoint's description once nothing changes any more; empty where it is gone.

    started: when what is waited for began, for whose log lines are shown.
    Raises: DeployError where that takes too long, with the container's last log lines.
    """
    start = patience.clock()
    told: tuple[str, float] | None = None
    while found := describe_endpoint(aws, endpoint):
        status = str(found.get("EndpointStatus"))
        waited_s = patience.clock() - start
        if status not in BUSY:
            break
        if told is None or told[0] != status or waited_s - told[1] >= TELL_EVERY_S:
            patience.say(f"{endpoint}: {status} ({waited_s:.0f} s)")
            told = status, waited_s
        if waited_s >= patience.limit_s:
            reason = "a container that hangs often has the wrong NVIDIA driver (see deploy/README.md)"
            what = f"{endpoint}: still {status} after {waited_s:.0f} s"
            raise DeployError(explain_failure(what, reason, last_log_lines(aws, endpoint, started)))
        patience.sleep(patience.poll_s)
    return found


def made_at(config: str) -> datetime | None:
    """When a version of ours was made, by its name; None for a name that somebody else gave."""
    try:
        return datetime.strptime(config[-14:], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def describe_endpoint(aws: Aws, endpoint: str) -> Answer:
    """Empty where there is no such endpoint."""
    try:
        return aws.call("sagemaker", "DescribeEndpoint", EndpointName=endpoint)
    except CallFailed as err:
        if is_missing(err):
            return {}
        raise


def is_missing(err: CallFailed) -> bool:
    """SageMaker has no error of its own for what is not there."""
    return err.code == "ResourceNotFound" or (
        err.code == "ValidationException" and "could not find" in err.said.lower()
    )


def last_log_lines(aws: Aws, endpoint: str, started: datetime | None = None) -> list[str]:
    """What the container wrote last; the complaint of one who may not read logs, in place of them.

    started: containers that are older are passed over. While an endpoint is updated its old ones write on, and
        theirs are not the lines that say why the new ones failed.
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
        # Why the endpoint failed is what matters: that its log cannot be read is only said.
        return [] if err.code == "ResourceNotFoundException" else [f"(the log cannot be read: {err.code})"]


def find_log_stream(aws: Aws, group: str, started: datetime | None) -> str | None:
    """The container that wrote last, of those that are new enough."""
    found = aws.call(
        "logs",
        "DescribeLogStreams",
        logGroupName=group,
        orderBy="LastEventTime",
        descending=True,
        limit=N_LOG_STREAMS,
    )
    since_ms = (started.timestamp() - CLOCKS_APART_S) * 1000 if started else 0
    names: list[str] = [one["logStreamName"] for one in found.get("logStreams", []) if one["creationTime"] >= since_ms]
    return names[0] if names else None
