"""Command-line arguments, and the DeploymentSpec made from them."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from datetime import datetime

from deploy.aws import Answer
from deploy.aws_requests import (
    DEFAULT_WORKERS,
    WORKERS_VARIABLE,
    AsyncPaths,
    DeploymentSpec,
    account_of,
    archive_key,
    check_capacity,
)
from deploy.errors import WrongRequest
from deploy.images import AMIS, DEFAULT_CUDA, choose_ami, format_version, stock_image
from deploy.models import HUB_VARIABLE, ModelSelection, add_selection_arguments
from deploy.package import ENTRY_FILE
from deploy.scaling import CapacityBounds
from deploy.storage import default_bucket, folder_uri

MAX_REALTIME_MB = 25  # SageMaker's limit for one request
MAX_ASYNC_MB = 1024  # SageMaker's limit for one request
# Seconds that the stock image's server waits for its worker: to answer a request, and to load the models. A request is
# ended by the handler, after 60 s in real time; a first load on a new instance may take longer than that.
WORKER_TIMEOUT_S = {"realtime": 300, "async": 3600}
# Requests per worker that the stock image's server keeps waiting (its default is 100); it answers others with 503.
# A short video takes about 5 s, so that in real time the last one is answered just before its caller gives up.
QUEUE_PER_WORKER = 8
AMI_NAME_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")  # any name: AWS adds images that are not in our table
ASYNC_OPTIONS = ("async_output", "async_failure", "success_topic", "error_topic")


def add_endpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--role-arn", metavar="ARN", help="IAM role that SageMaker runs the endpoint with")
    parser.add_argument("--instance-type", default="ml.g5.xlarge", metavar="TYPE", help="default: ml.g5.xlarge")
    parser.add_argument("--region", default="us-east-1", help="default: us-east-1")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection_arguments(parser, "the endpoint fetches others when it starts")
    parser.add_argument("--model-data", metavar="S3_URI", help="a model.tar.gz; by default one is packed and uploaded")
    parser.add_argument(
        "--inference-ami-version",
        metavar="AMI",
        help="the instance's machine image, which contains the NVIDIA driver; default: the oldest whose driver runs "
        f"the CUDA version in the image's tag (without one: {format_version(DEFAULT_CUDA)}), out of "
        f"{', '.join(ami.name for ami in AMIS)}",
    )
    parser.add_argument("--bucket", help="S3 bucket for the archive and answers; default: sagemaker-REGION-ACCOUNT")
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="container environment variable; repeatable"
    )


def add_capacity_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-capacity",
        type=int,
        metavar="N",
        help="smallest number of instances (default: realtime 1, async 0; with --update: unchanged)",
    )
    parser.add_argument(
        "--max-capacity",
        type=int,
        metavar="N",
        help="largest number of instances (default: the smallest, or 1; with --update: unchanged)",
    )


def add_async_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("asynchronous endpoints", "with --update, options that are not given stay as is")
    group.add_argument(
        "--async-output", metavar="S3_URI", help="folder for answers (default: s3://BUCKET/viseme/NAME/results/)"
    )
    group.add_argument(
        "--async-failure", metavar="S3_URI", help="folder for errors (default: s3://BUCKET/viseme/NAME/failures/)"
    )
    group.add_argument("--success-topic", metavar="ARN", help="SNS topic notified of answers")
    group.add_argument("--error-topic", metavar="ARN", help="SNS topic notified of errors")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise WrongRequest before anything is created, if the arguments are invalid."""
    if not args.role_arn:
        raise WrongRequest("--role-arn: missing; expected the IAM role that SageMaker runs the endpoint with")
    check_capacity(*choose_capacity(args.min_capacity, args.max_capacity, default_bounds(args.mode)), args.mode)
    given = [option for option in ASYNC_OPTIONS if getattr(args, option)]
    if given and args.mode == "realtime":
        raise WrongRequest(f"--{given[0].replace('_', '-')}: requires --mode async")
    if args.model_data and not args.model_data.startswith("s3://"):
        raise WrongRequest(f"--model-data {args.model_data}: expected s3://BUCKET/KEY.tar.gz")
    files = list(ModelSelection.from_arguments(args).files.values())
    if args.model_data and files:
        raise WrongRequest(f"{files[0]}: cannot be added to the archive of --model-data; use deploy.package")
    if args.inference_ami_version and not AMI_NAME_PATTERN.fullmatch(args.inference_ami_version):
        raise WrongRequest(f"--inference-ami-version {args.inference_ami_version}: expected such as {AMIS[-1].name}")


def default_bounds(mode: str) -> CapacityBounds:
    """Return the bounds of a new endpoint if none are given."""
    return CapacityBounds(0, 1) if mode == "async" else CapacityBounds(1, 1)


def choose_capacity(minimum: int | None, maximum: int | None, fallback: CapacityBounds) -> tuple[int, int]:
    """Return minimum and maximum; if only one is given, the other is adjusted to it, but never down to zero."""
    if minimum is None:
        minimum = fallback.minimum if maximum is None else min(fallback.minimum, max(maximum, 1))
    return minimum, max(minimum, fallback.maximum) if maximum is None else maximum


def merge_with_current(
    args: argparse.Namespace, found: Answer, bounds: CapacityBounds | None, n_running: int
) -> argparse.Namespace:
    """Return the arguments with those that were omitted filled in from the existing endpoint.

    found: the answer of DescribeEndpoint; bounds: its scaling bounds, None if it does not scale.
    """
    merged = argparse.Namespace(**vars(args))
    fallback = bounds or CapacityBounds(max(1, n_running), max(1, n_running))
    merged.min_capacity, merged.max_capacity = choose_capacity(args.min_capacity, args.max_capacity, fallback)
    output = found.get("AsyncInferenceConfig", {}).get("OutputConfig", {})
    topics = output.get("NotificationConfig", {})
    current = [output.get("S3OutputPath"), output.get("S3FailurePath"), topics.get("SuccessTopic")]
    for option, value in zip(ASYNC_OPTIONS, [*current, topics.get("ErrorTopic")], strict=True):
        setattr(merged, option, getattr(args, option) or value)
    return merged


def make_spec(args: argparse.Namespace, now: datetime) -> DeploymentSpec:
    """Return the deployment that the arguments describe, with defaults for everything omitted."""
    image = args.image_uri or stock_image(args.region, args.instance_type)
    minimum, maximum = choose_capacity(args.min_capacity, args.max_capacity, default_bounds(args.mode))
    spec = DeploymentSpec(
        endpoint=args.endpoint_name,
        role_arn=args.role_arn,
        instance_type=args.instance_type,
        image_uri=image,
        version=now.strftime("v%Y%m%d%H%M%S"),
        min_capacity=minimum,
        max_capacity=maximum,
        ami=args.inference_ami_version or choose_ami(image, args.instance_type),
        model_data=args.model_data,
        async_paths=make_async_paths(args),
        environment=make_environment(args),
        log_days=args.log_days,
    )
    if needs_archive(args):
        spec = replace(spec, model_data=f"s3://{bucket_of(args)}/{archive_key(spec.endpoint, spec.version)}")
    return spec


def needs_archive(args: argparse.Namespace) -> bool:
    """Return whether an archive must be packed: for files, and on the stock image, which lacks Viseme's code."""
    return not args.model_data and (not args.image_uri or bool(ModelSelection.from_arguments(args).files))


def bucket_of(args: argparse.Namespace) -> str:
    return args.bucket or default_bucket(account_of(args.role_arn), args.region)


def make_async_paths(args: argparse.Namespace) -> AsyncPaths | None:
    if args.mode == "realtime":
        return None
    folder = f"s3://{bucket_of(args)}/viseme/{args.endpoint_name}"
    return AsyncPaths(
        output=folder_uri(args.async_output or f"{folder}/results"),
        failure=folder_uri(args.async_failure or f"{folder}/failures"),
        success_topic=args.success_topic,
        error_topic=args.error_topic,
    )


def make_environment(args: argparse.Namespace) -> dict[str, str]:
    """Return the container's environment variables; --env overrides the defaults."""
    given = dict(split_variable(text) for text in args.env)
    defaults = {WORKERS_VARIABLE: str(DEFAULT_WORKERS)}
    if not args.image_uri:
        defaults |= stock_server_environment(args.mode, given.get(WORKERS_VARIABLE, str(DEFAULT_WORKERS)))
    return defaults | ModelSelection.from_arguments(args).environment | given


def warnings_of(args: argparse.Namespace) -> list[str]:
    """Return what the licences of the chosen models forbid, and what the stock image makes of HF_MODEL_ID."""
    environment = make_environment(args)
    warnings = ModelSelection.from_arguments(args).notices(environment)
    if not args.image_uri and HUB_VARIABLE in environment:
        warnings.append(
            f"the stock image downloads all files of {environment[HUB_VARIABLE]} when {HUB_VARIABLE} is set, before "
            f"Viseme fetches what it needs; --weights hf://{environment[HUB_VARIABLE]} avoids that"
        )
    return warnings


def stock_server_environment(mode: str, workers: str) -> dict[str, str]:
    """Return what the stock image's toolkit and server read. Their own limits are lower than SageMaker's.

    MMS_*: read by Multi Model Server itself (ConfigManager.setSystemVars); the toolkit's configuration allows that.
    """
    max_mb = MAX_ASYNC_MB if mode == "async" else MAX_REALTIME_MB
    n_workers = int(workers) if workers.isdecimal() else DEFAULT_WORKERS
    return {
        "SAGEMAKER_PROGRAM": ENTRY_FILE,
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(max_mb),
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(WORKER_TIMEOUT_S[mode]),
        "MMS_MAX_RESPONSE_SIZE": str(max_mb << 20),
        "MMS_JOB_QUEUE_SIZE": str(QUEUE_PER_WORKER * max(n_workers, 1)),
    }


def split_variable(text: str) -> tuple[str, str]:
    name, is_set, value = text.partition("=")
    if not name or not is_set:
        raise WrongRequest(f"--env {text}: expected KEY=VALUE")
    return name, value
