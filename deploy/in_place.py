"""Replaces an endpoint by deleting it first, for an account whose quota does not allow a second instance.

A blue/green update starts the new instances beside the old ones, and a rolling one also needs one more: with a quota of
one instance, UpdateEndpoint is refused with ResourceLimitExceeded. Between the two versions nothing answers.
"""

from __future__ import annotations

from deploy import scaling
from deploy.aws import Answer, Aws
from deploy.aws_requests import DeploymentSpec, Request, endpoint_request
from deploy.errors import CallFailed, DeployError, RequestFailed, RolledBack
from deploy.rollout import ServiceCheck, accept_untested, count_instances
from deploy.scaling import CapacityBounds
from deploy.versions import create_version, delete_old_versions, delete_version
from deploy.waiting import WaitPolicy, describe_endpoint, wait_until_deleted, wait_until_in_service

# An instance of a deleted endpoint may be counted for a while: at 15 s between two attempts, five minutes.
QUOTA_ATTEMPTS = 20


def replace_in_place(
    aws: Aws,
    spec: DeploymentSpec,
    found: Answer,
    bounds: CapacityBounds | None,
    wait_policy: WaitPolicy,
    check_service: ServiceCheck = accept_untested,
) -> None:
    """Delete the endpoint and create it with the new version; create it with the old one again if that fails.

    found: the endpoint's description from `find_updatable`; bounds: its current ones, None if it does not scale.
    Raises: RolledBack, DeployError.
    """
    old = found["EndpointConfigName"]
    create_version(aws, spec, wait_policy, count_instances(found))
    try:
        if bounds:
            scaling.disable_autoscaling(aws, spec.endpoint)
        aws.call("sagemaker", "DeleteEndpoint", EndpointName=spec.endpoint)
    except CallFailed:
        restore_bounds(aws, spec, bounds)
        delete_version(aws, spec, wait_policy)
        raise
    wait_policy.report(f"{spec.endpoint}: answers nothing until {spec.name} is in service")
    try:
        untested = start(aws, spec, spec.name, wait_policy, check_service)
    except DeployError as err:
        go_back(aws, spec, old, wait_policy, err)
        restore_bounds(aws, spec, bounds)
        delete_version(aws, spec, wait_policy)
        raise RolledBack(f"{err}\nthe update to {spec.name} was undone; {old} serves again") from err
    except KeyboardInterrupt:
        wait_policy.report(
            f"{spec.endpoint} is deleted, or starts with {spec.name}; if it does not exist, the same command without "
            "--update and --in-place, but with what was kept, creates it"
        )
        raise
    scaling.enable_autoscaling(aws, spec)
    if untested:
        raise DeployError(f"{untested}\n{spec.name} is in service, but untested; {old} was kept") from untested
    delete_old_versions(aws, spec.endpoint, wait_policy, keep=spec.name)


def start(
    aws: Aws, spec: DeploymentSpec, config: str, wait_policy: WaitPolicy, check_service: ServiceCheck
) -> DeployError | None:
    """Create the endpoint once the old one is gone, and check that it answers.

    Returns: why it could not be tested; None if it answers as it should. Raises: DeployError if it does not.
    """
    wait_until_deleted(aws, spec.endpoint, wait_policy)
    create_endpoint(aws, endpoint_request(spec) | {"EndpointConfigName": config}, wait_policy)
    wait_until_in_service(aws, spec.endpoint, config, wait_policy)
    try:
        check_service(spec)
    except RequestFailed:
        raise
    except DeployError as err:
        return err
    return None


def create_endpoint(aws: Aws, request: Request, wait_policy: WaitPolicy) -> None:
    """Create an endpoint; try again while the quota still counts the one that was deleted."""
    for attempt in range(1, QUOTA_ATTEMPTS + 1):
        try:
            aws.call("sagemaker", "CreateEndpoint", **request)
        except CallFailed as err:
            if err.code != "ResourceLimitExceeded" or attempt == QUOTA_ATTEMPTS:
                raise
            wait_policy.sleep(wait_policy.poll_s)
        else:
            return


def go_back(aws: Aws, spec: DeploymentSpec, old: str, wait_policy: WaitPolicy, reason: DeployError) -> None:
    """Create the endpoint with its old configuration. Raises: DeployError if it does not serve that in the end."""
    wait_policy.report(f"{spec.endpoint}: the new version failed; going back to {old}")
    try:
        if describe_endpoint(aws, spec.endpoint):
            aws.call("sagemaker", "DeleteEndpoint", EndpointName=spec.endpoint)
        start(aws, spec, old, wait_policy, accept_untested)
    except DeployError as err:
        raise DeployError(
            f"{reason}\n{old} could not be restored: {err}\nonce the endpoint is gone, this creates it: aws sagemaker "
            f"create-endpoint --endpoint-name {spec.endpoint} --endpoint-config-name {old}"
        ) from err


def restore_bounds(aws: Aws, spec: DeploymentSpec, bounds: CapacityBounds | None) -> None:
    if bounds:
        scaling.register_bounds(aws, spec, bounds)
