"""Send a video to an endpoint and print its answer."""

from __future__ import annotations

import argparse
import json
import mimetypes
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy import invocation
from deploy.aws import Answer, Aws, BotoAws
from deploy.command import run_command
from deploy.errors import CallFailed, WrongRequest
from deploy.region import REGION_HELP, choose_region
from deploy.rollout import mode_of
from deploy.storage import check_file, split_uri, upload_file
from deploy.waiting import WaitPolicy, describe_endpoint

MAX_REALTIME_BYTES = 25_000_000  # SageMaker's limit for one request
MAX_SERVERLESS_BYTES = 4 << 20  # the same of a serverless endpoint
MAX_ASYNC_BYTES = 1 << 30  # SageMaker's limit for one input in S3
INVOCATION_TIMEOUT_S = 3600  # the longest that SageMaker allows an asynchronous request
JSON, NDJSON = "application/json", "application/x-ndjson"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = make_parser().parse_args(arguments)
    interrupted = "stopped waiting; an asynchronous request continues on AWS"
    return run_command("deploy.invoke", lambda: run(args), interrupted)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.invoke", description=__doc__, allow_abbrev=False)
    parser.add_argument("video", help="a file or s3://BUCKET/KEY; or a request as a .json file, for lip sync")
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--region", help=REGION_HELP)
    parser.add_argument("--accept", help="format of the answer, such as text/vtt (default: JSON; NDJSON with --stream)")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="write the answer as it arrives: words while a long video is read, for up to 8 minutes; real-time "
        "endpoints with Viseme's image",
    )
    parser.add_argument("--options", metavar="JSON", help='request options, such as {"face": 1}')
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the answer there (default: stdout)")
    parser.add_argument(
        "--timeout-s", type=float, default=3600.0, metavar="S", help="longest wait for an asynchronous answer (3600)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    check_arguments(args)
    args.region = choose_region(args.region)
    pieces = invoke(BotoAws(args.region), args, WaitPolicy(poll_s=5.0, timeout_s=args.timeout_s))
    if args.output:
        write_file(args.output, pieces)
    else:
        write_stdout(pieces)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise WrongRequest before any call if there is no such video, or the options are not a JSON object."""
    if args.video.startswith("s3://"):
        split_uri(args.video)
    else:
        check_file(Path(args.video))
    try:
        options = json.loads(args.options or "{}")
    except ValueError as err:
        raise WrongRequest(f"--options {args.options}: not JSON: {err}") from err
    if not isinstance(options, dict):
        raise WrongRequest(f'--options {args.options}: expected a JSON object such as {{"face": 1}}')


def write_file(path: Path, pieces: Iterator[bytes]) -> None:
    """Write the answer, complete or not at all. Raises: WrongRequest, before anything is sent, if it cannot."""
    # A pipe, a device or a link to one, such as /dev/stdout, is written to and never replaced.
    is_replaced = not path.is_symlink() and (path.is_file() or not path.exists())
    partial = path.with_name(f"{path.name}.part") if is_replaced else path
    try:
        file = partial.open("wb")
    except OSError as err:
        raise WrongRequest(f"--output {path}: {err.strerror}") from err
    try:
        with file:
            for piece in pieces:
                file.write(piece)
                file.flush()
        if is_replaced:
            partial.replace(path)
    finally:
        if is_replaced:
            partial.unlink(missing_ok=True)


def write_stdout(pieces: Iterator[bytes]) -> None:
    """Write each piece at once, and end the last line."""
    last = b"\n"
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        last = piece or last
    if not last.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")


def invoke(aws: Aws, args: argparse.Namespace, wait_policy: WaitPolicy) -> Iterator[bytes]:
    """Yield the answer of a real-time or asynchronous endpoint: in one piece, or as it arrives with --stream.

    Raises: WrongRequest; DeployError with the container's error message.
    """
    found = describe_endpoint(aws, args.endpoint_name)
    if not found:
        raise WrongRequest(f"{args.endpoint_name}: no such endpoint in {args.region}")
    if found["EndpointStatus"] not in ("InService", "Updating", "SystemUpdating"):
        raise WrongRequest(f"{args.endpoint_name}: is {found['EndpointStatus']} and takes no requests")
    mode = mode_of(found)
    if mode == "async":
        if args.stream:
            raise WrongRequest(f"--stream: {args.endpoint_name} is asynchronous; only a real-time endpoint streams")
        yield invoke_async(aws, args, found, wait_policy)
    else:
        yield from invoke_realtime(aws, args, MAX_SERVERLESS_BYTES if mode == "serverless" else MAX_REALTIME_BYTES)


def invoke_realtime(aws: Aws, args: argparse.Namespace, max_bytes: int) -> Iterator[bytes]:
    content_type, body = make_body(args, max_bytes)
    name, accept, more = args.endpoint_name, accept_of(args), custom_attributes(args)
    try:
        if args.stream:
            yield from invocation.stream_answer(aws, name, body, content_type, accept, **more)
        else:
            yield invocation.invoke_realtime(aws, name, body, content_type, accept, **more)
    except CallFailed as err:
        raise invocation.explain_model_error(aws, args.endpoint_name, err) from err


def make_body(args: argparse.Namespace, max_bytes: int) -> tuple[str, bytes]:
    """Return content type and body: the video itself, or a JSON request with its place in S3. Raises: WrongRequest."""
    if args.video.startswith("s3://"):
        bucket, key = split_uri(args.video)
        return JSON, json.dumps({"s3_bucket": bucket, "s3_video_key": key, "fps": 25}).encode()
    path = check_file(Path(args.video))
    size = path.stat().st_size
    if size > max_bytes:
        raise WrongRequest(
            f"{path}: {size} bytes; this endpoint takes at most {max_bytes}: upload it to S3 and pass s3://BUCKET/KEY, "
            "or deploy with --mode async"
        )
    return guess_content_type(args.video), path.read_bytes()


def accept_of(args: argparse.Namespace) -> str:
    return args.accept or (NDJSON if args.stream else JSON)


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
        accept_of(args),
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
