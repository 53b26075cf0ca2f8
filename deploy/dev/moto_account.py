"""moto as an account: its WSGI application, and what it lacks for `viseme dev`.

Source of what is added: the operations UpdateEndpoint, DescribeEndpoint and DeleteEndpointConfig in botocore's service
model, which says of the last that the endpoint goes on; Amazon S3 user guide, "Event message structure" (EventBridge)
for the fields of an event.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from moto.core.responses import ActionResult
from moto.events.models import Rule
from moto.moto_server import werkzeug_app
from moto.s3.models import FakeBucket, s3_backends
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig, SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import Queue, sqs_backends

from deploy.dev.stack import ACCOUNT_ID, REGION

WsgiApp = Callable[..., Any]
describe_known = SageMakerModelBackend.describe_endpoint
delete_config_known = SageMakerModelBackend.delete_endpoint_config
send_known = Rule.send_to_targets
delete_known = Queue.delete_message
# Of endpoints whose configuration was deleted: they are served by it until they are updated or deleted.
deleted_configs: WeakKeyDictionary[FakeEndpoint, FakeEndpointConfig] = WeakKeyDictionary()
SEQUENCE = itertools.count(time.time_ns())  # grows from one start to the next, too


def make_moto_app() -> WsgiApp:
    """Return moto's application for all services. Pages of other sites get no CORS headers, as S3 sends none."""
    complete_moto()
    werkzeug_app.DISABLE_GLOBAL_CORS = True
    app: WsgiApp = DomainDispatcherApplication(create_backend_app)
    return app


def complete_moto() -> None:
    """Add to moto 5.2 what it lacks, for the rest of the process."""
    complete_sagemaker(setattr)
    Rule.send_to_targets = send_to_targets
    Queue.delete_message = delete_message


def complete_sagemaker(patch: Callable[[Any, str, Any], object]) -> None:
    """Add what moto lacks of SageMaker's endpoints. patch: sets an attribute of a class."""
    patch(FakeEndpointConfig, "validate_instance_type", accept_instance_type)
    patch(SageMakerResponse, "update_endpoint", update_endpoint)
    patch(SageMakerModelBackend, "describe_endpoint", describe_endpoint)
    patch(SageMakerModelBackend, "delete_endpoint_config", delete_endpoint_config)


def accept_instance_type(_config: FakeEndpointConfig, _instance_type: str) -> None:
    """Accept every type: moto's list of them is years old."""


def update_endpoint(response: SageMakerResponse) -> ActionResult:
    """Serve another configuration at once. Raises: ValidationError if it, or the endpoint, does not exist."""
    backend = response.sagemaker_backend
    name, config_name = response._get_param("EndpointName"), response._get_param("EndpointConfigName")
    endpoint, config = backend.endpoints.get(name), backend.endpoint_configs.get(config_name)
    if endpoint is None:
        arn = FakeEndpoint.arn_formatter(name, backend.account_id, backend.region_name)
        raise ValidationError(f'Could not find endpoint "{arn}".')
    if config is None:
        arn = FakeEndpointConfig.arn_formatter(config_name, backend.account_id, backend.region_name)
        raise ValidationError(f'Could not find endpoint configuration "{arn}".')
    endpoint.endpoint_config_name = config.endpoint_config_name
    endpoint.production_variants = endpoint._process_production_variants(config.production_variants)
    deleted_configs.pop(endpoint, None)
    return ActionResult({"EndpointArn": endpoint.arn})


def describe_endpoint(backend: SageMakerModelBackend, endpoint_name: str) -> dict[str, Any]:
    """Describe an endpoint with what makes it asynchronous."""
    found: dict[str, Any] = describe_known(backend, endpoint_name)
    config = config_of(backend, backend.endpoints[endpoint_name])
    return found | ({"AsyncInferenceConfig": config.async_inference_config} if config.async_inference_config else {})


def delete_endpoint_config(backend: SageMakerModelBackend, endpoint_config_name: str) -> None:
    """Delete a configuration, but not for the endpoints that are served by it."""
    config = backend.endpoint_configs.get(endpoint_config_name)
    delete_config_known(backend, endpoint_config_name)
    for endpoint in list(backend.endpoints.values()):
        if endpoint.endpoint_config_name == endpoint_config_name:
            deleted_configs.setdefault(endpoint, config)


def config_of(backend: SageMakerModelBackend, endpoint: FakeEndpoint) -> FakeEndpointConfig:
    """Return the configuration by which an endpoint is served."""
    deleted = deleted_configs.get(endpoint)
    return backend.endpoint_configs[endpoint.endpoint_config_name] if deleted is None else deleted


def send_to_targets(rule: Rule, original_event: dict[str, Any], transform_input: bool = True) -> None:
    """Send an event of S3 with the fields that moto leaves constant, or calls otherwise.

    A rule with a schedule alone matches no event; moto takes its missing pattern for one that matches all.
    """
    if not rule.event_pattern.get_pattern():
        return
    if original_event.get("source") == "aws.s3":
        found = original_event["detail"]["object"]
        found["etag"] = found.pop("eTag", found.get("etag"))
        found["sequencer"] = f"{next(SEQUENCE):016X}"
        original_event = original_event | {"id": str(uuid.uuid4())}
    send_known(rule, original_event, transform_input)


def delete_message(queue: Queue, receipt_handle: str) -> None:
    """Delete a message while no other is added: moto replaces the whole list, and would lose that one."""
    with queue._messages_lock:
        delete_known(queue, receipt_handle)


def find_endpoint_config(name: str) -> Any | None:
    """Return moto's configuration of an endpoint, in any region, or None if it does not exist."""
    for backend in list(sagemaker_backends[ACCOUNT_ID].values()):
        if (endpoint := backend.endpoints.get(name)) is not None:
            return config_of(backend, endpoint)
    return None


def endpoint_versions() -> Iterator[tuple[str, str]]:
    """Yield the name of each endpoint, and that of its configuration."""
    for backend in list(sagemaker_backends[ACCOUNT_ID].values()):
        for name, endpoint in list(backend.endpoints.items()):
            yield name, endpoint.endpoint_config_name


def buckets() -> dict[str, FakeBucket]:
    """Return moto's buckets by name."""
    found: dict[str, FakeBucket] = s3_backends[ACCOUNT_ID]["aws"].buckets
    return found


def queues() -> dict[str, Queue]:
    """Return moto's queues of the stack's region by name."""
    found: dict[str, Queue] = sqs_backends[ACCOUNT_ID][REGION].queues
    return found
