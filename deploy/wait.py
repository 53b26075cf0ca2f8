"""Waiting for an endpoint, with a word on stderr now and then, and the reason where it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.aws import Answer, Aws
from deploy.causes import explain_failure
from deploy.errors import CallFailed, DeployError, RolledBack

BUSY = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}
N_LOG_LINES = 20


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
    found = watch(aws, endpoint, patience)
    status, reason = found.get("EndpointStatus"), found.get("FailureReason", "SageMaker gives no reason")
    if status == "InService" and found.get("EndpointConfigName") == config:
        patience.say(f"{endpoint}: in service with {config}")
        return
    log_lines = last_log_lines(aws, endpoint)
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


def watch(aws: Aws, endpoint: str, patience: Patience) -> Answer:
    """The endpoint's description once nothing changes any more; empty where it is gone.

    Raises: DeployError where that takes too long.
    """
    start = patience.clock()
    told = ""
    while found := describe_endpoint(aws, endpoint):
        status = str(found.get("EndpointStatus"))
        waited_s = patience.clock() - start
        if status not in BUSY:
            break
        if status != told:
            patience.say(f"{endpoint}: {status} ({waited_s:.0f} s)")
            told = status
        if waited_s >= patience.limit_s:
            raise DeployError(
                f"{endpoint}: still {status} after {waited_s:.0f} s; a container that hangs in Creating often has "
                "the wrong NVIDIA driver (see deploy/README.md)"
            )
        patience.sleep(patience.poll_s)
    return found


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


def last_log_lines(aws: Aws, endpoint: str) -> list[str]:
    """What the container wrote last; the complaint of one who may not read logs, in place of them."""
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    try:
        streams = aws.call(
            "logs", "DescribeLogStreams", logGroupName=group, orderBy="LastEventTime", descending=True, limit=1
        )
        return [
            event["message"].rstrip()
            for stream in streams.get("logStreams", [])
            for event in aws.call(
                "logs",
                "GetLogEvents",
                logGroupName=group,
                logStreamName=stream["logStreamName"],
                limit=N_LOG_LINES,
                startFromHead=False,
            ).get("events", [])
        ]
    except CallFailed as err:
        # Why the endpoint failed is what matters: that its log cannot be read is only said.
        return [] if err.code == "ResourceNotFoundException" else [f"(the log cannot be read: {err.code})"]
