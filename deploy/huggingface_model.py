"""Deploys by SageMaker's own SDK, version 2: `python -m deploy.huggingface_model --help`.

The same archive on the same stock image as `deploy.endpoint` without `--image-uri`, for those whose notebooks and
pipelines are built on HuggingFaceModel. `deploy.endpoint --update` and `--delete` know what was made here. Real-time
only: scaling, asynchronous endpoints and updates are not the SDK's business.
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
from deploy.arguments import add_endpoint_flags, add_model_flags, check_asked, make_order
from deploy.aws import LiveAws, as_call_failed
from deploy.endpoint import bring
from deploy.errors import DeployError, WrongRequest
from deploy.images import STOCK_PYTHON, STOCK_PYTORCH, STOCK_TRANSFORMERS
from deploy.requests import DOWNLOAD_TIMEOUT_S, HEALTH_CHECK_TIMEOUT_S, Order, check_name
from deploy.waiting import Patience, say, wait_until_in_service


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the caller's mistake, 1 anything else."""
    asked = make_parser().parse_args(arguments)
    try:
        run(asked)
    except DeployError as err:
        say(f"deploy.huggingface_model: {err}")
        return err.exit_code
    except KeyboardInterrupt:
        say("deploy.huggingface_model: no longer waiting; what was started on AWS goes on")
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    what = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m deploy.huggingface_model", description=what, allow_abbrev=False)
    add_endpoint_flags(parser)
    add_model_flags(parser)
    # What deploy.endpoint can be asked for besides.
    parser.set_defaults(mode="realtime", image_uri=None, min_capacity=1, max_capacity=1, dry_run=False)
    parser.set_defaults(async_output=None, async_failure=None, success_topic=None, error_topic=None)
    return parser


def run(asked: argparse.Namespace) -> None:
    check_name(asked.endpoint_name)
    check_asked(asked)
    sdk = import_sdk()
    order = make_order(asked, datetime.now(UTC))
    aws = LiveAws(asked.region)
    rollout.check_absent(aws, order.endpoint)
    bring(aws, asked, order)
    try:
        deploy(sdk, order, asked.region)
    except ClientError as err:
        raise as_call_failed(err, "sagemaker", err.operation_name) from err
    except BotoCoreError as err:
        raise DeployError(f"sagemaker: {err}") from err
    # The SDK can wait as well, but not say what the container wrote before it failed.
    with rollout.leave_to_look_at():
        wait_until_in_service(aws, order.endpoint, config=order.endpoint, patience=Patience())


def import_sdk() -> Any:
    """Raises: WrongRequest where it is not there, or is version 3, which has no HuggingFaceModel any more."""
    try:
        import sagemaker
        import sagemaker.huggingface
    except ImportError as err:
        raise WrongRequest(
            f"needs SageMaker's SDK 2 ({err}): pip install '.[sagemaker-sdk]', or use deploy.endpoint, which does not"
        ) from err
    return sagemaker


def deploy(sdk: Any, order: Order, region: str) -> None:
    """As the SDK's documents have it: a model object, and its deploy method."""
    model = sdk.huggingface.HuggingFaceModel(
        name=order.name,
        role=order.role_arn,
        model_data=order.model_data,
        transformers_version=STOCK_TRANSFORMERS,
        pytorch_version=STOCK_PYTORCH,
        py_version=STOCK_PYTHON,
        # No entry_point: the SDK would unpack the archive, add the file, and upload it all anew. What it would upload
        # goes nowhere; without a place for it the SDK would still ask for its default bucket, and make it.
        code_location=(order.model_data or "").rpartition("/")[0],
        env=dict(order.environment),
        sagemaker_session=sdk.Session(boto_session=boto3.Session(region_name=region)),
    )
    model.deploy(
        initial_instance_count=order.min_capacity,
        instance_type=order.instance_type,
        endpoint_name=order.endpoint,
        inference_ami_version=order.ami,
        container_startup_health_check_timeout=HEALTH_CHECK_TIMEOUT_S,
        model_data_download_timeout=DOWNLOAD_TIMEOUT_S,
        wait=False,
    )


if __name__ == "__main__":
    sys.exit(main())
