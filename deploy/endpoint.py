"""Creates, updates and deletes an endpoint on SageMaker: `python -m deploy.endpoint --help`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deploy import rollout, scaling
from deploy.arguments import (
    add_async_flags,
    add_capacity_flags,
    add_endpoint_flags,
    add_model_flags,
    bucket_of,
    check_asked,
    keep_what_is_there,
    make_order,
    needs_archive,
)
from deploy.aws import Answer, Aws, LiveAws, Rehearsal
from deploy.errors import DeployError
from deploy.images import doubt_ami, has_gpu
from deploy.package import build_archive
from deploy.requests import VARIANT, Order, account_of, archive_key, check_name
from deploy.storage import ensure_bucket, upload
from deploy.waiting import Patience, say

ARCHIVE = "model.tar.gz"


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
    add_endpoint_flags(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--update", action="store_true", help="change an endpoint that is there")
    what.add_argument("--delete", action="store_true", help="delete the endpoint and all that was made for it")
    parser.add_argument("--mode", choices=("realtime", "async"), default="realtime")
    parser.add_argument(
        "--image-uri", metavar="URI", help="our image in ECR; without it: Hugging Face's, with our code in the archive"
    )
    add_model_flags(parser)
    add_capacity_flags(parser)
    add_async_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the calls to AWS as JSON lines, make none")
    return parser


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
    order = make_order(asked, datetime.now(UTC))
    if asked.inference_ami_version and has_gpu(asked.instance_type):
        say_doubt(order)
    aws = choose_aws(asked)
    if asked.update:
        update(aws, asked, order, patience)
    else:
        rollout.check_absent(aws, order.endpoint)
        bring(aws, asked, order)
        rollout.create(aws, order, patience)


def update(aws: Aws, asked: argparse.Namespace, order: Order, patience: Patience) -> None:
    """What cannot be is said before anything is packed, and what was left open stays as it is."""
    found = rollout.find_updatable(aws, order.endpoint, order.mode)
    bounds = scaling.find_bounds(aws, order.endpoint)
    kept = keep_what_is_there(asked, found, bounds, rollout.count_instances(found))
    order = make_order(kept, datetime.now(UTC))
    bring(aws, kept, order)
    rollout.update(aws, order, found, bounds, patience)


def say_doubt(order: Order) -> None:
    """A wrong driver is no error that AWS would report."""
    doubt = doubt_ami(order.ami or "", order.image_uri)
    if doubt:
        say(f"warning: {doubt}")


def choose_aws(asked: argparse.Namespace) -> Aws:
    return Rehearsal(asked.region, sys.stdout, assume(asked)) if asked.dry_run else LiveAws(asked.region)


def assume(asked: argparse.Namespace) -> dict[str, Answer]:
    """What a rehearsal takes for granted: where one is to change, an older version's one instance, not scaling yet."""
    version = "v20260101000000"
    old = f"{asked.endpoint_name}-{version}"
    there: Answer = {
        "EndpointName": asked.endpoint_name,
        "EndpointStatus": "InService",
        "EndpointConfigName": old,
        "ProductionVariants": [{"VariantName": VARIANT, "CurrentInstanceCount": 1}],
    }
    if asked.mode == "async":
        there["AsyncInferenceConfig"] = {"OutputConfig": {}}
    arn = f"arn:aws:autoscaling:{asked.region}:000000000000:scalingPolicy:known-after-the-call"
    missing: Answer = {"Error": {"Code": "ValidationException", "Message": "Could not find endpoint"}}
    bucket = bucket_of(asked) if asked.role_arn else asked.bucket or "BUCKET"
    archive = f"s3://{bucket}/{archive_key(asked.endpoint_name, version)}"
    return {
        "DescribeEndpoint": there if asked.update or asked.delete else missing,
        "PutScalingPolicy": {"PolicyARN": arn},
        "ListEndpointConfigs": {"EndpointConfigs": [{"EndpointConfigName": old}]},
        "ListModels": {"Models": [{"ModelName": old}]},
        "DescribeModel": {
            "PrimaryContainer": {"ModelDataUrl": archive},
            "ExecutionRoleArn": asked.role_arn or "arn:aws:iam::000000000000:role/NAME",
        },
    }


def bring(aws: Aws, asked: argparse.Namespace, order: Order) -> None:
    """What has to lie in S3 before the endpoint starts: its bucket, and its archive where one is made."""
    if needs_archive(asked) or (order.paths and not (asked.async_output and asked.async_failure)):
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
