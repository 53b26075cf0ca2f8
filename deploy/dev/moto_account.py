"""moto as an account: its WSGI application, and what it lacks for `viseme dev`.

Source of what is added: the operations UpdateEndpoint and DescribeEndpoint in botocore's service model; Amazon S3 user
guide, "Event message structure" (EventBridge) for the fields of an event.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.events.models import Rule
from moto.moto_server import werkzeug_app
from moto.s3.models import FakeBucket, s3_backends
from moto.sagemaker.models import FakeEndpointConfig, SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import Queue, sqs_backends

from deploy.dev.stack import ACCOUNT_ID, REGION

WsgiApp = Callable[..., Any]
describe_known = SageMakerModelBackend.describe_endpoint
send_known = Rule.send_to_targets
delete_known = Queue.delete_message
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


def accept_instance_type(_config: FakeEndpointConfig, _instance_type: str) -> None:
    """Accept every type: moto's list of them is years old."""


def update_endpoint(response: SageMakerResponse) -> ActionResult:
    """Serve another configuration at once."""
    backend = response.sagemaker_backend
    endpoint = backend.endpoints[response._get_param("EndpointName")]
    config = backend.endpoint_configs[response._get_param("EndpointConfigName")]
    endpoint.endpoint_config_name = config.endpoint_config_name
    endpoint.production_variants = endpoint._process_production_variants(config.production_variants)
    return ActionResult({"EndpointArn": endpoint.arn})


def describe_endpoint(backend: SageMakerModelBackend, endpoint_name: str) -> dict[str, Any]:
    """Describe an endpoint with what makes it asynchronous."""
    found: dict[str, Any] = describe_known(backend, endpoint_name)
    config = backend.endpoint_configs[found["EndpointConfigName"]]
    return found | ({"AsyncInferenceConfig": config.async_inference_config} if config.async_inference_config else {})


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
            return backend.endpoint_configs[endpoint.endpoint_config_name]
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
