"""What can be asked for on the command line, and the order that comes of it."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from datetime import datetime

from deploy.aws import Answer
from deploy.errors import WrongRequest
from deploy.images import AMIS, choose_ami, stock_image
from deploy.package import ENTRY
from deploy.requests import WORKERS, WORKERS_SETTING, AsyncPaths, Order, account_of, archive_key, check_capacity
from deploy.scaling import Bounds
from deploy.storage import default_bucket, folder_uri

MAX_REALTIME_MB = 25
MAX_ASYNC_MB = 1024
TIMEOUT_S = {"realtime": 60, "async": 3600}
AMI_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")  # of any, since AWS has new ones before we know them
PATH_FLAGS = ("async_output", "async_failure", "success_topic", "error_topic")


def add_endpoint_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--role-arn", metavar="ARN", help="the role that SageMaker runs the endpoint with")
    parser.add_argument("--instance-type", default="ml.g5.xlarge", metavar="TYPE")
    parser.add_argument("--region", default="us-east-1")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-data", metavar="S3_URI", help="a model.tar.gz; without it one is made and uploaded")
    parser.add_argument(
        "--inference-ami-version",
        metavar="AMI",
        help="the instance's machine image, which holds the NVIDIA driver; by default the oldest whose driver runs "
        f"the CUDA that the image's tag names (ours without one: 13.0), out of {', '.join(ami.name for ami in AMIS)}",
    )
    parser.add_argument("--bucket", help="for the archive and answers (sagemaker-REGION-ACCOUNT)")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="for the container; repeatable")


def add_capacity_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-capacity",
        type=int,
        metavar="N",
        help="instances at least (realtime 1, async 0; of an endpoint that is there: as it is)",
    )
    parser.add_argument(
        "--max-capacity",
        type=int,
        metavar="N",
        help="instances at most (the least, or 1; of an endpoint that is there: as it is)",
    )


def add_async_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("asynchronous endpoints", "what is not given of one that is there stays")
    group.add_argument("--async-output", metavar="S3_URI", help="where answers go (s3://BUCKET/viseme/NAME/results/)")
    group.add_argument("--async-failure", metavar="S3_URI", help="where errors go (s3://BUCKET/viseme/NAME/failures/)")
    group.add_argument("--success-topic", metavar="ARN", help="SNS topic told of answers")
    group.add_argument("--error-topic", metavar="ARN", help="SNS topic told of errors")


def check_asked(asked: argparse.Namespace) -> None:
    """Raises: WrongRequest before anything is made."""
    if not asked.role_arn:
        raise WrongRequest("--role-arn: missing; the role that SageMaker runs the endpoint with")
    check_capacity(*choose_capacity(asked.min_capacity, asked.max_capacity, new_bounds(asked.mode)), asked.mode)
    given = [flag for flag in PATH_FLAGS if getattr(asked, flag)]
    if given and asked.mode == "realtime":
        raise WrongRequest(f"--{given[0].replace('_', '-')}: is for --mode async")
    if asked.model_data and not asked.model_data.startswith("s3://"):
        raise WrongRequest(f"--model-data {asked.model_data}: expected s3://BUCKET/KEY.tar.gz")
    if asked.inference_ami_version and not AMI_NAME.fullmatch(asked.inference_ami_version):
        raise WrongRequest(f"--inference-ami-version {asked.inference_ami_version}: expected such as {AMIS[-1].name}")


def new_bounds(mode: str) -> Bounds:
    """Of an endpoint for which nothing was asked."""
    return Bounds(0, 1) if mode == "async" else Bounds(1, 1)


def choose_capacity(least: int | None, most: int | None, otherwise: Bounds) -> tuple[int, int]:
    """At least and at most, where either may be given: the other then gives way, but not down to none."""
    if least is None:
        least = otherwise.least if most is None else min(otherwise.least, max(most, 1))
    return least, max(least, otherwise.most) if most is None else most


def keep_what_is_there(
    asked: argparse.Namespace, found: Answer, bounds: Bounds | None, n_now: int
) -> argparse.Namespace:
    """What was asked of an endpoint that is there: all that was left open stays as it is.

    found: as DescribeEndpoint has it; bounds: between which it scales, None where it does not.
    """
    kept = argparse.Namespace(**vars(asked))
    otherwise = bounds or Bounds(max(1, n_now), max(1, n_now))
    kept.min_capacity, kept.max_capacity = choose_capacity(asked.min_capacity, asked.max_capacity, otherwise)
    output = found.get("AsyncInferenceConfig", {}).get("OutputConfig", {})
    topics = output.get("NotificationConfig", {})
    there = [output.get("S3OutputPath"), output.get("S3FailurePath"), topics.get("SuccessTopic")]
    for flag, value in zip(PATH_FLAGS, [*there, topics.get("ErrorTopic")], strict=True):
        setattr(kept, flag, getattr(asked, flag) or value)
    return kept


def make_order(asked: argparse.Namespace, now: datetime) -> Order:
    """What was asked for, with everything chosen that was left open."""
    image = asked.image_uri or stock_image(asked.region, asked.instance_type)
    least, most = choose_capacity(asked.min_capacity, asked.max_capacity, new_bounds(asked.mode))
    order = Order(
        endpoint=asked.endpoint_name,
        role_arn=asked.role_arn,
        instance_type=asked.instance_type,
        image_uri=image,
        version=now.strftime("v%Y%m%d%H%M%S"),
        min_capacity=least,
        max_capacity=most,
        ami=asked.inference_ami_version or choose_ami(image, asked.instance_type),
        model_data=asked.model_data,
        paths=make_paths(asked),
        environment=make_environment(asked),
    )
    if needs_archive(asked):
        order = replace(order, model_data=f"s3://{bucket_of(asked)}/{archive_key(order.endpoint, order.version)}")
    return order


def needs_archive(asked: argparse.Namespace) -> bool:
    """Our image brings its own weights; the stock image has nothing of ours."""
    return not asked.image_uri and not asked.model_data


def bucket_of(asked: argparse.Namespace) -> str:
    return asked.bucket or default_bucket(account_of(asked.role_arn), asked.region)


def make_paths(asked: argparse.Namespace) -> AsyncPaths | None:
    if asked.mode == "realtime":
        return None
    home = f"s3://{bucket_of(asked)}/viseme/{asked.endpoint_name}"
    return AsyncPaths(
        output=folder_uri(asked.async_output or f"{home}/results"),
        failure=folder_uri(asked.async_failure or f"{home}/failures"),
        success_topic=asked.success_topic,
        error_topic=asked.error_topic,
    )


def make_environment(asked: argparse.Namespace) -> dict[str, str]:
    """The container's; what the caller gives goes before what is chosen here."""
    given = dict(split_setting(text) for text in asked.env)
    chosen = {WORKERS_SETTING: str(WORKERS)}
    if not asked.image_uri:
        max_mb = MAX_ASYNC_MB if asked.mode == "async" else MAX_REALTIME_MB
        chosen |= {
            "SAGEMAKER_PROGRAM": ENTRY,
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            # The stock server's own limits are lower than SageMaker's.
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(max_mb),
            "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(TIMEOUT_S[asked.mode]),
        }
    return chosen | given


def split_setting(text: str) -> tuple[str, str]:
    name, is_set, value = text.partition("=")
    if not name or not is_set:
        raise WrongRequest(f"--env {text}: expected KEY=VALUE")
    return name, value
