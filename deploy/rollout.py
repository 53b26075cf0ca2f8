"""Creates, updates and deletes an endpoint, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy import scaling
from deploy.aws import Answer, Aws
from deploy.aws_requests import (
    ROLLBACK_ALARMS,
    VARIANT,
    DeploymentSpec,
    Mode,
    endpoint_request,
    restore_request,
    rollback_alarm_name,
    rollback_alarms,
    update_request,
)
from deploy.errors import CallFailed, DeployError, RequestFailed, RolledBack, WrongRequest
from deploy.logs import prepare_log_group
from deploy.scaling import CapacityBounds
from deploy.versions import CONFIG, create_version, delete_old_versions, delete_resource, delete_version
from deploy.waiting import WaitPolicy, describe_endpoint, wait_until_deleted, wait_until_in_service

# Sends a version that is in service real requests; raises RequestFailed if an answer is wrong.
ServiceCheck = Callable[[DeploymentSpec], None]


def accept_untested(_spec: DeploymentSpec) -> None:
    """Accept that a version is in service without sending it a request."""


def create(
    aws: Aws, spec: DeploymentSpec, wait_policy: WaitPolicy, check_service: ServiceCheck = accept_untested
) -> None:
    """Create an endpoint, wait until it is in service, and check that it answers.

    Raises: DeployError; the endpoint then stays, and scales as specified if it is in service.
    """
    create_version(aws, spec, wait_policy)
    prepare_log_group(aws, spec.endpoint, spec.log_days, dict(spec.governance.tags))
    try:
        aws.call("sagemaker", "CreateEndpoint", **endpoint_request(spec))
    except CallFailed:
        delete_version(aws, spec, wait_policy)
        raise
    with keep_failed_endpoint():
        wait_until_in_service(aws, spec.endpoint, spec.name, wait_policy)
    scaling.enable_autoscaling(aws, spec)
    with keep_running_endpoint(spec, wait_policy):
        check_service(spec)


@contextmanager
def keep_failed_endpoint() -> Iterator[None]:
    """Leave a failed endpoint in place, and add to the DeployError how to delete it."""
    try:
        yield
    except DeployError as err:
        raise DeployError(f"{err}\nthe endpoint was kept for inspection; --delete removes it") from err


@contextmanager
def keep_running_endpoint(spec: DeploymentSpec, wait_policy: WaitPolicy) -> Iterator[None]:
    """Leave an endpoint in place that is in service but does not answer, and add to the DeployError what that means.

    The same after Ctrl-C: the caller must know that it costs money.
    """
    try:
        yield
    except DeployError as err:
        fault = "it answers wrongly" if isinstance(err, RequestFailed) else "it could not be tested"
        raise DeployError(
            f"{err}\nthe endpoint was kept and costs money, although {fault}; --delete removes it, --update replaces it"
        ) from err
    except KeyboardInterrupt:
        wait_policy.report(
            f"{spec.endpoint} is in service and costs money, but has not been tested; this deletes it:\n"
            f"{delete_command(spec)}"
        )
        raise


def delete_command(spec: DeploymentSpec) -> str:
    return f"python -m deploy.endpoint --endpoint-name {spec.endpoint} --region {spec.region} --delete"


def check_absent(aws: Aws, endpoint: str) -> None:
    """Raise WrongRequest if there is already an endpoint of that name."""
    found = describe_endpoint(aws, endpoint)
    if found:
        raise WrongRequest(
            f"{endpoint}: already exists ({found['EndpointStatus']}); --update changes it, --delete removes it"
        )


def update(
    aws: Aws,
    spec: DeploymentSpec,
    found: Answer,
    bounds: CapacityBounds | None,
    wait_policy: WaitPolicy,
    check_service: ServiceCheck = accept_untested,
) -> None:
    """Update the endpoint to a new version, blue/green, with rollback on alarms or failed health checks.

    A version that is in service but answers wrongly is replaced by the old one, too. One that could not be tested
    stays, and so does the old version.
    found: the endpoint's description from `find_updatable`; bounds: its current ones, None if it does not scale.
    Raises: RolledBack, DeployError.
    """
    n_running = count_instances(found)
    create_version(aws, spec, wait_policy, n_running)
    if spec.log_days is not None:
        prepare_log_group(aws, spec.endpoint, spec.log_days)
    with rollback_on(CallFailed, aws, spec, bounds, wait_policy):
        for alarm in rollback_alarms(spec):
            aws.call("cloudwatch", "PutMetricAlarm", **alarm)
        if bounds:  # the instance type of a variant that scales cannot be changed
            scaling.disable_autoscaling(aws, spec.endpoint)
        if spec.governance.tags:  # UpdateEndpoint takes none
            aws.call("sagemaker", "AddTags", ResourceArn=found["EndpointArn"], **spec.governance.tagging())
        aws.call("sagemaker", "UpdateEndpoint", **update_request(spec, n_running))
    # From here on the update runs on AWS: a failed status request does not stop it.
    with rollback_on(RolledBack, aws, spec, bounds, wait_policy):
        wait_until_in_service(aws, spec.endpoint, spec.name, wait_policy)
        fault = check_or_restore(aws, spec, found, wait_policy, check_service)
    scaling.enable_autoscaling(aws, spec)
    if fault:
        old = found["EndpointConfigName"]
        raise DeployError(f"{fault}\n{spec.name} is in service, but untested; {old} was kept") from fault
    delete_old_versions(aws, spec.endpoint, wait_policy, keep=spec.name)


def check_or_restore(
    aws: Aws, spec: DeploymentSpec, found: Answer, wait_policy: WaitPolicy, check_service: ServiceCheck
) -> DeployError | None:
    """Check the new version; if it answers wrongly, update the endpoint back to the configuration it had.

    Returns: why the version could not be tested; None if it answers as it should.
    Raises: RolledBack once the old version serves again; DeployError if that fails.
    """
    try:
        check_service(spec)
    except KeyboardInterrupt:
        wait_policy.report(
            f"{spec.name} is in service, but has not been tested, and {found['EndpointConfigName']} was kept; this "
            f"deletes the endpoint, which costs money:\n{delete_command(spec)}"
        )
        raise
    except RequestFailed as err:
        old = found["EndpointConfigName"]
        wait_policy.report(f"{spec.endpoint}: the new version answers wrongly; going back to {old}")
        restore_config(aws, spec, old, count_instances(found), wait_policy)
        raise RolledBack(f"{err}\nthe update to {spec.name} was undone; {old} serves again") from err
    except DeployError as err:
        return err
    return None


def restore_config(aws: Aws, spec: DeploymentSpec, old: str, n_running: int, wait_policy: WaitPolicy) -> None:
    """Update the endpoint back to an older configuration. Raises: DeployError if it does not serve that in the end."""
    try:
        aws.call("sagemaker", "UpdateEndpoint", **restore_request(spec, old, n_running))
        wait_until_in_service(aws, spec.endpoint, old, wait_policy)
    except DeployError as err:  # RolledBack here means: the version that answers wrongly still serves
        raise DeployError(
            f"{spec.endpoint}: {spec.name} answers wrongly, and {old} could not be restored: {err}"
        ) from err


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
            scaling.register_bounds(aws, spec, bounds)
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
    if any("CurrentServerlessConfig" in one for one in found.get("ProductionVariants", [])):
        return "serverless"
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
