"""The endpoint's role: who may take it, and what it may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deploy.doctor.findings import Finding, failure, ok, warning
from deploy.doctor.read_only_aws import ReadOnlyAws
from deploy.doctor.version import EndpointVersion
from deploy.errors import CallFailed, DeployError
from deploy.logs import LOG_GROUP_FOLDER

TRUST, RIGHTS = "role", "permissions of the role"
SAGEMAKER = "sagemaker.amazonaws.com"
ALLOWED, DENIED = "allowed", "explicitDeny"


@dataclass(frozen=True)
class NeededAction:
    """An action that the endpoint needs. resource: its ARN; purpose: what fails without it."""

    action: str
    resource: str
    purpose: str


def check_role(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Check that SageMaker may take the role, and what it may do then. Raises: CallFailed, DeployError."""
    version.require_model()
    if not version.role_arn:
        raise DeployError("the model has no role")
    name = version.role_arn.rpartition("/")[2]
    try:
        role = aws.call("iam", "GetRole", RoleName=name)["Role"]
    except CallFailed as err:
        if err.code != "NoSuchEntity":
            raise
        yield failure(TRUST, f"{version.role_arn} does not exist", "create it: no new instance can start without it")
        return
    if may_be_taken(role.get("AssumeRolePolicyDocument", {})):
        yield ok(TRUST, f"{name} trusts {SAGEMAKER}")
    else:
        yield failure(TRUST, f"{name} does not trust {SAGEMAKER}", "allow it sts:AssumeRole in the role's trust policy")
    yield from check_actions(aws, version)


def may_be_taken(policy: dict[str, Any] | str) -> bool:
    """Return whether a trust policy allows SageMaker to take the role. policy: boto3 decodes it."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    statements = document.get("Statement", [])
    for one in [statements] if isinstance(statements, dict) else statements:
        principal = one.get("Principal", {})
        services = as_list(principal.get("Service", [])) if isinstance(principal, dict) else []
        if one.get("Effect") == "Allow" and SAGEMAKER in services:
            return True
    return False


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def needed_actions(version: EndpointVersion) -> list[NeededAction]:
    """Return what the endpoint does with its role."""
    _, partition, _, region, account, _ = version.found["EndpointArn"].split(":", 5)
    group = f"arn:{partition}:logs:{region}:{account}:log-group:{LOG_GROUP_FOLDER}{version.endpoint}:log-stream:x"
    needed = [NeededAction("logs:CreateLogStream", group, "logs"), NeededAction("logs:PutLogEvents", group, "logs")]
    needed.append(NeededAction("ecr:GetAuthorizationToken", "*", "the image"))
    if version.model_data:
        needed.append(NeededAction("s3:GetObject", arn_of(version.model_data, partition), "the archive"))
    output = version.async_config.get("OutputConfig", {})
    for field, purpose in (("S3OutputPath", "asynchronous answers"), ("S3FailurePath", "asynchronous errors")):
        if output.get(field):
            folder = arn_of(output[field], partition).rstrip("/")
            needed.append(NeededAction("s3:PutObject", f"{folder}/x", purpose))
    topics = [one for one in output.get("NotificationConfig", {}).values() if isinstance(one, str)]
    return needed + [NeededAction("sns:Publish", topic, "notifications") for topic in topics]


def arn_of(uri: str, partition: str) -> str:
    return f"arn:{partition}:s3:::{uri.removeprefix('s3://')}"


def check_actions(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Ask IAM for each action. Raises: CallFailed."""
    findings = []
    needed = needed_actions(version)
    for one in needed:
        answer = aws.call(
            "iam",
            "SimulatePrincipalPolicy",
            PolicySourceArn=version.role_arn,
            ActionNames=[one.action],
            ResourceArns=[one.resource],
        )
        decision = answer["EvaluationResults"][0]["EvalDecision"]
        if decision == ALLOWED:
            continue
        found, fix = f"{one.action} on {one.resource} is not allowed ({one.purpose})", f"allow {one.action}"
        if decision == DENIED:
            findings.append(failure(RIGHTS, f"{found}: {decision}", "remove the statement that denies it"))
        else:  # IAM simulates the role's own policies only
            findings.append(warning(RIGHTS, found, f"{fix}, unless a policy of the resource does"))
    yield from findings or [ok(RIGHTS, ", ".join(sorted({one.action for one in needed})))]
