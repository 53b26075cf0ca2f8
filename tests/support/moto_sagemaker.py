"""What moto 5.2 lacks of SageMaker's endpoints: UpdateEndpoint, and what DescribeEndpoint says of asynchronous ones.

Source: the operations in botocore's service model.
"""

from __future__ import annotations

from typing import Any

import pytest
from moto.core.responses import ActionResult
from moto.sagemaker.models import FakeEndpointConfig, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

describe_known = SageMakerModelBackend.describe_endpoint


def complete_sagemaker(patch: pytest.MonkeyPatch) -> None:
    """Add to moto what it lacks, until the patch is undone."""
    patch.setattr(FakeEndpointConfig, "validate_instance_type", lambda self, instance_type: None)  # a list of old types
    patch.setattr(SageMakerResponse, "update_endpoint", update_endpoint, raising=False)
    patch.setattr(SageMakerModelBackend, "describe_endpoint", describe_endpoint)


def update_endpoint(response: SageMakerResponse) -> ActionResult:
    """Serve another configuration at once."""
    backend = response.sagemaker_backend
    endpoint = backend.endpoints[response._get_param("EndpointName")]
    config = backend.endpoint_configs[response._get_param("EndpointConfigName")]
    endpoint.endpoint_config_name = config.endpoint_config_name
    endpoint.production_variants = endpoint._process_production_variants(config.production_variants)
    return ActionResult({"EndpointArn": endpoint.arn})


def describe_endpoint(backend: SageMakerModelBackend, endpoint_name: str) -> dict[str, Any]:
    found = describe_known(backend, endpoint_name)
    config = backend.endpoint_configs[found["EndpointConfigName"]]
    return found | ({"AsyncInferenceConfig": config.async_inference_config} if config.async_inference_config else {})
