"""What an endpoint runs: its configuration, and its model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deploy.aws import Answer
from deploy.aws_requests import Mode
from deploy.doctor.findings import Finding, ok
from deploy.doctor.read_only_aws import ReadOnlyAws
from deploy.errors import DeployError
from deploy.rollout import count_instances, mode_of

VERSION = "configuration and model"


@dataclass
class EndpointVersion:
    """What AWS says of the endpoint, its configuration and its model; each is empty if AWS did not answer."""

    endpoint: str
    found: Answer
    config: Answer = field(default_factory=dict)
    model: Answer = field(default_factory=dict)

    def describe(self, aws: ReadOnlyAws) -> Iterator[Finding]:
        """Read the configuration and the model. Raises: CallFailed."""
        if not self.found:
            raise DeployError("the endpoint could not be described")
        self.config = aws.call(
            "sagemaker", "DescribeEndpointConfig", EndpointConfigName=self.found["EndpointConfigName"]
        )
        model = self.variant.get("ModelName")
        if model:
            self.model = aws.call("sagemaker", "DescribeModel", ModelName=model)
        shown = (
            f"{self.mode}, {self.n_running} of {', '.join(self.instance_types)}" if self.instance_types else self.mode
        )
        yield ok(VERSION, f"{self.found['EndpointConfigName']}: {shown}, {self.image_uri}")

    @property
    def status(self) -> str:
        return str(self.found.get("EndpointStatus", ""))

    @property
    def mode(self) -> Mode:
        return mode_of(self.found)

    @property
    def n_running(self) -> int:
        return count_instances(self.found)

    @property
    def variant(self) -> dict[str, Any]:
        """The first variant of the configuration: those that this tool makes have one."""
        variants = self.config.get("ProductionVariants", [])
        return dict(variants[0]) if variants else {}

    @property
    def variant_names(self) -> set[str]:
        return {one["VariantName"] for one in self.found.get("ProductionVariants", [])}

    @property
    def instance_types(self) -> list[str]:
        """The instance type, or those of the pools, by priority."""
        pools = [one["InstanceType"] for one in self.variant.get("InstancePools", [])]
        return pools or [one for one in [self.variant.get("InstanceType")] if one]

    @property
    def container(self) -> dict[str, Any]:
        """The model's container."""
        containers = self.model.get("Containers", [])
        return dict(self.model.get("PrimaryContainer") or (containers[0] if containers else {}))

    @property
    def image_uri(self) -> str:
        return str(self.container.get("Image", ""))

    @property
    def role_arn(self) -> str:
        return str(self.model.get("ExecutionRoleArn") or self.config.get("ExecutionRoleArn") or "")

    @property
    def model_data(self) -> str:
        """The URI of the archive; empty if the model has no archive."""
        source = self.container.get("ModelDataSource", {}).get("S3DataSource", {})
        return str(self.container.get("ModelDataUrl") or source.get("S3Uri") or "")

    @property
    def async_config(self) -> dict[str, Any]:
        return dict(self.config.get("AsyncInferenceConfig") or self.found.get("AsyncInferenceConfig") or {})

    def require_model(self) -> None:
        """Raise DeployError if the model is not known."""
        if not self.model:
            raise DeployError("the model could not be described")
