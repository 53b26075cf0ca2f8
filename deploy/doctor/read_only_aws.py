"""AWS as the doctor uses it: only calls that change nothing, each with the permission it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from deploy.aws import Answer, Aws
from deploy.doctor.findings import Finding, not_checked
from deploy.errors import CallFailed, DeployError

# The calls, and the IAM action that allows each.
PERMISSIONS = {
    "DescribeEndpoint": "sagemaker:DescribeEndpoint",
    "DescribeEndpointConfig": "sagemaker:DescribeEndpointConfig",
    "DescribeModel": "sagemaker:DescribeModel",
    "InvokeEndpoint": "sagemaker:InvokeEndpoint",  # runs the model, and leaves nothing behind
    "BatchGetImage": "ecr:BatchGetImage",
    "HeadObject": "s3:GetObject",
    "GetRole": "iam:GetRole",
    "SimulatePrincipalPolicy": "iam:SimulatePrincipalPolicy",
    "DescribeLogGroups": "logs:DescribeLogGroups",
    "DescribeLogStreams": "logs:DescribeLogStreams",
    "GetLogEvents": "logs:GetLogEvents",
    "FilterLogEvents": "logs:FilterLogEvents",
    "DescribeAlarms": "cloudwatch:DescribeAlarms",
    "DescribeScalableTargets": "application-autoscaling:DescribeScalableTargets",
    "DescribeScalingPolicies": "application-autoscaling:DescribeScalingPolicies",
    "ListServiceQuotas": "servicequotas:ListServiceQuotas",
}
DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "403"})


class ReadOnlyAws:
    """Makes the calls of PERMISSIONS only, and remembers the last."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.last_operation = ""

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        """Make one call. Raises: CallFailed, DeployError; KeyError if the call is none of those that change nothing."""
        if operation not in PERMISSIONS:
            raise KeyError(operation)
        self.last_operation = operation
        return self._aws.call(service, operation, **parameters)

    def pages(self, service: str, operation: str, items: str, n_pages: int, **parameters: Any) -> Iterator[Answer]:
        """Yield what lies in `items` of each page of an answer, of n_pages at most."""
        for _ in range(n_pages):
            page = self.call(service, operation, **parameters)
            yield from page.get(items, [])
            token = page.get("NextToken")
            if not token:
                return
            parameters["NextToken"] = token


def denied(aws: ReadOnlyAws, name: str, err: CallFailed) -> Finding:
    """Return the finding of a check whose last call AWS denied."""
    return not_checked(name, f"{err.code}, needs {PERMISSIONS[aws.last_operation]}")


def guard(aws: ReadOnlyAws, name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; one line that it was not checked if one of its calls fails. name: of the check."""
    try:
        yield from check()
    except CallFailed as err:
        is_denied = err.code in DENIED_CODES
        yield denied(aws, name, err) if is_denied else not_checked(name, f"{err.code}: {err.aws_message}")
    except DeployError as err:
        yield not_checked(name, str(err))
