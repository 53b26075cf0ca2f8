"""Creates, updates and deletes an endpoint on SageMaker: `python -m deploy.endpoint --help`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deploy import rollout
from deploy.aws import Answer, Aws, LiveAws, Rehearsal
from deploy.errors import DeployError, WrongRequest
from deploy.images import AMIS, choose_ami, stock_image
from deploy.package import ENTRY, build_archive
from deploy.plan import WORKERS, AsyncPaths, Order, account_of, check_capacity, check_name
from deploy.storage import default_bucket, ensure_bucket, folder_uri, upload
from deploy.wait import Patience, say

ARCHIVE = "model.tar.gz"
MAX_REALTIME_MB = 25
MAX_ASYNC_MB = 1024
TIMEOUT_S = {"realtime": 60, "async": 3600}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the caller's mistake, 1 anything else."""
    asked = make_parser().parse_args(arguments)
    try:
        run(asked)
    except DeployError as err:
        say(f"deploy.endpoint: {err}")
        return err.exit_code
    except KeyboardInterrupt:
        say("deploy.endpoint: no longer waiting; what was started on AWS goes on")
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.endpoint", description=__doc__, allow_abbrev=False)
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--role-arn", metavar="ARN", help="the role that SageMaker runs the endpoint with")
    parser.add_argument("--instance-type", default="ml.g5.xlarge", metavar="TYPE")
    parser.add_argument("--region", default="us-east-1")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--update", action="store_true", help="change an endpoint that is there")
    what.add_argument("--delete", action="store_true", help="delete the endpoint and all that was made for it")
    parser.add_argument("--mode", choices=("realtime", "async"), default="realtime")
    parser.add_argument(
        "--image-uri", metavar="URI", help="our image in ECR; without it: Hugging Face's, with our code in the archive"
    )
    parser.add_argument(
        "--model-data", metavar="S3_URI", help="a model.tar.gz; without it and without --image-uri one is made"
    )
    parser.add_argument("--min-capacity", type=int, metavar="N", help="instances at least (realtime 1, async 0)")
    parser.add_argument("--max-capacity", type=int, metavar="N", help="instances at most (the least, or 1)")
    parser.add_argument(
        "--inference-ami-version",
        choices=[ami.name for ami in AMIS],
        metavar="AMI",
        help="the instance's machine image, which holds the NVIDIA driver; by default the oldest whose driver runs "
        "the CUDA that the image's tag names (ours without one: 13.0)",
    )
    parser.add_argument("--bucket", help="for the archive and answers (sagemaker-REGION-ACCOUNT)")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="for the container; repeatable")
    add_async_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the calls to AWS as JSON lines, make none")
    return parser


def add_async_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("asynchronous endpoints")
    group.add_argument("--async-output", metavar="S3_URI", help="where answers go (s3://BUCKET/NAME/results/)")
    group.add_argument("--async-failure", metavar="S3_URI", help="where errors go (s3://BUCKET/NAME/failures/)")
    group.add_argument("--success-topic", metavar="ARN", help="SNS topic told of answers")
    group.add_argument("--error-topic", metavar="ARN", help="SNS topic told of errors")


def run(asked: argparse.Namespace) -> None:
    check_name(asked.endpoint_name)
    patience = Patience()
    if asked.dry_run:
        say("dry run: these calls would be made, if an endpoint that changes has one instance and does not scale yet")
        patience = replace(patience, say=lambda _: None)
    if asked.delete:
        rollout.delete(choose_aws(asked), asked.endpoint_name, patience)
        return
    check_asked(asked)
    aws = choose_aws(asked)
    order = make_order(asked, datetime.now(UTC))
    if asked.update:  # what cannot be is said before anything is packed
        found = rollout.find_updatable(aws, order)
        bring(aws, asked, order)
        rollout.update(aws, order, found, patience)
    else:
        rollout.check_absent(aws, order.endpoint)
        bring(aws, asked, order)
        rollout.create(aws, order, patience)


def choose_aws(asked: argparse.Namespace) -> Aws:
    return Rehearsal(asked.region, sys.stdout, assume(asked)) if asked.dry_run else LiveAws(asked.region)


def assume(asked: argparse.Namespace) -> dict[str, Answer]:
    """What a rehearsal takes for granted: where one is to change, an older version's one instance, not scaling yet."""
    there: Answer = {
        "EndpointName": asked.endpoint_name,
        "EndpointStatus": "InService",
        "EndpointConfigName": f"{asked.endpoint_name}-v20260101000000",
        "ProductionVariants": [{"VariantName": "primary", "CurrentInstanceCount": 1}],
    }
    if asked.mode == "async":
        there["AsyncInferenceConfig"] = {"OutputConfig": {}}
    old = there["EndpointConfigName"]
    arn = f"arn:aws:autoscaling:{asked.region}:000000000000:scalingPolicy:known-after-the-call"
    missing: Answer = {"Error": {"Code": "ValidationException", "Message": "Could not find endpoint"}}
    return {
        "DescribeEndpoint": there if asked.update or asked.delete else missing,
        "PutScalingPolicy": {"PolicyARN": arn},
        "ListEndpointConfigs": {"EndpointConfigs": [{"EndpointConfigName": old}]},
        "ListModels": {"Models": [{"ModelName": old}]},
    }


def check_asked(asked: argparse.Namespace) -> None:
    """Raises: WrongRequest before anything is made."""
    if not asked.role_arn:
        raise WrongRequest("--role-arn: missing; the role that SageMaker runs the endpoint with")
    asked.min_capacity, asked.max_capacity = choose_capacity(asked.min_capacity, asked.max_capacity, asked.mode)
    check_capacity(asked.min_capacity, asked.max_capacity, asked.mode)
    given = [flag for flag in ("async_output", "async_failure", "success_topic", "error_topic") if getattr(asked, flag)]
    if given and asked.mode == "realtime":
        raise WrongRequest(f"--{given[0].replace('_', '-')}: is for --mode async")
    if asked.model_data and not asked.model_data.startswith("s3://"):
        raise WrongRequest(f"--model-data {asked.model_data}: expected s3://BUCKET/KEY.tar.gz")


def choose_capacity(least: int | None, most: int | None, mode: str) -> tuple[int, int]:
    if least is None:
        least = 0 if mode == "async" else 1
    return least, max(1, least) if most is None else most


def make_order(asked: argparse.Namespace, now: datetime) -> Order:
    """What was asked for, with everything chosen that was left open."""
    image = asked.image_uri or stock_image(asked.region, asked.instance_type)
    version = now.strftime("v%Y%m%d%H%M%S")
    model_data = asked.model_data
    if needs_archive(asked):
        model_data = f"s3://{bucket_of(asked)}/{archive_key(asked.endpoint_name, version)}"
    return Order(
        endpoint=asked.endpoint_name,
        role_arn=asked.role_arn,
        instance_type=asked.instance_type,
        image_uri=image,
        version=version,
        min_capacity=asked.min_capacity,
        max_capacity=asked.max_capacity,
        ami=asked.inference_ami_version or choose_ami(image, asked.instance_type),
        model_data=model_data,
        paths=make_paths(asked),
        environment=make_environment(asked),
    )


def needs_archive(asked: argparse.Namespace) -> bool:
    """Our image brings its own weights; the stock image has nothing of ours."""
    return not asked.image_uri and not asked.model_data


def bucket_of(asked: argparse.Namespace) -> str:
    return asked.bucket or default_bucket(account_of(asked.role_arn), asked.region)


def archive_key(endpoint: str, version: str) -> str:
    return f"viseme/{endpoint}/{version}/{ARCHIVE}"


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
    chosen = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS)}
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


def bring(aws: Aws, asked: argparse.Namespace, order: Order) -> None:
    """What has to lie in S3 before the endpoint starts: its bucket, and its archive where one is made."""
    if needs_archive(asked) or (order.paths and not asked.async_output):
        ensure_bucket(aws, bucket_of(asked), account_of(order.role_arn), asked.region)
    if needs_archive(asked):
        bring_archive(aws, asked, order)


def bring_archive(aws: Aws, asked: argparse.Namespace, order: Order) -> None:
    """Make the archive and put it where the order says."""
    with tempfile.TemporaryDirectory(prefix="viseme-") as folder:
        path = Path(folder) / ARCHIVE
        if asked.dry_run:
            path.touch()  # named in what is printed, and never read
        else:
            say(f"{order.endpoint}: packing {ARCHIVE}")
            build_archive(path)
        key = archive_key(order.endpoint, order.version)
        with path.open("rb") as file:
            upload(aws, file, bucket_of(asked), key, account_of(order.role_arn), "application/gzip")


if __name__ == "__main__":
    sys.exit(main())
