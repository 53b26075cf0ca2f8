"""Command-line arguments, and the DeploymentSpec made from them."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from deploy.aws_requests import (
    AUTO_WORKERS,
    WORKERS_VARIABLE,
    AsyncPaths,
    DeploymentSpec,
    ServerlessSize,
    account_of,
    archive_key,
    check_capacity,
)
from deploy.config_patch import OPTION, read_patch
from deploy.errors import WrongRequest
from deploy.governance import Governance, add_governance_arguments
from deploy.images import AMIS, DEFAULT_CUDA, choose_ami, format_version, has_gpu, stock_image
from deploy.instances import (
    DEFAULT_TYPE,
    REQUESTS_PER_GPU_WORKER,
    count_concurrent_requests,
    count_workers,
    has_local_disk,
    split_types,
)
from deploy.models import HUB_VARIABLE, ModelSelection, add_selection_arguments
from deploy.package import ENTRY_FILE, LIBRARY_PATH
from deploy.region import REGION_HELP
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
INSTANCE_OPTIONS = ("instance_type", "inference_ami_version", "min_capacity", "max_capacity")
SERVERLESS_OPTIONS = ("memory_mb", "max_concurrency")
SERVERLESS_MEMORY_MB = tuple(range(1024, 6145, 1024))
MAX_CONCURRENCY = 200  # of SageMaker, for one serverless endpoint
DEFAULT_CONCURRENCY = 5  # SageMaker's SDK has the same


def add_endpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--role-arn", metavar="ARN", help="IAM role that SageMaker runs the endpoint with")
    parser.add_argument(
        "--instance-type",
        metavar="TYPE[,TYPE]",
        help=f"of up to five, SageMaker starts the first that it has (default: {DEFAULT_TYPE}; docs/instances.md)",
    )
    parser.add_argument("--region", help=REGION_HELP)


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
    add_governance_arguments(parser)
    parser.add_argument("--bucket", help="S3 bucket for the archive and answers; default: sagemaker-REGION-ACCOUNT")
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="container environment variable; repeatable"
    )


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        OPTION, type=Path, metavar="FILE", help="JSON merged into the endpoint's configuration last (RFC 7396)"
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


def add_serverless_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("serverless endpoints", "without instances, and so without a quota for them")
    group.add_argument(
        "--memory-mb",
        type=int,
        choices=SERVERLESS_MEMORY_MB,
        metavar="MB",
        help=f"of one container: {', '.join(map(str, SERVERLESS_MEMORY_MB))} (default: {SERVERLESS_MEMORY_MB[-1]})",
    )
    group.add_argument(
        "--max-concurrency",
        type=int,
        metavar="N",
        help=f"largest number of containers, each with one request (default: {DEFAULT_CONCURRENCY})",
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
    empty = [name for name, value in vars(args).items() if value == ""]
    if empty:  # as from a variable of the shell that is not set
        raise WrongRequest(f"--{empty[0].replace('_', '-')}: is empty")
    if not args.role_arn:
        raise WrongRequest("--role-arn: missing; expected the IAM role that SageMaker runs the endpoint with")
    check_capacity(*choose_capacity(args.min_capacity, args.max_capacity, default_bounds(args.mode)), args.mode)
    check_mode(args)
    check_isolation(args)
    if args.model_data and not args.model_data.startswith("s3://"):
        raise WrongRequest(f"--model-data {args.model_data}: expected s3://BUCKET/KEY.tar.gz")
    files = list(ModelSelection.from_arguments(args).files.values())
    if args.model_data and files:
        raise WrongRequest(f"{files[0]}: cannot be added to the archive of --model-data; use deploy.package")
    if args.inference_ami_version and not AMI_NAME_PATTERN.fullmatch(args.inference_ami_version):
        raise WrongRequest(f"--inference-ami-version {args.inference_ami_version}: expected such as {AMIS[-1].name}")


def check_mode(args: argparse.Namespace) -> None:
    """Raise WrongRequest if an option belongs to another kind of endpoint."""
    options = {"async": ASYNC_OPTIONS, "serverless": SERVERLESS_OPTIONS}
    for mode, names in options.items():
        given = [name for name in names if getattr(args, name)]
        if given and args.mode != mode:
            raise WrongRequest(f"--{given[0].replace('_', '-')}: requires --mode {mode}")
    if args.mode == "serverless":
        check_serverless(args)
    if args.in_place and not args.update:
        raise WrongRequest("--in-place: requires --update")


def check_serverless(args: argparse.Namespace) -> None:
    """Raise WrongRequest for what AWS excludes from serverless endpoints: instances, GPUs, VPCs, isolation.

    Source: "Serverless Inference: feature exclusions" in SageMaker's developer guide.
    """
    given = [name for name in INSTANCE_OPTIONS if getattr(args, name) is not None]
    if given:
        raise WrongRequest(f"--{given[0].replace('_', '-')}: a serverless endpoint has no instances")
    if not args.image_uri:
        raise WrongRequest("--mode serverless: needs --image-uri, Viseme's image for CPUs: the stock one is too large")
    governance = Governance.from_arguments(args)
    if governance.subnets or governance.is_isolated:
        raise WrongRequest("--mode serverless: SageMaker excludes a VPC and network isolation")
    if args.in_place:
        raise WrongRequest("--in-place: a serverless endpoint has no instances that an update would have to free")
    if args.max_concurrency is not None and not 1 <= args.max_concurrency <= MAX_CONCURRENCY:
        raise WrongRequest(f"--max-concurrency {args.max_concurrency}: expected 1 to {MAX_CONCURRENCY}")


def check_isolation(args: argparse.Namespace) -> None:
    """Raise WrongRequest if a container without a network would have to fetch its models."""
    fetched = ModelSelection.from_arguments(args).fetched(make_environment(args))
    if args.network_isolation and fetched:
        raise WrongRequest(
            f"--network-isolation: the container cannot fetch {fetched[0]}; pack files instead (deploy.package fetches "
            "and packs hub and dlib)"
        )


def default_bounds(mode: str) -> CapacityBounds:
    """Return the bounds of a new endpoint if none are given."""
    return CapacityBounds(0, 1) if mode == "async" else CapacityBounds(1, 1)


def choose_capacity(minimum: int | None, maximum: int | None, fallback: CapacityBounds) -> tuple[int, int]:
    """Return minimum and maximum; if only one is given, the other is adjusted to it, but never down to zero."""
    if minimum is None:
        minimum = fallback.minimum if maximum is None else min(fallback.minimum, max(maximum, 1))
    return minimum, max(minimum, fallback.maximum) if maximum is None else maximum


def make_spec(args: argparse.Namespace, now: datetime) -> DeploymentSpec:
    """Return the deployment that the arguments describe, with defaults for everything omitted."""
    types = instance_types_of(args)
    image = args.image_uri or stock_image(args.region, types[0])
    minimum, maximum = choose_capacity(args.min_capacity, args.max_capacity, default_bounds(args.mode))
    spec = DeploymentSpec(
        endpoint=args.endpoint_name,
        role_arn=args.role_arn,
        region=args.region,
        instance_types=types,
        image_uri=image,
        version=now.strftime("v%Y%m%d%H%M%S"),
        min_capacity=minimum,
        max_capacity=maximum,
        concurrency=count_concurrent(args),
        ami=choose_machine_image(args, image),
        model_data=args.model_data,
        async_paths=make_async_paths(args),
        serverless=make_serverless_size(args),
        governance=Governance.from_arguments(args),
        config_patches=(read_patch(args.endpoint_config_json),) if args.endpoint_config_json else (),
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


def instance_types_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the instance types, the first choice first; none if the endpoint is serverless. Raises: WrongRequest."""
    return () if args.mode == "serverless" else split_types(args.instance_type or DEFAULT_TYPE)


def choose_machine_image(args: argparse.Namespace, image: str) -> str | None:
    types = instance_types_of(args)
    given: str | None = args.inference_ami_version
    return given or (choose_ami(image, types[0]) if types else None)


def workers_of(args: argparse.Namespace) -> str:
    """Return the workers of each container: those of --env, else as many as the instance carries.

    Viseme's own image counts by itself. The stock image's server needs a number; and a serverless container gets one
    request at a time.
    """
    given = dict(split_variable(text) for text in args.env).get(WORKERS_VARIABLE, AUTO_WORKERS)
    if given != AUTO_WORKERS and not re.fullmatch(r"[1-9]\d?", given):
        raise WrongRequest(f"--env {WORKERS_VARIABLE}={given}: expected 1 to 99, or {AUTO_WORKERS}")
    if given != AUTO_WORKERS or (args.image_uri and args.mode != "serverless"):
        return given
    return "1" if args.mode == "serverless" else str(count_workers(instance_types_of(args)))


def count_concurrent(args: argparse.Namespace) -> int:
    """Return how many requests each container runs at once."""
    workers, types = workers_of(args), instance_types_of(args)
    if workers == AUTO_WORKERS:
        return count_concurrent_requests(types)
    return int(workers) * (REQUESTS_PER_GPU_WORKER if args.image_uri and types and has_gpu(types[0]) else 1)


def make_serverless_size(args: argparse.Namespace) -> ServerlessSize | None:
    if args.mode != "serverless":
        return None
    return ServerlessSize(args.memory_mb or SERVERLESS_MEMORY_MB[-1], args.max_concurrency or DEFAULT_CONCURRENCY)


def make_async_paths(args: argparse.Namespace) -> AsyncPaths | None:
    if args.mode != "async":
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
    workers = workers_of(args)
    environment = ModelSelection.from_arguments(args).environment
    if args.image_uri:
        return {WORKERS_VARIABLE: workers} | environment | given
    environment |= stock_server_environment(args.mode, int(workers))
    if args.network_isolation:
        environment["PYTHONPATH"] = LIBRARY_PATH
    return environment | given | {WORKERS_VARIABLE: workers}


def warnings_of(args: argparse.Namespace) -> list[str]:
    """Return what licences forbid, what AWS does otherwise than the options say, and what may be cheaper."""
    environment = make_environment(args)
    warnings = ModelSelection.from_arguments(args).notices(environment)
    local = [one for one in instance_types_of(args) if has_local_disk(one)]
    if Governance.from_arguments(args).kms_key and local:
        warnings.append(
            f"--kms-key does not encrypt the local NVMe disk of {local[0]}, whose hardware does that with its own key; "
            f'if AWS refuses KmsKeyId for it, remove it by {OPTION} with {{"KmsKeyId": null}}'
        )
    if args.network_isolation:
        warnings.append("without a network the container cannot read videos in S3: send them in the request")
    if not args.image_uri and HUB_VARIABLE in environment:
        warnings.append(
            f"the stock image downloads all files of {environment[HUB_VARIABLE]} when {HUB_VARIABLE} is set, before "
            f"Viseme fetches what it needs; --weights hf://{environment[HUB_VARIABLE]} avoids that"
        )
    return warnings


def hint_of(args: argparse.Namespace) -> str | None:
    """Return what the caller should know of an instance type that was not chosen."""
    if args.instance_type or args.mode == "serverless":
        return None
    return (
        f"hint: the instance is an {DEFAULT_TYPE}; lip reading is mostly work of the CPU, for which --instance-type "
        "ml.c7i.xlarge costs about a seventh (docs/instances.md)"
    )


def stock_server_environment(mode: str, n_workers: int) -> dict[str, str]:
    """Return what the stock image's toolkit and server read. Their own limits are lower than SageMaker's.

    MMS_*: read by Multi Model Server itself (ConfigManager.setSystemVars); the toolkit's configuration allows that.
    """
    max_mb = MAX_ASYNC_MB if mode == "async" else MAX_REALTIME_MB
    return {
        "SAGEMAKER_PROGRAM": ENTRY_FILE,
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(max_mb),
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(WORKER_TIMEOUT_S[mode]),
        "MMS_MAX_RESPONSE_SIZE": str(max_mb << 20),
        "MMS_JOB_QUEUE_SIZE": str(QUEUE_PER_WORKER * n_workers),
    }


def split_variable(text: str) -> tuple[str, str]:
    name, is_set, value = text.partition("=")
    if not name or not is_set:
        raise WrongRequest(f"--env {text}: expected KEY=VALUE")
    return name, value
