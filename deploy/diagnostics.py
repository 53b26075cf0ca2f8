"""From what AWS says to what is wrong and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """name: in one word; sign: what AWS's words hold; advice: what to do."""

    name: str
    sign: re.Pattern[str]
    advice: str


def cause(name: str, sign: str, advice: str) -> Cause:
    return Cause(name, re.compile(sign, re.IGNORECASE), advice)


DRIVER = cause(
    "driver",
    # The first is Viseme's own word, the others torch's and CUDA's.
    r"cannot use one \(NVIDIA driver|driver on your system is too old|CUDA driver version is insufficient|"
    r"forward compatibility|no CUDA-capable",
    "the instance's NVIDIA driver does not fit the image's CUDA: choose another with --inference-ami-version "
    "(deploy/README.md has the table)",
)
# The first that fits is the one: the particular before the general.
CAUSES = (
    cause(
        "quota",
        r"ResourceLimitExceeded|service limit|quota",
        "the account's quota for this instance type is used up or zero: raise it in Service Quotas, Amazon "
        "SageMaker, '<instance type> for endpoint usage', or choose another --instance-type",
    ),
    cause(
        "capacity",
        r"InsufficientInstanceCapacity|insufficient capacity|unable to provision|CapacityError",
        "AWS has no such instance to give right now: try later, another --region or another --instance-type",
    ),
    cause(
        "role",
        r"could not assume role|invalid role|RoleArn|execution role|PassRole",
        "check --role-arn: the role must exist in this account, trust sagemaker.amazonaws.com, and you need "
        "iam:PassRole for it",
    ),
    cause(
        "model data",
        r"model ?data|s3://|model artifact",
        "the role cannot read the model archive, or it is not a .tar.gz in this region: check --model-data and that "
        "the role may s3:GetObject it",
    ),
    cause(
        "image",
        r"\bimage\b|\becr\b|\becr:|manifest",
        "the image cannot be pulled: check --image-uri, that it lies in this region's ECR, and that the role may "
        "ecr:BatchGetImage and ecr:GetDownloadUrlForLayer it",
    ),
    cause(
        "health check",
        r"health check|\bping\b",
        "the container started but never answered GET /ping with 200: what it said last is below",
    ),
    cause(
        "credentials",
        r"ExpiredToken|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|security token",
        "your own credentials are not valid (any more): sign in again, or check AWS_PROFILE",
    ),
    cause(
        "permission",
        r"AccessDenied|not authorized|Forbidden|\b403\b",
        "your own user or role may not make this call: deploy/README.md has the policy it needs",
    ),
)


def find_cause(said: str, log_lines: Sequence[str] = ()) -> Cause | None:
    """What stands behind AWS's words; the container's own log knows best about its driver."""
    if any(DRIVER.sign.search(line) for line in [said, *log_lines]):
        return DRIVER
    return next((one for one in CAUSES if one.sign.search(said)), None)


def explain_call(service: str, operation: str, code: str, message: str) -> str:
    """A refused call in one line: what was called, what AWS said, what to do."""
    line = f"{service} {operation}: {code}: {message}"
    # A refusal to the caller names the resources it is about, which are not its cause.
    refused = code in ("AccessDenied", "AccessDeniedException") and "PassRole" not in message
    found = find_cause(code if refused else f"{code}: {message}")
    return f"{found.name}: {line}\n{found.advice}" if found else line


def explain_failure(what: str, reason: str, log_lines: Sequence[str]) -> str:
    """An endpoint that failed: what SageMaker says, what to do, and the container's last words."""
    found = find_cause(reason, log_lines)
    head = f"{found.name}: {what}: {reason}\n{found.advice}" if found else f"{what}: {reason}"
    if not log_lines:
        return head + "\nno log lines: the container never started"
    return "\n".join([head, "the container's last log lines:", *(f"  {line}" for line in log_lines)])
