"""Has a deployed endpoint read a film, and waits for the answer: `python -m deploy.invoke --help`."""

from __future__ import annotations

import argparse
import json
import mimetypes
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from deploy.aws import Answer, Aws, LiveAws
from deploy.errors import CallFailed, DeployError, WrongRequest
from deploy.rollout import mode_of
from deploy.storage import check_file, split_uri, upload
from deploy.waiting import TELL_EVERY_S, Patience, describe_endpoint, last_log_lines, say

MAX_REALTIME_BYTES = 25_000_000
MAX_ASYNC_BYTES = 1 << 30
INVOCATION_TIMEOUT_S = 3600
MISSING = ("NoSuchKey", "404")
JSON = "application/json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the caller's mistake, 1 anything else."""
    asked = make_parser().parse_args(arguments)
    patience = Patience(poll_s=5.0, limit_s=asked.timeout_s)
    try:
        answer = invoke(LiveAws(asked.region), asked, patience)
    except DeployError as err:
        say(f"deploy.invoke: {err}")
        return err.exit_code
    except KeyboardInterrupt:
        say("deploy.invoke: no longer waiting; an asynchronous request goes on")
        return 130
    if asked.output:
        asked.output.write_bytes(answer)
    else:
        sys.stdout.buffer.write(answer if answer.endswith(b"\n") else answer + b"\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.invoke", description=__doc__, allow_abbrev=False)
    parser.add_argument("film", help="a file, or s3://BUCKET/KEY; a request in a .json file, as for lip sync")
    parser.add_argument("--endpoint-name", required=True, metavar="NAME")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--accept", default=JSON, help="such as text/vtt (application/json)")
    parser.add_argument("--options", metavar="JSON", help='of the request, such as {"face": 1}')
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="for the answer; by default stdout")
    parser.add_argument(
        "--timeout-s", type=float, default=3600.0, metavar="S", help="for an asynchronous answer (3600)"
    )
    return parser


def invoke(aws: Aws, asked: argparse.Namespace, patience: Patience) -> bytes:
    """The endpoint's answer, whether it is asynchronous or not.

    Raises: WrongRequest, DeployError with what the container said.
    """
    found = describe_endpoint(aws, asked.endpoint_name)
    if not found:
        raise WrongRequest(f"{asked.endpoint_name}: no such endpoint in {asked.region}")
    if found["EndpointStatus"] not in ("InService", "Updating", "SystemUpdating"):
        raise WrongRequest(f"{asked.endpoint_name}: is {found['EndpointStatus']} and answers nothing")
    if mode_of(found) == "async":
        return invoke_async(aws, asked, found, patience)
    return invoke_realtime(aws, asked)


def invoke_realtime(aws: Aws, asked: argparse.Namespace) -> bytes:
    content_type, body = make_body(asked)
    if len(body) > MAX_REALTIME_BYTES:
        raise WrongRequest(
            f"{asked.film}: {len(body)} bytes; a real-time endpoint takes {MAX_REALTIME_BYTES}: put it into S3 and "
            "name it s3://BUCKET/KEY, or deploy with --mode async"
        )
    try:
        answer = aws.call(
            "sagemaker-runtime",
            "InvokeEndpoint",
            EndpointName=asked.endpoint_name,
            ContentType=content_type,
            Accept=asked.accept,
            Body=body,
            **options_of(asked),
        )
    except CallFailed as err:
        raise explain_model_error(aws, asked.endpoint_name, err) from err
    contents: bytes = answer["Body"].read()
    return contents


def make_body(asked: argparse.Namespace) -> tuple[str, bytes]:
    """Content type and body: the film itself, or where it lies in S3."""
    if not asked.film.startswith("s3://"):
        return type_of(asked.film), check_file(Path(asked.film)).read_bytes()
    bucket, key = split_uri(asked.film)
    return JSON, json.dumps({"s3_bucket": bucket, "s3_video_key": key, "fps": 25}).encode()


def options_of(asked: argparse.Namespace) -> dict[str, str]:
    return {"CustomAttributes": asked.options} if asked.options else {}


def type_of(film: str) -> str:
    """As its name says; a film of some kind where it says nothing."""
    guessed, _ = mimetypes.guess_type(film)
    return guessed if guessed and guessed.startswith(("video/", JSON)) else "application/octet-stream"


def explain_model_error(aws: Aws, endpoint: str, err: CallFailed) -> DeployError:
    """What the container answered is in the message; a container that died left something in its log."""
    if err.code != "ModelError":
        return err
    lines = "\n".join(f"  {line}" for line in last_log_lines(aws, endpoint)[-5:])
    return DeployError(f"{endpoint}: {err.said}" + (f"\nthe container's last log lines:\n{lines}" if lines else ""))


def invoke_async(aws: Aws, asked: argparse.Namespace, found: Answer, patience: Patience) -> bytes:
    """Put the film into S3 where it is a file, have it read, wait for the object that holds the answer."""
    film = asked.film if asked.film.startswith("s3://") else upload_film(aws, asked, found)
    started = aws.call(
        "sagemaker-runtime",
        "InvokeEndpointAsync",
        EndpointName=asked.endpoint_name,
        InputLocation=film,
        ContentType=type_of(film),
        Accept=asked.accept,
        InvocationTimeoutSeconds=INVOCATION_TIMEOUT_S,
        **options_of(asked),
    )
    patience.say(f"{asked.endpoint_name}: waiting for {started['OutputLocation']}")
    return wait_for_answer(aws, started, patience)


def upload_film(aws: Aws, asked: argparse.Namespace, found: Answer) -> str:
    """Beside the folder of answers, under requests/: uploads/ would start a request by itself."""
    path = check_file(Path(asked.film))
    size = path.stat().st_size
    if size > MAX_ASYNC_BYTES:
        raise WrongRequest(f"{path}: {size} bytes; an asynchronous endpoint takes {MAX_ASYNC_BYTES}")
    bucket, answers = split_uri(found["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"])
    account = found["EndpointArn"].split(":")[4]
    key = str(PurePosixPath(answers).parent / "requests" / f"{uuid.uuid4()}{path.suffix.lower()}")
    with path.open("rb") as file:
        return upload(aws, file, bucket, key, account, type_of(asked.film))


def wait_for_answer(aws: Aws, started: Answer, patience: Patience) -> bytes:
    """Raises: DeployError with what is in the failure object, or where neither comes in time."""
    start = told = patience.clock()
    while True:
        answer = find_object(aws, started["OutputLocation"])
        if answer is not None:
            return answer
        failure = find_object(aws, started["FailureLocation"]) if started.get("FailureLocation") else None
        if failure is not None:
            raise DeployError(f"the endpoint failed on it: {failure.decode('utf-8', 'replace').strip()}")
        now = patience.clock()
        if now - start >= patience.limit_s:
            raise DeployError(f"no answer after {patience.limit_s:.0f} s; it will be at {started['OutputLocation']}")
        if now - told >= TELL_EVERY_S:
            patience.say(f"still waiting ({now - start:.0f} s)")
            told = now
        patience.sleep(patience.poll_s)


def find_object(aws: Aws, uri: str) -> bytes | None:
    """The object's bytes; None while it is not there."""
    bucket, key = split_uri(uri)
    try:
        answer = aws.call("s3", "GetObject", Bucket=bucket, Key=key)
    except CallFailed as err:
        if err.code in MISSING:
            return None
        raise
    contents: bytes = answer["Body"].read()
    return contents


if __name__ == "__main__":
    sys.exit(main())
