"""The versions of an endpoint: creates and deletes the model, configuration and archive of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from deploy import storage
from deploy.aws import Answer, Aws
from deploy.aws_requests import DeploymentSpec, account_of, config_request, is_archive_of, is_version_of, model_request
from deploy.errors import CallFailed, DeployError
from deploy.waiting import WaitPolicy, is_missing

# How each resource is deleted: the operation, and its parameter for the name.
CONFIG = ("DeleteEndpointConfig", "EndpointConfigName")
MODEL = ("DeleteModel", "ModelName")
# IAM tells a new role to the other services within seconds; until then CreateModel cannot assume it.
ROLE_ATTEMPTS, ROLE_WAIT_S = 7, 5.0


def create_version(aws: Aws, spec: DeploymentSpec, wait_policy: WaitPolicy, n_running: int = 0) -> None:
    """Create the model and the configuration of this version.

    n_running: how many instances the endpoint has now.
    Raises: DeployError, and leaves nothing behind.
    """
    try:
        create_model(aws, spec, wait_policy)
    except CallFailed:
        delete_own_archive(aws, spec, wait_policy)
        raise
    try:
        aws.call("sagemaker", "CreateEndpointConfig", **config_request(spec, n_running))
    except CallFailed:
        delete_resource(aws, MODEL, spec.name, wait_policy)
        delete_own_archive(aws, spec, wait_policy)
        raise


def create_model(aws: Aws, spec: DeploymentSpec, wait_policy: WaitPolicy) -> None:
    """Create the model; try again for half a minute if its role is not known yet."""
    for attempt in range(1, ROLE_ATTEMPTS + 1):
        try:
            aws.call("sagemaker", "CreateModel", **model_request(spec))
        except CallFailed as err:
            if "could not assume role" not in err.aws_message.lower() or attempt == ROLE_ATTEMPTS:
                raise
            if attempt == 1:
                wait_policy.report(f"{spec.endpoint}: the role cannot be assumed yet; trying again for half a minute")
            wait_policy.sleep(ROLE_WAIT_S)
        else:
            return


def delete_version(aws: Aws, spec: DeploymentSpec, wait_policy: WaitPolicy) -> None:
    """Delete a version that never served, or no longer does."""
    delete_config_and_model(aws, spec.name, wait_policy)
    delete_own_archive(aws, spec, wait_policy)


def delete_own_archive(aws: Aws, spec: DeploymentSpec, wait_policy: WaitPolicy) -> None:
    """Delete the archive that was uploaded for a version whose model does not exist."""
    if spec.model_data and is_archive_of(spec.model_data, spec.endpoint, spec.name):
        delete_unused_archives(aws, {spec.model_data: account_of(spec.role_arn)}, wait_policy)


def delete_old_versions(aws: Aws, endpoint: str, wait_policy: WaitPolicy, keep: str | None = None) -> int:
    """Delete all versions of an endpoint except one, with the archives uploaded for them; return their number."""
    configs = set(list_names(aws, "ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName", endpoint))
    models = set(list_names(aws, "ListModels", "Models", "ModelName", endpoint))
    old = sorted(name for name in configs | models if is_version_of(name, endpoint) and name != keep)
    archives = find_archives(aws, endpoint, [name for name in old if name in models])
    for name in old:
        delete_config_and_model(aws, name, wait_policy)
    delete_unused_archives(aws, archives, wait_policy)
    return len(old)


def list_names(aws: Aws, operation: str, items: str, key: str, endpoint: str | None = None) -> list[str]:
    """Return the resource names of an endpoint's versions; without an endpoint, all names in the region."""
    names: list[str] = []
    more: dict[str, Any] = {} if endpoint is None else {"NameContains": f"{endpoint}-v"}
    while True:
        page = aws.call("sagemaker", operation, MaxResults=100, **more)
        names += [one[key] for one in page.get(items, [])]
        if not page.get("NextToken"):
            return names
        more["NextToken"] = page["NextToken"]


def delete_config_and_model(aws: Aws, name: str, wait_policy: WaitPolicy) -> None:
    delete_resource(aws, CONFIG, name, wait_policy)
    delete_resource(aws, MODEL, name, wait_policy)


def delete_resource(aws: Aws, kind: tuple[str, str], name: str, wait_policy: WaitPolicy) -> None:
    """Delete a configuration or a model; a failure only causes a warning, since a leftover does no harm."""
    operation, key = kind
    try:
        aws.call("sagemaker", operation, **{key: name})
    except CallFailed as err:
        if not is_missing(err):
            wait_policy.report(f"warning: {name} was not deleted: {err}")


def find_archives(aws: Aws, endpoint: str, names: Iterable[str]) -> dict[str, str]:
    """Return the archives uploaded for these versions, each with the account that owns it."""
    found: dict[str, str] = {}
    for name in names:
        try:
            model = aws.call("sagemaker", "DescribeModel", ModelName=name)
        except CallFailed:  # deleted meanwhile, or access denied: its archive stays
            continue
        for uri in list_model_data_uris(model):
            if is_archive_of(uri, endpoint, name):
                found[uri] = account_of(model["ExecutionRoleArn"])
    return found


def delete_unused_archives(aws: Aws, archives: dict[str, str], wait_policy: WaitPolicy) -> None:
    """Delete the archives that no model in the region uses. If that cannot be determined, they stay."""
    if not archives:
        return
    try:
        in_use = [
            uri
            for name in list_names(aws, "ListModels", "Models", "ModelName")
            for uri in list_model_data_uris(aws.call("sagemaker", "DescribeModel", ModelName=name))
        ]
        for uri, account in archives.items():
            if not any(uri.startswith(used) for used in in_use):  # a model may also use a whole folder
                storage.delete_object(aws, uri, account)
    except DeployError as err:
        wait_policy.report(f"warning: {', '.join(archives)}: not deleted: {err}")


def list_model_data_uris(model: Answer) -> Iterator[str]:
    """Yield the S3 URIs from which a model's containers load their data."""
    for container in [model.get("PrimaryContainer", {}), *model.get("Containers", [])]:
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        yield from (uri for uri in (container.get("ModelDataUrl"), source.get("S3Uri")) if uri)
