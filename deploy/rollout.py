"""Creating, updating and deleting an endpoint, step by step."""

from __future__ import annotations

from typing import Any

from deploy import scaling
from deploy.aws import Answer, Aws
from deploy.errors import CallFailed, DeployError, RolledBack, WrongRequest
from deploy.plan import (
    ROLLBACK_ALARMS,
    Mode,
    Order,
    alarm_name,
    alarms,
    config_request,
    is_version_of,
    model_request,
    update_request,
)
from deploy.wait import Patience, describe_endpoint, is_missing, wait_until_gone, wait_until_in_service


def create(aws: Aws, order: Order, patience: Patience) -> None:
    """A new endpoint, until it serves.

    Raises: DeployError.
    """
    prepare(aws, order)
    try:
        aws.call("sagemaker", "CreateEndpoint", EndpointName=order.endpoint, EndpointConfigName=order.name)
    except CallFailed:
        discard(aws, order.name, patience)
        raise
    try:
        wait_until_in_service(aws, order.endpoint, order.name, patience)
    except DeployError as err:
        raise DeployError(f"{err}\nit was left for you to look at; --delete takes it away") from err
    scaling.wire(aws, order)


def check_absent(aws: Aws, endpoint: str) -> None:
    """Raises: WrongRequest where there is such an endpoint."""
    found = describe_endpoint(aws, endpoint)
    if found:
        raise WrongRequest(
            f"{endpoint}: is there already ({found['EndpointStatus']}); --update changes it, --delete takes it away"
        )


def prepare(aws: Aws, order: Order) -> None:
    """The model and the configuration of this version."""
    aws.call("sagemaker", "CreateModel", **model_request(order))
    try:
        aws.call("sagemaker", "CreateEndpointConfig", **config_request(order))
    except CallFailed:
        aws.call("sagemaker", "DeleteModel", ModelName=order.name)
        raise


def update(aws: Aws, order: Order, found: Answer, patience: Patience) -> None:
    """The endpoint to a new version, blue beside green, back again where alarms or health checks say so.

    found: the endpoint as `find_updatable` found it.
    Raises: RolledBack, DeployError.
    """
    bounds = scaling.find_bounds(aws, order.endpoint)
    prepare(aws, order)
    try:
        for alarm in alarms(order):
            aws.call("cloudwatch", "PutMetricAlarm", **alarm)
        if bounds:  # a variant that scales may not change its instance type
            scaling.unwire(aws, order.endpoint)
        aws.call("sagemaker", "UpdateEndpoint", **update_request(order, count_instances(found)))
        wait_until_in_service(aws, order.endpoint, order.name, patience)
    except (CallFailed, RolledBack):  # the old version serves on: leave it as it was
        if bounds:
            scaling.wire_bounds(aws, order.endpoint, mode_of(found), bounds)
        discard(aws, order.name, patience)
        raise
    except DeployError as err:
        if bounds is None:
            raise
        off = f"scaling between {bounds.least} and {bounds.most} instances is off until an --update succeeds"
        raise DeployError(f"{err}\n{off}") from err
    scaling.wire(aws, order)
    clean(aws, order.endpoint, patience, keep=order.name)


def find_updatable(aws: Aws, order: Order) -> Answer:
    """The endpoint as it is. Raises: WrongRequest where it cannot become what was ordered."""
    found = describe_endpoint(aws, order.endpoint)
    if not found:
        raise WrongRequest(f"{order.endpoint}: no such endpoint here; leave --update out to create it")
    status = found["EndpointStatus"]
    if status != "InService":
        raise WrongRequest(f"{order.endpoint}: is {status}; only one that is InService can be updated")
    if mode_of(found) != order.mode:
        raise WrongRequest(
            f"{order.endpoint}: is {mode_of(found)} and cannot become {order.mode}; --delete it first, or take "
            "another name"
        )
    return found


def mode_of(found: Answer) -> Mode:
    return "async" if found.get("AsyncInferenceConfig") else "realtime"


def count_instances(found: Answer) -> int:
    """How many run now."""
    return sum(int(one.get("CurrentInstanceCount", 0)) for one in found.get("ProductionVariants", []))


def delete(aws: Aws, endpoint: str, patience: Patience) -> None:
    """The endpoint, its scaling, alarms, configurations and models. What lies in S3 stays.

    Raises: WrongRequest where there is nothing to delete; DeployError.
    """
    is_there = bool(describe_endpoint(aws, endpoint))
    scaling.unwire(aws, endpoint)
    scaling.delete_alarms(aws, [alarm_name(endpoint, what) for what in ROLLBACK_ALARMS])
    if is_there:
        aws.call("sagemaker", "DeleteEndpoint", EndpointName=endpoint)
        wait_until_gone(aws, endpoint, patience)
    n_cleaned = clean(aws, endpoint, patience)
    if not is_there and not n_cleaned:
        raise WrongRequest(f"{endpoint}: no such endpoint in this region, and nothing is left of one")
    patience.say(f"{endpoint}: deleted")


def clean(aws: Aws, endpoint: str, patience: Patience, keep: str | None = None) -> int:
    """Delete the versions of an endpoint but one; how many they were."""
    configs = list_names(aws, "ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName", endpoint)
    models = list_names(aws, "ListModels", "Models", "ModelName", endpoint)
    old = {name for name in configs + models if is_version_of(name, endpoint) and name != keep}
    for name in sorted(old):
        discard(aws, name, patience)
    return len(old)


def list_names(aws: Aws, operation: str, items: str, key: str, endpoint: str) -> list[str]:
    names: list[str] = []
    more: dict[str, Any] = {}
    while True:
        page = aws.call("sagemaker", operation, NameContains=f"{endpoint}-v", MaxResults=100, **more)
        names += [one[key] for one in page.get(items, [])]
        if not page.get("NextToken"):
            return names
        more = {"NextToken": page["NextToken"]}


def discard(aws: Aws, name: str, patience: Patience) -> None:
    """A version's configuration and model; that one is left over breaks nothing, and is only said."""
    for operation, key in (("DeleteEndpointConfig", "EndpointConfigName"), ("DeleteModel", "ModelName")):
        try:
            aws.call("sagemaker", operation, **{key: name})
        except CallFailed as err:
            if not is_missing(err):
                patience.say(f"warning: {name} is left over: {err}")
