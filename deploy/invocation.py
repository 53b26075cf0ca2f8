"""Requests to an endpoint that is in service: sent in real time, or queued and their answers read from S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from deploy.aws import Answer, Aws, read_body, read_stream
from deploy.errors import CallFailed, DeployError, RequestFailed
from deploy.storage import split_uri
from deploy.waiting import REPORT_INTERVAL_S, WaitPolicy, read_last_log_lines

MISSING_OBJECT_CODES = ("NoSuchKey", "404")
MODEL_ERRORS = ("ModelError", "ModelStreamError")  # the container's own, before and within its answer
N_ERROR_LOG_LINES = 5  # shown with an error that a caller may have caused


def invoke_realtime(aws: Aws, endpoint: str, body: bytes, content_type: str, accept: str, **more: Any) -> bytes:
    """Return the answer to one request.

    more: further parameters of InvokeEndpoint.
    Raises: CallFailed, whose code is ModelError if the container answered with an error.
    """
    answer = aws.call(
        "sagemaker-runtime",
        "InvokeEndpoint",
        EndpointName=endpoint,
        ContentType=content_type,
        Accept=accept,
        Body=body,
        **more,
    )
    return read_body(answer, "sagemaker-runtime InvokeEndpoint")


def stream_answer(aws: Aws, endpoint: str, body: bytes, content_type: str, accept: str, **more: Any) -> Iterator[bytes]:
    """Yield the answer to one request piece by piece, as the container sends it.

    more: further parameters of InvokeEndpointWithResponseStream.
    Raises: CallFailed, whose code is ModelError if the container answered with an error, and ModelStreamError if its
    answer broke off.
    """
    answer = aws.call(
        "sagemaker-runtime",
        "InvokeEndpointWithResponseStream",
        EndpointName=endpoint,
        ContentType=content_type,
        Accept=accept,
        Body=body,
        **more,
    )
    yield from read_stream(answer, "sagemaker-runtime", "InvokeEndpointWithResponseStream")


def start_async(
    aws: Aws, endpoint: str, input_uri: str, content_type: str, accept: str, timeout_s: int, **more: Any
) -> Answer:
    """Queue the request in an S3 object. Returns: the locations of the answer and of the error.

    timeout_s: how long the container may take; more: further parameters of InvokeEndpointAsync.
    """
    return aws.call(
        "sagemaker-runtime",
        "InvokeEndpointAsync",
        EndpointName=endpoint,
        InputLocation=input_uri,
        ContentType=content_type,
        Accept=accept,
        InvocationTimeoutSeconds=timeout_s,
        **more,
    )


def place_for_request(answers_uri: str, name: str) -> tuple[str, str]:
    """Return bucket and key for a request: requests/ beside the folder of answers; uploads/ would start a request.

    answers_uri: of the folder, which may be the whole bucket.
    """
    bucket, _, answers = answers_uri.removeprefix("s3://").partition("/")
    return bucket, str(PurePosixPath(answers).parent / "requests" / name)


def explain_model_error(aws: Aws, endpoint: str, err: CallFailed) -> DeployError:
    """Return an error with the container's answer, and with its last log lines in case it died."""
    if err.code not in MODEL_ERRORS:
        return err
    lines = "\n".join(f"  {line}" for line in read_last_log_lines(aws, endpoint)[-N_ERROR_LOG_LINES:])
    return RequestFailed(
        f"{endpoint}: {err.aws_message}" + (f"\nthe container's last log lines:\n{lines}" if lines else "")
    )


def wait_for_answer(aws: Aws, started: Answer, wait_policy: WaitPolicy) -> bytes:
    """Return the answer's bytes.

    started: the answer of InvokeEndpointAsync.
    Raises: RequestFailed with the contents of the failure object; DeployError if neither object appears in time.
    """
    start = reported = wait_policy.clock()
    while True:
        answer = read_object(aws, started["OutputLocation"])
        if answer is not None:
            return answer
        failure = read_object(aws, started["FailureLocation"]) if started.get("FailureLocation") else None
        if failure is not None:
            raise RequestFailed(f"the request failed: {failure.decode('utf-8', 'replace').strip()}")
        now = wait_policy.clock()
        if now - start >= wait_policy.timeout_s:
            raise DeployError(
                f"no answer after {wait_policy.timeout_s:.0f} s; it will be written to {started['OutputLocation']}"
            )
        if now - reported >= REPORT_INTERVAL_S:
            wait_policy.report(f"still waiting ({now - start:.0f} s)")
            reported = now
        wait_policy.sleep(wait_policy.poll_s)


def read_object(aws: Aws, uri: str) -> bytes | None:
    """Return the object's bytes; None while it does not exist."""
    bucket, key = split_uri(uri)
    try:
        answer = aws.call("s3", "GetObject", Bucket=bucket, Key=key)
    except CallFailed as err:
        if err.code in MISSING_OBJECT_CODES:
            return None
        raise
    return read_body(answer, f"s3 GetObject {uri}")
