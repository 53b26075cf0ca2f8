"""Asynchronous invocations: one request at a time is taken from the queue, answered by the container, and notified of.

Source: Amazon SageMaker AI developer guide, "Asynchronous inference": the input is read from S3; an answer is written
to the output path, the answer of a container that fails to the failure path; then a message is published, whose form
is that of "Check prediction results", and whose reason for a container's error is that which `lambdas/on_result` reads.
Not documented, and chosen here: an answer that cannot be written is a failure, whose message names no place if the
failure cannot be written either.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deploy.aws import Aws, read_body
from deploy.dev.events import MAX_POLL_S, Wakeup
from deploy.dev.http_proxy import ContainerConnection, ContainerUnreachable
from deploy.dev.runtime import JSON, LOCATION, MAX_TIMEOUT_S, REQUEST_FIELDS
from deploy.dev.stack import REGION
from deploy.errors import DeployError

logger = logging.getLogger("viseme.dev")
LEASE_S = MAX_TIMEOUT_S + 600  # only one thread takes messages, and each is deleted before the next is taken
Request = Mapping[str, Any]


class InvocationFailed(Exception):
    """A request has no answer. status, body: of the container's error, None if it did not answer."""

    def __init__(self, reason: str, status: int | None = None, body: bytes | None = None) -> None:
        super().__init__(reason)
        self.status, self.body = status, body


class AsyncInvoker(threading.Thread):
    """Works off the queue of asynchronous requests."""

    def __init__(self, aws: Aws, container: ContainerConnection, queue_url: str, wakeup: Wakeup) -> None:
        super().__init__(name="asynchronous invocations", daemon=True)
        self._aws, self._container, self._queue_url, self._wakeup = aws, container, queue_url, wakeup

    def run(self) -> None:
        seen = 0
        while not self._wakeup.is_stopped:
            seen = self._wakeup.wait(seen, MAX_POLL_S)
            try:
                while not self._wakeup.is_stopped and self.process_next():
                    pass
            except Exception:  # such as a topic that was deleted: the request stays in the queue
                logger.exception("%s", self.name)

    def process_next(self) -> bool:
        """Process one request; return whether there was one."""
        found = self._aws.call(
            "sqs", "ReceiveMessage", QueueUrl=self._queue_url, MaxNumberOfMessages=1, VisibilityTimeout=LEASE_S
        )
        messages = found.get("Messages", [])
        if not messages:
            return False
        [message] = messages
        try:
            request = parse_request(message["Body"])
        except ValueError as err:  # put into the queue by hand
            logger.warning("%s: a message is no request, and was dropped: %s", self.name, err)
        else:
            if not self._process(request):
                return False
        self._aws.call("sqs", "DeleteMessage", QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def _process(self, request: Request) -> bool:
        """Answer a request, and publish that; return False if the container is ending, and did not answer."""
        try:
            notice, topic = self._succeed(request), request["success_topic"]
        except InvocationFailed as err:
            if self._wakeup.is_stopped and (err.status is None or err.status >= 500):
                return False  # the request is processed after the next start
            notice, topic = self._fail(request, err), request["error_topic"]
        if topic:
            self._aws.call("sns", "Publish", TopicArn=topic, Message=json.dumps(notice))
        return True

    def _succeed(self, request: Request) -> dict[str, Any]:
        """Store the container's answer; return what is published. Raises: InvocationFailed."""
        body, content_type = self._invoke(request)
        location = request["output_location"]
        try:
            self._write(location, body, content_type)
        except DeployError as err:
            raise InvocationFailed(f"ClientError: {location} cannot be written: {err}") from err
        logger.info("%s: answered in %s", request["inference_id"], location)
        answered = {"contentType": content_type, "outputLocation": location}
        return notice_of(request, "Completed") | {"responseParameters": answered}

    def _fail(self, request: Request, err: InvocationFailed) -> dict[str, Any]:
        """Store the container's error; return what is published."""
        location = request["failure_location"]
        logger.info("%s: %s", request["inference_id"], err)
        notice = notice_of(request, "Failed") | {"failureReason": str(err)}
        if not location:
            return notice
        try:
            self._write(location, err.body or json.dumps({"message": str(err)}).encode(), JSON)
        except DeployError:
            logger.exception("%s: %s cannot be written", request["inference_id"], location)
            return notice
        return notice | {"responseParameters": {"failureLocation": location}}

    def _invoke(self, request: Request) -> tuple[bytes, str]:
        """Return the container's answer and its type. Raises: InvocationFailed."""
        received_at = datetime.fromisoformat(request["received_at"])
        if (datetime.now(UTC) - received_at).total_seconds() > request["ttl_s"]:
            raise InvocationFailed(f"expired: the request waited for more than {request['ttl_s']} s")
        body = self._read_input(request)
        headers = {
            "Content-Type": request["content_type"],
            "Accept": request["accept"],
            "X-Amzn-SageMaker-Custom-Attributes": request["custom_attributes"],
            # By this the container knows that the request is asynchronous, and may take an hour.
            "X-Amzn-SageMaker-Inference-Id": request["inference_id"],
        }
        given = {name: value for name, value in headers.items() if value}
        try:
            with self._container.send("/invocations", given, body, request["timeout_s"]) as reply:
                contents = reply.read()
        except (ContainerUnreachable, http.client.HTTPException, OSError) as err:
            raise InvocationFailed(f"InternalServerError: {err}") from err
        if reply.status >= 400:
            side = "client" if reply.status < 500 else "server"
            reason = (
                f"ClientError: Received {side} error ({reply.status}) from model. See the SageMaker Endpoint logs in "
                "your account for more information."
            )
            raise InvocationFailed(reason, reply.status, contents)
        return contents, reply.headers.get("Content-Type", "application/octet-stream")

    def _read_input(self, request: Request) -> bytes:
        """Return the body of a request. Raises: InvocationFailed if it cannot be read."""
        if request["body"]:
            return base64.b64decode(request["body"])
        bucket, key = split_location(request["input_location"])
        try:
            return read_body(self._aws.call("s3", "GetObject", Bucket=bucket, Key=key), "s3 GetObject")
        except DeployError as err:
            raise InvocationFailed(f"ClientError: {request['input_location']} cannot be read: {err}") from err

    def _write(self, location: str, contents: bytes, content_type: str) -> None:
        bucket, key = split_location(location)
        self._aws.call("s3", "PutObject", Bucket=bucket, Key=key, Body=contents, ContentType=content_type)


def parse_request(text: str) -> Request:
    """Return the request of a queue's message. Raises: ValueError."""
    try:
        request: Request = json.loads(text)
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    missing = REQUEST_FIELDS - set(request if isinstance(request, dict) else ())
    if missing:
        raise ValueError(f"expected an object with {', '.join(sorted(missing))}")
    return request


def notice_of(request: Request, status: str) -> dict[str, Any]:
    """Return what a message has of each request. status: Completed or Failed."""
    asked = {"contentType": request["content_type"], "endpointName": request["endpoint"]}
    return {
        "awsRegion": REGION,
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "receivedTime": request["received_at"].replace("+00:00", "Z"),
        "invocationStatus": status,
        "requestParameters": asked | {"inputLocation": request["input_location"]},
        "inferenceId": request["inference_id"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def split_location(location: str) -> tuple[str, str]:
    match = LOCATION.fullmatch(location)
    assert match  # checked when the request was accepted
    return match[1], match[2]
