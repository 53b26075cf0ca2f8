"""Creates, updates and deletes an endpoint, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploy import scaling
from deploy.aws import Answer, Aws
from deploy.aws_requests import (
    ROLLBACK_ALARMS,
    VARIANT,
    DeploymentSpec,
    Mode,
    rollback_alarm_name,
    rollback_alarms,
    update_request,
)
from deploy.errors import CallFailed, DeployError, RolledBack, WrongRequest
from deploy.scaling import CapacityBounds
from deploy.versions import CONFIG, create_version, delete_old_versions, delete_resource, delete_version
from deploy.waiting import WaitPolicy, describe_endpoint, wait_until_deleted, wait_until_in_service


def create(aws: Aws, spec: DeploymentSpec, wait_policy: WaitPolicy) -> None:
    """Create an endpoint and wait until it serves.

    Raises: DeployError.
    """
    create_version(aws, spec, wait_policy)
    try:
        aws.call("sagemaker", "CreateEndpoint", EndpointName=spec.endpoint, EndpointConfigName=spec.name)
    except CallFailed:
        delete_version(aws, spec, wait_policy)
        raise
    with keep_failed_endpoint():
        wait_until_in_service(aws, spec.endpoint, spec.name, wait_policy)
    scaling.enable_autoscaling(aws, spec)


@contextmanager
def keep_failed_endpoint() -> Iterator[None]:
    """Leave a failed endpoint in place, and add to the DeployError how to delete it."""
    try:
        yield
    except DeployError as err:
        raise DeployError(f"{err}\nthe endpoint was kept for inspection; --delete removes it") from err


def check_absent(aws: Aws, endpoint: str) -> None:
    """Raise WrongRequest if there is already an endpoint of that name."""
    found = describe_endpoint(aws, endpoint)
    if found:
        raise WrongRequest(
            f"{endpoint}: already exists ({found['EndpointStatus']}); --update changes it, --delete removes it"
        )


def update(
    aws: Aws, spec: DeploymentSpec, found: Answer, bounds: CapacityBounds | None, wait_policy: WaitPolicy
) -> None:
    """Update the endpoint to a new version, blue/green, with rollback on alarms or failed health checks.

    found: the endpoint's description from `find_updatable`; bounds: its current ones, None if it does not scale.
    Raises: RolledBack, DeployError.
    """
    n_running = count_instances(found)
    create_version(aws, spec, wait_policy, n_running)
    with rollback_on(CallFailed, aws, spec, bounds, wait_policy):
        for alarm in rollback_alarms(spec):
            aws.call("cloudwatch", "PutMetricAlarm", **alarm)
        if bounds:  # the instance type of a variant that scales cannot be changed
            scaling.disable_autoscaling(aws, spec.endpoint)
        aws.call("sagemaker", "UpdateEndpoint", **update_request(spec, n_running))
    # From here on the update runs on AWS: a failed status request does not stop it.
    with rollback_on(RolledBack, aws, spec, bounds, wait_policy):
        wait_until_in_service(aws, spec.endpoint, spec.name, wait_policy)
    scaling.enable_autoscaling(aws, spec)
    delete_old_versions(aws, spec.endpoint, wait_policy, keep=spec.name)


@contextmanager
def rollback_on(
    failure: type[DeployError],
    aws: Aws,
    spec: DeploymentSpec,
    bounds: CapacityBounds | None,
    wait_policy: WaitPolicy,
) -> Iterator[None]:
    """Restore scaling and delete the new version after that failure, since the old version still serves.

    After any other failure it is unknown how the update ends, so neither version's scaling can be restored.
    """
    try:
        yield
    except failure:
        if bounds:
            scaling.register_bounds(aws, spec.endpoint, spec.mode, bounds)
        delete_version(aws, spec, wait_policy)
        raise
    except (DeployError, KeyboardInterrupt):
        if bounds:
            again = f"--update --min-capacity {bounds.minimum} --max-capacity {bounds.maximum}"
            wait_policy.report(
                f"scaling between {bounds.minimum} and {bounds.maximum} instances is off; {again} restores it"
            )
        raise


def find_updatable(aws: Aws, endpoint: str, mode: Mode) -> Answer:
    """Return the endpoint's description. Raises: WrongRequest if it cannot be updated to that mode."""
    found = describe_endpoint(aws, endpoint)
    if not found:
        raise WrongRequest(f"{endpoint}: no such endpoint in this region; omit --update to create it")
    status = found["EndpointStatus"]
    if status != "InService":
        raise WrongRequest(f"{endpoint}: is {status}; only an endpoint that is InService can be updated")
    if mode_of(found) != mode:
        raise WrongRequest(
            f"{endpoint}: is {mode_of(found)} and cannot become {mode}: pass --mode {mode_of(found)}, or create an "
            "endpoint with another name"
        )
    names = [one["VariantName"] for one in found.get("ProductionVariants", [])]
    if names != [VARIANT]:
        raise WrongRequest(f"{endpoint}: its variants are named {', '.join(names)}; expected only {VARIANT}")
    return found


def mode_of(found: Answer) -> Mode:
    return "async" if found.get("AsyncInferenceConfig") else "realtime"


def count_instances(found: Answer) -> int:
    """Return how many instances run now."""
    return sum(int(one.get("CurrentInstanceCount", 0)) for one in found.get("ProductionVariants", []))


def delete(aws: Aws, endpoint: str, wait_policy: WaitPolicy) -> None:
    """Delete the endpoint, its scaling, alarms, configurations, models and archives. Videos and answers stay.

    Raises: WrongRequest if there is nothing to delete; DeployError.
    """
    found = describe_endpoint(aws, endpoint)
    if found:  # first: if this is refused, nothing else has changed
        aws.call("sagemaker", "DeleteEndpoint", EndpointName=endpoint)
    scaling.disable_autoscaling(aws, endpoint)
    scaling.delete_alarms(aws, [rollback_alarm_name(endpoint, kind) for kind in ROLLBACK_ALARMS])
    if found:
        wait_until_deleted(aws, endpoint, wait_policy)
        if found.get("EndpointConfigName") == endpoint:  # SageMaker's own SDK names it so
            delete_resource(aws, CONFIG, endpoint, wait_policy)
    n_deleted = delete_old_versions(aws, endpoint, wait_policy)
    if not found and not n_deleted:
        raise WrongRequest(f"{endpoint}: no such endpoint in this region, and no versions of one")
    wait_policy.report(f"{endpoint}: deleted")
