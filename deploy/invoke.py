"""Send a video to an endpoint and print its answer."""

from __future__ import annotations

import argparse
import json
import mimetypes
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from deploy import invocation
from deploy.aws import Answer, Aws, BotoAws
from deploy.command import run_command
from deploy.errors import CallFailed, WrongRequest
from deploy.rollout import mode_of
from deploy.storage import check_file, split_uri, upload_file
from deploy.waiting import WaitPolicy, describe_endpoint

MAX_REALTIME_BYTES = 25_000_000  # SageMaker's limit for one request
MAX_ASYNC_BYTES = 1 << 30  # SageMaker's limit for one input in S3
INVOCATION_TIMEOUT_S = 3600  # the longest that SageMaker allows an asynchronous request
JSON = "application/json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = make_parser().parse_args(arguments)
    interrupted = "stopped waiting; an asynchronous request continues on AWS"
    return run_command("deploy.invoke", lambda: run(args), interrupted)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.invoke", description=__doc__, allow_abbrev=False)
    parser.add_argument("video", help="a file or s3://BUCKET/KEY; or a request as a .json file, for lip sync")
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--region", default="us-east-1", help="default: us-east-1")
    parser.add_argument("--accept", default=JSON, help="format of the answer, such as text/vtt (default: JSON)")
    parser.add_argument("--options", metavar="JSON", help='request options, such as {"face": 1}')
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the answer there (default: stdout)")
    parser.add_argument(
        "--timeout-s", type=float, default=3600.0, metavar="S", help="longest wait for an asynchronous answer (3600)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    answer = invoke(BotoAws(args.region), args, WaitPolicy(poll_s=5.0, timeout_s=args.timeout_s))
    if args.output:
        args.output.write_bytes(answer)
    else:
        sys.stdout.buffer.write(answer if answer.endswith(b"\n") else answer + b"\n")


def invoke(aws: Aws, args: argparse.Namespace, wait_policy: WaitPolicy) -> bytes:
    """Return the answer of a real-time or asynchronous endpoint.

    Raises: WrongRequest; DeployError with the container's error message.
    """
    found = describe_endpoint(aws, args.endpoint_name)
    if not found:
        raise WrongRequest(f"{args.endpoint_name}: no such endpoint in {args.region}")
    if found["EndpointStatus"] not in ("InService", "Updating", "SystemUpdating"):
        raise WrongRequest(f"{args.endpoint_name}: is {found['EndpointStatus']} and takes no requests")
    if mode_of(found) == "async":
        return invoke_async(aws, args, found, wait_policy)
    return invoke_realtime(aws, args)


def invoke_realtime(aws: Aws, args: argparse.Namespace) -> bytes:
    content_type, body = make_body(args)
    if len(body) > MAX_REALTIME_BYTES:
        raise WrongRequest(
            f"{args.video}: {len(body)} bytes; a real-time endpoint takes at most {MAX_REALTIME_BYTES}: upload it to "
            "S3 and pass s3://BUCKET/KEY, or deploy with --mode async"
        )
    try:
        return invocation.invoke_realtime(
            aws, args.endpoint_name, body, content_type, args.accept, **custom_attributes(args)
        )
    except CallFailed as err:
        raise invocation.explain_model_error(aws, args.endpoint_name, err) from err


def make_body(args: argparse.Namespace) -> tuple[str, bytes]:
    """Return content type and body: the video itself, or a JSON request with its place in S3."""
    if not args.video.startswith("s3://"):
        return guess_content_type(args.video), check_file(Path(args.video)).read_bytes()
    bucket, key = split_uri(args.video)
    return JSON, json.dumps({"s3_bucket": bucket, "s3_video_key": key, "fps": 25}).encode()


def custom_attributes(args: argparse.Namespace) -> dict[str, str]:
    return {"CustomAttributes": args.options} if args.options else {}


def guess_content_type(name: str) -> str:
    """Return the media type of a file by its suffix; application/octet-stream if it is not video or JSON."""
    guessed, _ = mimetypes.guess_type(name)
    return guessed if guessed and guessed.startswith(("video/", JSON)) else "application/octet-stream"


def invoke_async(aws: Aws, args: argparse.Namespace, found: Answer, wait_policy: WaitPolicy) -> bytes:
    """Upload the video to S3 if it is a file, invoke the endpoint, and wait for the object with the answer."""
    uri = args.video if args.video.startswith("s3://") else upload_video(aws, args, found)
    started = invocation.start_async(
        aws,
        args.endpoint_name,
        uri,
        guess_content_type(uri),
        args.accept,
        INVOCATION_TIMEOUT_S,
        **custom_attributes(args),
    )
    wait_policy.report(f"{args.endpoint_name}: waiting for {started['OutputLocation']}")
    return invocation.wait_for_answer(aws, started, wait_policy)


def upload_video(aws: Aws, args: argparse.Namespace, found: Answer) -> str:
    """Upload the file beside the folder of answers, and return its URI."""
    path = check_file(Path(args.video))
    size = path.stat().st_size
    if size > MAX_ASYNC_BYTES:
        raise WrongRequest(f"{path}: {size} bytes; an asynchronous endpoint takes at most {MAX_ASYNC_BYTES}")
    answers = found["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"]
    bucket, key = invocation.place_for_request(answers, f"{uuid.uuid4()}{path.suffix.lower()}")
    account = found["EndpointArn"].split(":")[4]
    with path.open("rb") as file:
        return upload_file(aws, file, bucket, key, account, guess_content_type(args.video))


if __name__ == "__main__":
    sys.exit(main())
