"""What an update keeps of the running version: what an organisation demands, its instances, its bounds, its folders."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from deploy.arguments import ASYNC_OPTIONS, choose_capacity, make_environment
from deploy.aws import Answer, Aws, service_model
from deploy.aws_requests import DeploymentSpec
from deploy.config_patch import KIND, VARIANT_KIND, VARIANTS
from deploy.governance import Governance
from deploy.images import is_stock_image
from deploy.rollout import count_instances
from deploy.scaling import CapacityBounds, find_bounds

KMS_KEY = "KmsKeyId"
# Of the variables that the command itself sets for the stock image's server.
OWN_PREFIXES = ("SAGEMAKER_", "MMS_", "PYTHONPATH")
# What the options decide; everything else in a configuration was merged into it, by this command or by another tool.
OPTIONS_DECIDE = {"EndpointConfigName", VARIANTS, KIND, KMS_KEY, "Tags"}
OPTIONS_DECIDE_OF_VARIANT = {
    "VariantName",
    "ModelName",
    "InitialInstanceCount",
    "InitialVariantWeight",
    "InstanceType",
    "InstancePools",
    "InferenceAmiVersion",
    VARIANT_KIND,
}


@dataclass(frozen=True)
class RunningVersion:
    """The answers of DescribeEndpoint, DescribeEndpointConfig and DescribeModel, and the caller's tags.

    bounds: None if the endpoint does not scale.
    """

    endpoint: Answer
    config: Answer
    model: Answer
    tags: dict[str, str]
    bounds: CapacityBounds | None

    @classmethod
    def find(cls, aws: Aws, found: Answer) -> RunningVersion:
        """Read what belongs to an endpoint. found: its description. Raises: CallFailed if a call is refused."""
        bounds = find_bounds(aws, found["EndpointName"])
        config = aws.call("sagemaker", "DescribeEndpointConfig", EndpointConfigName=found["EndpointConfigName"])
        name = variant_of(config).get("ModelName")
        model = aws.call("sagemaker", "DescribeModel", ModelName=name) if name else {}
        return cls(found, config, model, list_tags(aws, found["EndpointArn"]), bounds)

    @property
    def name(self) -> str:
        """Name of its configuration."""
        return str(self.endpoint["EndpointConfigName"])

    @property
    def instance_types(self) -> list[str]:
        """In the order in which SageMaker tries them; empty if serverless."""
        variant = variant_of(self.config)
        pools = sorted(variant.get("InstancePools", []), key=lambda one: int(one["Priority"]))
        return [one["InstanceType"] for one in pools or [variant] if "InstanceType" in one]

    @property
    def output(self) -> Answer:
        """Where asynchronous answers go."""
        kind: Answer = self.config.get(KIND) or self.endpoint.get(KIND) or {}
        found: Answer = kind.get("OutputConfig", {})
        return found

    @property
    def kms_key(self) -> str | None:
        return self.config.get(KMS_KEY) or self.output.get(KMS_KEY)

    def further_config(self) -> dict[str, Any]:
        """Return what options do not decide, as a patch of the request for CreateEndpointConfig."""
        members = members_of_config()
        patch = {
            name: value
            for name, value in self.config.items()
            if value and name in members and name not in OPTIONS_DECIDE
        }
        if self.output.get(KMS_KEY) and KMS_KEY not in self.config:
            patch[KMS_KEY] = None  # --endpoint-config-json removed it, for instances that take none
        variant = {
            name: value
            for name, value in variant_of(self.config).items()
            if value and name not in OPTIONS_DECIDE_OF_VARIANT
        }
        return patch | ({VARIANTS: [variant]} if variant else {})


def variant_of(config: Answer) -> Answer:
    found: list[Answer] = config.get(VARIANTS, [])
    return found[0] if found else {}


def members_of_config() -> set[str]:
    """Return the parameters of CreateEndpointConfig: the description has others, such as the time of creation."""
    return set(service_model("sagemaker").operation_model("CreateEndpointConfig").input_shape.members)


def list_tags(aws: Aws, arn: str) -> dict[str, str]:
    """Return the caller's tags of a resource, without those that AWS made."""
    found: dict[str, str] = {}
    more: dict[str, Any] = {}
    while True:
        page = aws.call("sagemaker", "ListTags", ResourceArn=arn, **more)
        found |= {one["Key"]: one["Value"] for one in page.get("Tags", []) if not one["Key"].startswith("aws:")}
        if not page.get("NextToken"):
            return found
        more["NextToken"] = page["NextToken"]


def merge_with_running(args: argparse.Namespace, running: RunningVersion) -> argparse.Namespace:
    """Return the arguments with those that were omitted filled in from the running version."""
    merged = argparse.Namespace(**vars(args))
    n_running = max(1, count_instances(running.endpoint))
    fallback = running.bounds or CapacityBounds(n_running, n_running)
    merged.min_capacity, merged.max_capacity = choose_capacity(args.min_capacity, args.max_capacity, fallback)
    topics = running.output.get("NotificationConfig", {})
    current = [running.output.get("S3OutputPath"), running.output.get("S3FailurePath"), topics.get("SuccessTopic")]
    for option, value in zip(ASYNC_OPTIONS, [*current, topics.get("ErrorTopic")], strict=True):
        setattr(merged, option, getattr(args, option) or value)
    vpc = running.model.get("VpcConfig", {})
    if not args.subnet and not args.security_group:
        merged.subnet, merged.security_group = vpc.get("Subnets", []), vpc.get("SecurityGroupIds", [])
    merged.kms_key = args.kms_key or running.kms_key
    if args.network_isolation is None:
        merged.network_isolation = running.model.get("EnableNetworkIsolation")
    merge_hardware(merged, running)
    return merged


def complete_spec(spec: DeploymentSpec, running: RunningVersion) -> DeploymentSpec:
    """Return the new version with the tags and the further configuration of the running one.

    They are overridden by what the options give. (A tag is no argument here: its key may contain an equals sign.)
    """
    tags = tuple((running.tags | dict(spec.governance.tags)).items())
    patches = (running.further_config(), *spec.config_patches)
    return replace(spec, governance=replace(spec.governance, tags=tags), config_patches=patches)


def merge_hardware(merged: argparse.Namespace, running: RunningVersion) -> None:
    """Fill in the instance types, or the size of a serverless endpoint."""
    serverless = variant_of(running.config).get(VARIANT_KIND)
    if serverless:
        merged.memory_mb = merged.memory_mb or serverless.get("MemorySizeInMB")
        merged.max_concurrency = merged.max_concurrency or serverless.get("MaxConcurrency")
    else:
        merged.instance_type = merged.instance_type or ",".join(running.instance_types) or None


def describe_kept(args: argparse.Namespace, running: RunningVersion) -> str | None:
    """Return what an update keeps although it was not given; None if that is nothing."""
    kept = list(list_kept(args, running))
    return f"kept from {running.name}: {'; '.join(kept)}" if kept else None


def list_kept(args: argparse.Namespace, running: RunningVersion) -> Iterator[str]:
    if running.instance_types and not args.instance_type:
        yield f"--instance-type {','.join(running.instance_types)}"
    vpc = running.model.get("VpcConfig", {})
    if vpc and not args.subnet:
        yield " ".join(
            [f"--subnet {one}" for one in vpc.get("Subnets", [])]
            + [f"--security-group {one}" for one in vpc.get("SecurityGroupIds", [])]
        )
    if running.kms_key and not args.kms_key:
        yield f"--kms-key {running.kms_key}"
    if running.model.get("EnableNetworkIsolation") and args.network_isolation is None:
        yield "--network-isolation"
    given = dict(Governance.from_arguments(args).tags)
    if tags := [f"--tag {key}={value}" for key, value in running.tags.items() if key not in given]:
        yield " ".join(tags)
    further = running.further_config()
    names = [name for name in further if name not in (VARIANTS, KMS_KEY)]
    if names := [*names, *further.get(VARIANTS, [{}])[0]]:
        yield ", ".join(names)


def list_dropped(args: argparse.Namespace, running: RunningVersion) -> Iterator[str]:
    """Yield warnings of what the running version has and the new one has not: its image, its variables.

    args: those of the new version, completed. Image, models and variables define a version, and so are not kept.
    """
    container = running.model.get("PrimaryContainer", {})
    image = container.get("Image", "")
    if image and not args.image_uri and not is_stock_image(image):
        yield f"{running.name} has the image {image}, the new version the stock image; --image-uri names another"
    own = make_environment(args)
    # What the other kind of image, or another selection of models, had set itself is not the caller's.
    names = [name for name in container.get("Environment", {}) if name not in own and not name.startswith(OWN_PREFIXES)]
    if names:
        yield f"{running.name} has the variables {', '.join(sorted(names))}, the new version not; --env sets them again"
