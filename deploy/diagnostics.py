"""Finds the cause of an AWS error message and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """name: a short label; pattern: what AWS's message contains; advice: what to do."""

    name: str
    pattern: re.Pattern[str]
    advice: str


def make_cause(name: str, pattern: str, advice: str) -> Cause:
    return Cause(name, re.compile(pattern, re.IGNORECASE), advice)


DRIVER = make_cause(
    "driver",
    # The first is Viseme's own message (inference/backends/device.py), the others are torch's and CUDA's.
    r"cannot use one \(NVIDIA driver|driver on your system is too old|CUDA driver version is insufficient|"
    r"forward compatibility|no CUDA-capable",
    "the instance's NVIDIA driver does not fit the image's CUDA version: choose another with --inference-ami-version "
    "(table in deploy/README.md)",
)
# The first match is used: specific causes come before general ones.
CAUSES = (
    make_cause(
        "quota",
        r"ResourceLimitExceeded|service limit|quota",
        "the account's quota for this instance type is used up or zero: raise it in Service Quotas, Amazon "
        "SageMaker, '<instance type> for endpoint usage', or choose another --instance-type",
    ),
    make_cause(
        "capacity",
        r"InsufficientInstanceCapacity|insufficient capacity|unable to provision|CapacityError",
        "AWS has no free instance of this type at the moment: try later, another --region or another --instance-type",
    ),
    make_cause(
        "role",
        r"could not assume role|invalid role|RoleArn|execution role|PassRole",
        "check --role-arn: the role must exist in this account and trust sagemaker.amazonaws.com, and you need "
        "iam:PassRole for it",
    ),
    make_cause(
        "model data",
        r"model ?data|s3://|model artifact",
        "the role cannot read the model archive, or it is not a .tar.gz in this region: check --model-data and that "
        "the role may s3:GetObject it",
    ),
    make_cause(
        "manifest",
        r"manifest media type",
        "the image is stored in a form that SageMaker does not run, which Docker pushes by default: build and push it "
        "with python -m deploy.image",
    ),
    make_cause(
        "image",
        r"\bimage\b|\becr\b|\becr:|manifest",
        "the image cannot be pulled: check --image-uri, that it is in this region's ECR, and that the role may "
        "ecr:BatchGetImage and ecr:GetDownloadUrlForLayer it",
    ),
    make_cause(
        "health check",
        r"health check|\bping\b",
        "the container started but never answered GET /ping with 200: its last log lines are below",
    ),
    make_cause(
        "credentials",
        r"ExpiredToken|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|security token",
        "your own credentials are invalid or have expired: sign in again, or check AWS_PROFILE",
    ),
    make_cause(
        "permission",
        r"AccessDenied|not authorized|Forbidden|\b403\b",
        "your own user or role may not make this call: deploy/README.md has the policy it needs",
    ),
)


def find_cause(message: str, log_lines: Sequence[str] = ()) -> Cause | None:
    """Return the cause of an AWS error message; a driver error in the container's log takes precedence."""
    if any(DRIVER.pattern.search(line) for line in [message, *log_lines]):
        return DRIVER
    return next((one for one in CAUSES if one.pattern.search(message)), None)


def explain_call(service: str, operation: str, code: str, message: str) -> str:
    """Describe a refused call: the cause, the call, AWS's message, and on a second line what to do."""
    line = f"{service} {operation}: {code}: {message}"
    # When AWS denies the caller access, the message names resources that are not the cause.
    is_denied = code in ("AccessDenied", "AccessDeniedException") and "PassRole" not in message
    found = find_cause(code if is_denied else f"{code}: {message}")
    return f"{found.name}: {line}\n{found.advice}" if found else line


def explain_failure(subject: str, reason: str, log_lines: Sequence[str]) -> str:
    """Describe a failed endpoint: the cause, SageMaker's reason, what to do, and the container's last log lines."""
    found = find_cause(reason, log_lines)
    head = f"{found.name}: {subject}: {reason}\n{found.advice}" if found else f"{subject}: {reason}"
    if not log_lines:
        return head + "\nno log lines: the container never started"
    return "\n".join([head, "the container's last log lines:", *(f"  {line}" for line in log_lines)])


def explain_answer(subject: str, reason: str, log_lines: Sequence[str]) -> str:
    """Describe a wrong answer: the container's words, and its last log lines.

    Only a driver is recognised as its cause: the other patterns are those of AWS's messages.
    """
    is_driver = any(DRIVER.pattern.search(line) for line in [reason, *log_lines])
    head = f"{DRIVER.name}: {subject}: {reason}\n{DRIVER.advice}" if is_driver else f"{subject}: {reason}"
    return "\n".join([head, "the container's last log lines:", *(f"  {line}" for line in log_lines or ["none"])])
