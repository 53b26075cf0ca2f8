"""An endpoint on AWS, and what belongs to it, checked by calls that change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

from deploy import invocation
from deploy.aws import Answer, Aws
from deploy.aws_requests import MAX_NAME_LENGTH, NAME_PATTERN
from deploy.diagnostics import find_cause
from deploy.doctor.alarms import ALARMS, SCALING, check_alarms, check_scaling
from deploy.doctor.endpoint_logs import LOGS, check_logs
from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.model import (
    DRIVER,
    IMAGE,
    MODEL_DATA,
    SERVER,
    check_driver,
    check_image,
    check_model_data,
    check_server,
)
from deploy.doctor.quota import QUOTA, check_quota
from deploy.doctor.read_only_aws import DENIED_CODES, ReadOnlyAws, denied, guard
from deploy.doctor.role import TRUST, check_role
from deploy.doctor.version import VERSION, EndpointVersion
from deploy.errors import CallFailed, WrongRequest
from deploy.smoke_test import CLIP_WORDS, JSON, ReadingCheck, SmokeRequest, SyncCheck, explain_wrong_answer
from deploy.waiting import TRANSIENT_STATUSES, describe_endpoint

STATUS = "status"
Check = Callable[[ReadOnlyAws, EndpointVersion], Iterator[Finding]]
CHECKS: tuple[tuple[str, Check], ...] = (
    (IMAGE, check_image),
    (DRIVER, check_driver),
    (MODEL_DATA, check_model_data),
    (SERVER, check_server),
    (TRUST, check_role),
    (LOGS, check_logs),
    (ALARMS, check_alarms),
    (SCALING, check_scaling),
    (QUOTA, check_quota),
)
SERVING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})


def check_endpoint(aws: Aws, name: str, region: str) -> Iterator[Finding]:
    """Yield what is found; a check that AWS denies is a finding of its own, and the others go on.

    Raises: WrongRequest if there is no such endpoint; DeployError if AWS cannot be reached, or knows no caller.
    """
    if not NAME_PATTERN.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise WrongRequest(
            f"--endpoint-name {name}: expected letters, digits and inner hyphens, at most {MAX_NAME_LENGTH}"
        )
    read = ReadOnlyAws(aws)
    try:
        found = describe_endpoint(read, name)
        if not found:
            raise WrongRequest(f"--endpoint-name {name}: no such endpoint in {region}")
        yield check_status(found)
    except CallFailed as err:
        if err.code not in DENIED_CODES:
            raise
        found = {}
        yield denied(read, STATUS, err)
    version = EndpointVersion(name, found)
    yield from guard(read, VERSION, partial(version.describe, read))
    for title, check in CHECKS:
        yield from guard(read, title, partial(check, read, version))
    yield from check_answers(read, version)


def check_status(found: Answer) -> Finding:
    status, config = str(found.get("EndpointStatus")), found.get("EndpointConfigName")
    reason = str(found.get("FailureReason", ""))
    if status == "InService":
        return ok(STATUS, f"InService with {config}") if not reason else warning(STATUS, f"InService, {reason}")
    if status in TRANSIENT_STATUSES:
        return warning(STATUS, f"{status} with {config}", "run this again once it is InService")
    cause = find_cause(reason)
    fix = cause.advice if cause else "delete it and create it again: python -m deploy.endpoint --delete"
    return failure(STATUS, f"{status}: {reason or 'SageMaker gave no reason'}", fix)


def check_answers(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Send the requests of the smoke test, unless the endpoint is asynchronous: it would store its answers."""
    for request in (ReadingCheck(), SyncCheck()):
        if version.mode == "async":
            command = f"python -m deploy.invoke CLIP.mp4 --endpoint-name {version.endpoint}"
            yield not_checked(request.name, f"an asynchronous request stores its answer in S3; {command} sends one")
        elif version.status not in SERVING:
            yield not_checked(request.name, f"the endpoint is {version.status or 'not known to take requests'}")
        else:
            yield from guard(aws, request.name, partial(check_request, aws, version, request))


def check_request(aws: ReadOnlyAws, version: EndpointVersion, request: SmokeRequest) -> Iterator[Finding]:
    """Send one request. Raises: CallFailed if it did not reach the container."""
    try:
        answer = invocation.invoke_realtime(aws, version.endpoint, request.body(), request.content_type, JSON)
        found = request.describe(json.loads(answer))
    except CallFailed as err:
        if err.code != "ModelError":
            raise
        cause = find_cause(err.aws_message)
        fix = cause.advice if cause else "see the container's log"
        yield failure(request.name, f"{err.status or 'no answer in time'}: {err.aws_message}", fix)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as err:
        yield failure(request.name, explain_wrong_answer(answer, err), "see the container's log")
    else:
        if isinstance(request, ReadingCheck) and "as spoken" not in found:
            yield warning(request.name, found, f'the weights may know other words than "{CLIP_WORDS}"')
        else:
            yield ok(request.name, found)
