"""Creating, updating and deleting an endpoint, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploy import scaling
from deploy.aws import Answer, Aws
from deploy.errors import CallFailed, DeployError, RolledBack, WrongRequest
from deploy.requests import ROLLBACK_ALARMS, VARIANT, Mode, Order, alarm_name, alarms, update_request
from deploy.scaling import Bounds
from deploy.versions import CONFIG, abandon, clean, delete_one, prepare
from deploy.waiting import Patience, describe_endpoint, wait_until_gone, wait_until_in_service


def create(aws: Aws, order: Order, patience: Patience) -> None:
    """A new endpoint, until it serves.

    Raises: DeployError.
    """
    prepare(aws, order, patience)
    try:
        aws.call("sagemaker", "CreateEndpoint", EndpointName=order.endpoint, EndpointConfigName=order.name)
    except CallFailed:
        abandon(aws, order, patience)
        raise
    with leave_to_look_at():
        wait_until_in_service(aws, order.endpoint, order.name, patience)
    scaling.wire(aws, order)


@contextmanager
def leave_to_look_at() -> Iterator[None]:
    """Raises: DeployError that also says what becomes of an endpoint that failed."""
    try:
        yield
    except DeployError as err:
        raise DeployError(f"{err}\nit was left for you to look at; --delete takes it away") from err


def check_absent(aws: Aws, endpoint: str) -> None:
    """Raises: WrongRequest where there is such an endpoint."""
    found = describe_endpoint(aws, endpoint)
    if found:
        raise WrongRequest(
            f"{endpoint}: is there already ({found['EndpointStatus']}); --update changes it, --delete takes it away"
        )


def update(aws: Aws, order: Order, found: Answer, bounds: Bounds | None, patience: Patience) -> None:
    """The endpoint to a new version, blue beside green, back again where alarms or health checks say so.

    found: the endpoint as `find_updatable` found it; bounds: between which it scales.
    Raises: RolledBack, DeployError.
    """
    n_now = count_instances(found)
    prepare(aws, order, patience, n_now)
    with put_back(aws, order, bounds, patience, CallFailed):
        for alarm in alarms(order):
            aws.call("cloudwatch", "PutMetricAlarm", **alarm)
        if bounds:  # a variant that scales may not change its instance type
            scaling.unwire(aws, order.endpoint)
        aws.call("sagemaker", "UpdateEndpoint", **update_request(order, n_now))
    # From here on the update runs on AWS: that a question about it is refused does not stop it.
    with put_back(aws, order, bounds, patience, RolledBack):
        wait_until_in_service(aws, order.endpoint, order.name, patience)
    scaling.wire(aws, order)
    clean(aws, order.endpoint, patience, keep=order.name)


@contextmanager
def put_back(
    aws: Aws, order: Order, bounds: Bounds | None, patience: Patience, failure: type[DeployError]
) -> Iterator[None]:
    """After that failure the old version serves on: leave everything as it was.

    After any other nobody knows how the update ends, and neither version's scaling can be put back.
    """
    try:
        yield
    except failure:
        if bounds:
            scaling.wire_bounds(aws, order.endpoint, order.mode, bounds)
        abandon(aws, order, patience)
        raise
    except (DeployError, KeyboardInterrupt):
        if bounds:
            again = f"--update --min-capacity {bounds.least} --max-capacity {bounds.most}"
            patience.say(f"scaling between {bounds.least} and {bounds.most} instances is off; {again} puts it back")
        raise


def find_updatable(aws: Aws, endpoint: str, mode: Mode) -> Answer:
    """The endpoint as it is. Raises: WrongRequest where it cannot become what was ordered."""
    found = describe_endpoint(aws, endpoint)
    if not found:
        raise WrongRequest(f"{endpoint}: no such endpoint here; leave --update out to create it")
    status = found["EndpointStatus"]
    if status != "InService":
        raise WrongRequest(f"{endpoint}: is {status}; only one that is InService can be updated")
    if mode_of(found) != mode:
        raise WrongRequest(
            f"{endpoint}: is {mode_of(found)} and cannot become {mode}: say --mode {mode_of(found)}, or take another "
            "name for one of the other kind"
        )
    names = [one["VariantName"] for one in found.get("ProductionVariants", [])]
    if names != [VARIANT]:
        raise WrongRequest(f"{endpoint}: its variants are called {', '.join(names)}; expected {VARIANT} alone")
    return found


def mode_of(found: Answer) -> Mode:
    return "async" if found.get("AsyncInferenceConfig") else "realtime"


def count_instances(found: Answer) -> int:
    """How many run now."""
    return sum(int(one.get("CurrentInstanceCount", 0)) for one in found.get("ProductionVariants", []))


def delete(aws: Aws, endpoint: str, patience: Patience) -> None:
    """The endpoint, its scaling, alarms, configurations, models and their archives. Films and answers stay.

    Raises: WrongRequest where there is nothing to delete; DeployError.
    """
    found = describe_endpoint(aws, endpoint)
    if found:  # first: where that is refused, all the rest is still as it was
        aws.call("sagemaker", "DeleteEndpoint", EndpointName=endpoint)
    scaling.unwire(aws, endpoint)
    scaling.delete_alarms(aws, [alarm_name(endpoint, what) for what in ROLLBACK_ALARMS])
    if found:
        wait_until_gone(aws, endpoint, patience)
        if found.get("EndpointConfigName") == endpoint:  # which is how SageMaker's own SDK names it
            delete_one(aws, CONFIG, endpoint, patience)
    n_cleaned = clean(aws, endpoint, patience)
    if not found and not n_cleaned:
        raise WrongRequest(f"{endpoint}: no such endpoint in this region, and nothing is left of one")
    patience.say(f"{endpoint}: deleted")
