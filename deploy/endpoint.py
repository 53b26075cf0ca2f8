"""Create, update or delete an endpoint on SageMaker."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deploy import in_place, rollout
from deploy.arguments import (
    add_async_arguments,
    add_capacity_arguments,
    add_config_argument,
    add_endpoint_arguments,
    add_model_arguments,
    add_serverless_arguments,
    bucket_of,
    check_arguments,
    check_isolation,
    hint_of,
    make_spec,
    needs_archive,
    warnings_of,
)
from deploy.aws import Answer, Aws, BotoAws, DryRunAws, check_parameters
from deploy.aws_requests import (
    VARIANT,
    DeploymentSpec,
    account_of,
    archive_key,
    check_name,
    config_request,
    model_request,
)
from deploy.command import run_command
from deploy.errors import DeployError, WrongRequest
from deploy.image_manifest import canned_image, check_image
from deploy.images import ami_warning, has_gpu
from deploy.logs import add_log_argument
from deploy.models import ModelSelection
from deploy.package import build_archive
from deploy.region import choose_region
from deploy.running_version import RunningVersion, complete_spec, describe_kept, list_dropped, merge_with_running
from deploy.smoke_test import SmokeTest, add_smoke_test_argument, canned_answer
from deploy.storage import ensure_bucket, upload_file
from deploy.waiting import WaitPolicy, write_stderr

ARCHIVE_NAME = "model.tar.gz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = make_parser().parse_args(arguments)
    return run_command("deploy.endpoint", lambda: run(args))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.endpoint", description=__doc__, allow_abbrev=False)
    add_endpoint_arguments(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--update", action="store_true", help="update an existing endpoint")
    action.add_argument("--delete", action="store_true", help="delete the endpoint and everything created for it")
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="with --update: delete the endpoint, then create it again, for a quota of one instance; until the new "
        "version is in service, nothing answers",
    )
    parser.add_argument(
        "--mode", choices=("realtime", "async", "serverless"), default="realtime", help="default: realtime"
    )
    parser.add_argument(
        "--image-uri",
        metavar="URI",
        help="Viseme's image in ECR; default: Hugging Face's image, with Viseme's code in the archive",
    )
    add_model_arguments(parser)
    add_capacity_arguments(parser)
    add_async_arguments(parser)
    add_serverless_arguments(parser)
    add_config_argument(parser)
    add_log_argument(parser)
    add_smoke_test_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the calls to AWS as JSON lines, make none")
    return parser


def run(args: argparse.Namespace) -> None:
    check_name(args.endpoint_name)
    args.region = choose_region(args.region)
    wait_policy = WaitPolicy()
    if args.dry_run:
        assumed = (
            "; the endpoint is assumed to have one instance, no autoscaling, and nothing else that an update keeps"
        )
        write_stderr(f"dry run: no call is made{assumed if args.update or args.delete else ''}")
        wait_policy = replace(wait_policy, report=lambda _: None)
    if args.delete:
        rollout.delete(choose_aws(args), args.endpoint_name, wait_policy)
        return
    check_arguments(args)
    spec = make_spec(args, datetime.now(UTC))
    check_requests(spec)
    aws = choose_aws(args)
    if args.image_uri and (doubt := check_image(aws, args.image_uri, args.region)):
        write_stderr(f"warning: {doubt}")
    if args.update:
        update(aws, args, wait_policy)
        return
    warn(args, spec)
    if hint := hint_of(args):
        write_stderr(hint)
    rollout.check_absent(aws, spec.endpoint)
    upload_artifacts(aws, args, spec)
    rollout.create(aws, spec, wait_policy, choose_check(args, aws, wait_policy))


def update(aws: Aws, args: argparse.Namespace, wait_policy: WaitPolicy) -> None:
    """Update an existing endpoint: reject what is impossible before packing, keep what was not given."""
    found = rollout.find_updatable(aws, args.endpoint_name, args.mode)
    running = RunningVersion.find(aws, found)
    merged = merge_with_running(args, running)
    check_isolation(merged)
    spec = complete_spec(make_spec(merged, datetime.now(UTC)), running)
    check_requests(spec)
    if kept := describe_kept(args, running):
        write_stderr(f"{spec.endpoint}: {kept}")
    warn(merged, spec, list_dropped(merged, running))
    upload_artifacts(aws, merged, spec)
    run_update = in_place.replace_in_place if args.in_place else rollout.update
    run_update(aws, spec, found, running.bounds, wait_policy, choose_check(args, aws, wait_policy))


def warn(args: argparse.Namespace, spec: DeploymentSpec, more: Iterable[str] = ()) -> None:
    """Warn on stderr of what is allowed, but may not be meant."""
    warnings: list[str | None] = [*warnings_of(args), *more]
    if args.inference_ami_version and has_gpu(spec.instance_types[0]):
        # AWS itself does not report a driver that is too old.
        warnings.append(ami_warning(args.inference_ami_version, spec.image_uri))
    for warning in filter(None, warnings):
        write_stderr(f"warning: {warning}")


def check_requests(spec: DeploymentSpec) -> None:
    """Raise WrongRequest before any call if AWS's own model refuses a request that the options shape."""
    try:
        check_parameters("sagemaker", "CreateModel", model_request(spec))
        check_parameters("sagemaker", "CreateEndpointConfig", config_request(spec))
    except WrongRequest:
        raise
    except DeployError as err:
        raise WrongRequest(str(err)) from err


def choose_check(args: argparse.Namespace, aws: Aws, wait_policy: WaitPolicy) -> rollout.ServiceCheck:
    return rollout.accept_untested if args.no_smoke_test else SmokeTest(aws, wait_policy).run


def choose_aws(args: argparse.Namespace) -> Aws:
    return DryRunAws(sys.stdout, make_canned_answers(args)) if args.dry_run else BotoAws(args.region)


def make_canned_answers(args: argparse.Namespace) -> dict[str, Answer]:
    """Return what AWS is assumed to answer in a dry run.

    With --update or --delete there is an older version with one instance, which does not scale; otherwise nothing.
    """
    version = "v20260101000000"
    name = f"{args.endpoint_name}-{version}"
    existing: Answer = {
        "EndpointName": args.endpoint_name,
        "EndpointArn": f"arn:aws:sagemaker:{args.region}:000000000000:endpoint/{args.endpoint_name}",
        "EndpointStatus": "InService",
        "EndpointConfigName": name,
        "ProductionVariants": [{"VariantName": VARIANT, "CurrentInstanceCount": 1}],
    }
    config: Answer = {"EndpointConfigName": name, "ProductionVariants": [{"VariantName": VARIANT, "ModelName": name}]}
    if args.mode == "serverless":
        existing["ProductionVariants"] = [{"VariantName": VARIANT, "CurrentServerlessConfig": {}}]
    if args.mode == "async":
        existing["AsyncInferenceConfig"] = {"OutputConfig": {}}
    arn = f"arn:aws:autoscaling:{args.region}:000000000000:scalingPolicy:known-after-the-call"
    missing: Answer = {"Error": {"Code": "ValidationException", "Message": "Could not find endpoint"}}
    bucket = bucket_of(args) if args.role_arn else args.bucket or "BUCKET"
    archive = f"s3://{bucket}/{archive_key(args.endpoint_name, version)}"
    return {
        "DescribeEndpoint": existing if args.update or args.delete else missing,
        "DescribeEndpointConfig": config,
        "PutScalingPolicy": {"PolicyARN": arn},
        "InvokeEndpoint": {"Body": CannedBody()},
        "InvokeEndpointAsync": {
            "OutputLocation": "s3://FOLDER/FOR/ANSWERS",
            "FailureLocation": "s3://FOLDER/FOR/ERRORS",
        },
        "GetObject": {"Body": CannedBody()},
        "BatchGetImage": canned_image(),
        "ListEndpointConfigs": {"EndpointConfigs": [{"EndpointConfigName": name}]},
        "ListModels": {"Models": [{"ModelName": name}]},
        "DescribeModel": {
            "PrimaryContainer": {"ModelDataUrl": archive},
            "ExecutionRoleArn": args.role_arn or "arn:aws:iam::000000000000:role/NAME",
        },
    }


class CannedBody:
    """What a dry run reads as the answer to any request."""

    def read(self) -> bytes:
        return json.dumps(canned_answer()).encode()


def upload_artifacts(aws: Aws, args: argparse.Namespace, spec: DeploymentSpec) -> None:
    """Put into S3 what the endpoint needs at its start: the bucket, and an archive if one must be packed."""
    if needs_archive(args) or (spec.async_paths and not (args.async_output and args.async_failure)):
        ensure_bucket(aws, bucket_of(args), account_of(spec.role_arn), args.region)
    if needs_archive(args):
        upload_archive(aws, args, spec)


def upload_archive(aws: Aws, args: argparse.Namespace, spec: DeploymentSpec) -> None:
    """Pack the archive and upload it to the version's key."""
    with tempfile.TemporaryDirectory(prefix="viseme-") as folder:
        path = Path(folder) / ARCHIVE_NAME
        if args.dry_run:
            path.touch()  # only its name is printed
        else:
            write_stderr(f"{spec.endpoint}: packing {ARCHIVE_NAME}")
            files = ModelSelection.from_arguments(args).files
            build_archive(path, files, with_code=not args.image_uri, with_packages=spec.governance.is_isolated)
        key = archive_key(spec.endpoint, spec.version)
        with path.open("rb") as file:
            parameters = spec.governance.object_parameters()
            upload_file(aws, file, bucket_of(args), key, account_of(spec.role_arn), "application/gzip", parameters)


if __name__ == "__main__":
    sys.exit(main())
