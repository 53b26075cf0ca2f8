"""The versions of an endpoint: a model, a configuration and an archive for each, made and taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from deploy import storage
from deploy.aws import Answer, Aws
from deploy.errors import CallFailed, DeployError
from deploy.requests import Order, account_of, config_request, is_archive_of, is_version_of, model_request
from deploy.waiting import Patience, is_missing

# How each is deleted: the operation, and what it calls the name.
CONFIG = ("DeleteEndpointConfig", "EndpointConfigName")
MODEL = ("DeleteModel", "ModelName")


def prepare(aws: Aws, order: Order, patience: Patience, n_now: int = 0) -> None:
    """The model and the configuration of this version.

    n_now: how many instances the endpoint has.
    Raises: DeployError, and leaves nothing behind.
    """
    try:
        aws.call("sagemaker", "CreateModel", **model_request(order))
    except CallFailed:
        remove_own_archive(aws, order, patience)
        raise
    try:
        aws.call("sagemaker", "CreateEndpointConfig", **config_request(order, n_now))
    except CallFailed:
        delete_one(aws, MODEL, order.name, patience)
        remove_own_archive(aws, order, patience)
        raise


def abandon(aws: Aws, order: Order, patience: Patience) -> None:
    """Take away a version that never served, or no longer does."""
    discard(aws, order.name, patience)
    remove_own_archive(aws, order, patience)


def remove_own_archive(aws: Aws, order: Order, patience: Patience) -> None:
    """The archive of a version whose model is not there, where it was made for that version."""
    if order.model_data and is_archive_of(order.model_data, order.endpoint, order.name):
        remove_archives(aws, {order.model_data: account_of(order.role_arn)}, patience)


def clean(aws: Aws, endpoint: str, patience: Patience, keep: str | None = None) -> int:
    """Delete the versions of an endpoint but one, with the archives that were made for them; how many they were."""
    configs = set(list_names(aws, "ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName", endpoint))
    models = set(list_names(aws, "ListModels", "Models", "ModelName", endpoint))
    old = sorted(name for name in configs | models if is_version_of(name, endpoint) and name != keep)
    archives = find_archives(aws, endpoint, [name for name in old if name in models])
    for name in old:
        discard(aws, name, patience)
    remove_archives(aws, archives, patience)
    return len(old)


def list_names(aws: Aws, operation: str, items: str, key: str, endpoint: str | None = None) -> list[str]:
    """Of an endpoint's versions; without an endpoint of all that there are in the region."""
    names: list[str] = []
    more: dict[str, Any] = {} if endpoint is None else {"NameContains": f"{endpoint}-v"}
    while True:
        page = aws.call("sagemaker", operation, MaxResults=100, **more)
        names += [one[key] for one in page.get(items, [])]
        if not page.get("NextToken"):
            return names
        more["NextToken"] = page["NextToken"]


def discard(aws: Aws, name: str, patience: Patience) -> None:
    """A version's configuration and model."""
    delete_one(aws, CONFIG, name, patience)
    delete_one(aws, MODEL, name, patience)


def delete_one(aws: Aws, kind: tuple[str, str], name: str, patience: Patience) -> None:
    """One of the two; that it is left over breaks nothing, and is only said."""
    operation, key = kind
    try:
        aws.call("sagemaker", operation, **{key: name})
    except CallFailed as err:
        if not is_missing(err):
            patience.say(f"warning: {name} is left over: {err}")


def find_archives(aws: Aws, endpoint: str, names: Iterable[str]) -> dict[str, str]:
    """The archives that were made for these versions, each with the account that it belongs to."""
    found: dict[str, str] = {}
    for name in names:
        try:
            model = aws.call("sagemaker", "DescribeModel", ModelName=name)
        except CallFailed:  # gone by now, or not to be seen: its archive stays
            continue
        for uri in list_uris(model):
            if is_archive_of(uri, endpoint, name):
                found[uri] = account_of(model["ExecutionRoleArn"])
    return found


def remove_archives(aws: Aws, archives: dict[str, str], patience: Patience) -> None:
    """Delete those archives that no model in the region names. Where that cannot be told, they stay."""
    if not archives:
        return
    try:
        in_use = [
            uri
            for name in list_names(aws, "ListModels", "Models", "ModelName")
            for uri in list_uris(aws.call("sagemaker", "DescribeModel", ModelName=name))
        ]
        for uri, account in archives.items():
            if not any(uri.startswith(used) for used in in_use):  # a model may also name a folder
                storage.remove(aws, uri, account)
    except DeployError as err:
        patience.say(f"warning: {', '.join(archives)}: left over: {err}")


def list_uris(model: Answer) -> Iterator[str]:
    """Where a model's containers have their data from."""
    for container in [model.get("PrimaryContainer", {}), *model.get("Containers", [])]:
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        yield from (uri for uri in (container.get("ModelDataUrl"), source.get("S3Uri")) if uri)
