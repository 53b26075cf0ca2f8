"""Create an endpoint with SageMaker's own SDK, version 2.

It deploys the same archive on the same stock image as `deploy.endpoint` without `--image-uri`, for notebooks and
pipelines built on HuggingFaceModel. `deploy.endpoint --update` and `--delete` work on the endpoint. Real-time only,
with one instance: the SDK has no scaling, asynchronous endpoints or updates of this kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from deploy import rollout
from deploy.arguments import add_endpoint_arguments, add_model_arguments, check_arguments, make_spec, warnings_of
from deploy.aws import BotoAws, as_call_failed
from deploy.aws_requests import DOWNLOAD_TIMEOUT_S, HEALTH_CHECK_TIMEOUT_S, DeploymentSpec, check_name
from deploy.command import run_command
from deploy.endpoint import upload_artifacts
from deploy.errors import DeployError, WrongRequest
from deploy.images import STOCK_PYTHON, STOCK_PYTORCH, STOCK_TRANSFORMERS
from deploy.region import choose_region
from deploy.smoke_test import SmokeTest, add_smoke_test_argument
from deploy.waiting import WaitPolicy, wait_until_in_service, write_stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = make_parser().parse_args(arguments)
    return run_command("deploy.huggingface_model", lambda: run(args))


def make_parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m deploy.huggingface_model", description=description, allow_abbrev=False
    )
    add_endpoint_arguments(parser)
    add_model_arguments(parser)
    add_smoke_test_argument(parser)
    # The other arguments of deploy.endpoint, at their defaults.
    parser.set_defaults(mode="realtime", image_uri=None, min_capacity=1, max_capacity=1, dry_run=False)
    parser.set_defaults(async_output=None, async_failure=None, success_topic=None, error_topic=None)
    parser.set_defaults(memory_mb=None, max_concurrency=None, update=False, in_place=False, log_days=None)
    parser.set_defaults(endpoint_config_json=None)
    return parser


def run(args: argparse.Namespace) -> None:
    check_name(args.endpoint_name)
    args.region = choose_region(args.region)
    check_arguments(args)
    sdk = import_sdk()
    spec = make_spec(args, datetime.now(UTC))
    if len(spec.instance_types) > 1:
        raise WrongRequest("--instance-type: SageMaker's SDK 2 knows no instance pools; deploy.endpoint does")
    for warning in warnings_of(args):
        write_stderr(f"warning: {warning}")
    aws = BotoAws(args.region)
    rollout.check_absent(aws, spec.endpoint)
    upload_artifacts(aws, args, spec)
    try:
        deploy(sdk, spec, args.region)
    except ClientError as err:
        raise as_call_failed(err, "sagemaker", err.operation_name) from err
    except BotoCoreError as err:
        raise DeployError(f"sagemaker: {err}") from err
    # The SDK could wait as well, but would not show the container's log after a failure.
    wait_policy = WaitPolicy()
    with rollout.keep_failed_endpoint():
        wait_until_in_service(aws, spec.endpoint, config=spec.endpoint, wait_policy=wait_policy)
    if not args.no_smoke_test:
        with rollout.keep_running_endpoint(spec, wait_policy):
            SmokeTest(aws, wait_policy).run(spec)


def import_sdk() -> Any:
    """Import SageMaker's SDK.

    Raises: WrongRequest if it is not installed, or is version 3, which no longer has HuggingFaceModel.
    """
    try:
        import sagemaker
        import sagemaker.huggingface
    except ImportError as err:
        raise WrongRequest(
            f"needs SageMaker's SDK 2 ({err}): pip install '.[sagemaker-sdk]', or use deploy.endpoint, which does not"
        ) from err
    return sagemaker


def deploy(sdk: Any, spec: DeploymentSpec, region: str) -> None:
    """Deploy as the SDK's documentation shows it: with a model object and its deploy method."""
    demands = spec.governance
    vpc = {"Subnets": list(demands.subnets), "SecurityGroupIds": list(demands.security_groups)}
    model = sdk.huggingface.HuggingFaceModel(
        name=spec.name,
        role=spec.role_arn,
        model_data=spec.model_data,
        transformers_version=STOCK_TRANSFORMERS,
        pytorch_version=STOCK_PYTORCH,
        py_version=STOCK_PYTHON,
        # No entry_point: the SDK would unpack the archive, add that file and upload everything again. So nothing is
        # uploaded to code_location; but without it the SDK would still look up its default bucket and create it.
        code_location=(spec.model_data or "").rpartition("/")[0],
        env=dict(spec.environment),
        vpc_config=vpc if demands.subnets else None,
        enable_network_isolation=demands.is_isolated,
        sagemaker_session=sdk.Session(boto_session=boto3.Session(region_name=region)),
    )
    model.deploy(
        initial_instance_count=spec.min_capacity,
        instance_type=spec.instance_types[0],
        endpoint_name=spec.endpoint,
        inference_ami_version=spec.ami,
        tags=demands.tagging().get("Tags"),
        kms_key=demands.kms_key,
        container_startup_health_check_timeout=HEALTH_CHECK_TIMEOUT_S,
        model_data_download_timeout=DOWNLOAD_TIMEOUT_S,
        wait=False,
    )


if __name__ == "__main__":
    sys.exit(main())
