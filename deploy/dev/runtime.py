"""SageMaker Runtime: the endpoints of moto's SageMaker, all served by one container on this machine.

Source: the operations in botocore's service model of `sagemaker-runtime` (paths, headers, errors); the limits of an
inline body in its documentation. Of a result's name the model says only that it is based on the inference ID, and of a
failure's nothing: callers take both from the answer. UUID-error.out is what users report of real endpoints
(siddharths060/Stygig-Model-2, `test_with_error_analysis.sh`).
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from werkzeug.wsgi import get_content_length

from deploy.aws import Aws
from deploy.dev.http_proxy import BodyTooLarge, ContainerConnection, ContainerUnreachable, Environ, StartResponse
from deploy.dev.moto_account import find_endpoint_config
from deploy.dev.stack import ACCOUNT_ID
from deploy.errors import DeployError

PATH = re.compile(r"/endpoints/([^/]+)/(invocations|invocations-response-stream|async-invocations)")
PREFIX = "HTTP_X_AMZN_SAGEMAKER_"  # of the headers of an asynchronous request
MAX_INLINE_BYTES = 128_000
MAX_TTL_S, MAX_TIMEOUT_S, TIMEOUT_S = 21_600, 3600, 900  # seconds in the queue, and of one invocation
# Of an asynchronous request in the queue: see `read_async_request` and `locations`.
REQUEST_FIELDS = frozenset(
    [
        "inference_id",
        "input_location",
        "body",
        "content_type",
        "accept",
        "custom_attributes",
        "ttl_s",
        "timeout_s",
        "received_at",
        "endpoint",
        "output_location",
        "failure_location",
        "success_topic",
        "error_topic",
    ]
)
LOCATION = re.compile(r"s3://([^/]+)/(.+)")
JSON = "application/json"


class RuntimeFault(Exception):
    """What SageMaker Runtime itself answers. code: of an error in its service model."""

    def __init__(self, code: str, status: str, message: str) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class SageMakerRuntime:
    """A WSGI application for /endpoints/NAME/... ."""

    def __init__(self, aws: Aws, container: ContainerConnection, queue_url: str) -> None:
        """queue_url: of the queue that asynchronous requests are put into."""
        self._aws, self._container, self._queue_url = aws, container, queue_url

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return self._answer(environ, start_response)
        except RuntimeFault as err:
            body = json.dumps({"Message": str(err)}).encode()
            return respond(start_response, err.status, body, {"x-amzn-errortype": err.code})

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        match = PATH.fullmatch(environ["PATH_INFO"])
        if match is None or environ["REQUEST_METHOD"] != "POST":
            raise RuntimeFault(
                "UnknownOperationException", "404 Not Found", f"{environ['PATH_INFO']}: no such operation"
            )
        name, operation = match.groups()
        config = find_endpoint_config(name)
        if config is None:
            raise invalid(f"Endpoint {name} of account {ACCOUNT_ID} not found.")
        if operation == "async-invocations":
            return self._accept(environ, start_response, name, config.async_inference_config)
        try:
            return self._container.forward(environ, start_response)
        except BodyTooLarge as err:
            raise RuntimeFault("ValidationError", "413 Content Too Large", str(err)) from err
        except ContainerUnreachable as err:
            raise RuntimeFault("ServiceUnavailable", "503 Service Unavailable", str(err)) from err

    def _accept(
        self, environ: Environ, start_response: StartResponse, endpoint: str, config: Mapping[str, Any] | None
    ) -> Iterable[bytes]:
        """Queue an asynchronous request, and answer where its result will be."""
        if not config:
            raise invalid(f"Endpoint {endpoint} is not configured for asynchronous inference.")
        request = read_async_request(environ) | {"endpoint": endpoint}
        request |= locations(config["OutputConfig"], request)
        try:
            self._aws.call("sqs", "SendMessage", QueueUrl=self._queue_url, MessageBody=json.dumps(request))
        except DeployError as err:
            raise RuntimeFault("InternalFailure", "500 Internal Server Error", str(err)) from err
        headers = {"X-Amzn-SageMaker-OutputLocation": request["output_location"]}
        if request["failure_location"]:
            headers["X-Amzn-SageMaker-FailureLocation"] = request["failure_location"]
        body = json.dumps({"InferenceId": request["inference_id"]}).encode()
        return respond(start_response, "202 Accepted", body, headers)


def invalid(message: str) -> RuntimeFault:
    return RuntimeFault("ValidationError", "400 Bad Request", message)


def respond(start_response: StartResponse, status: str, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    shared = {"Content-Type": JSON, "Content-Length": str(len(body)), "x-amzn-RequestId": str(uuid.uuid4())}
    start_response(status, list((shared | dict(headers)).items()))
    return [body]


def read_async_request(environ: Environ) -> dict[str, Any]:
    """Return what InvokeEndpointAsync asks for, without the endpoint. Raises: RuntimeFault."""
    found = {name.removeprefix(PREFIX): value for name, value in environ.items() if name.startswith(PREFIX)}
    length = get_content_length(environ) or 0
    if length > MAX_INLINE_BYTES:
        raise invalid(f"Body: {length} bytes, expected at most {MAX_INLINE_BYTES}")
    body, location = environ["wsgi.input"].read(length), found.get("INPUTLOCATION")
    if bool(body) == bool(location):
        raise invalid("expected either InputLocation or Body")
    if location and not LOCATION.fullmatch(location):
        raise invalid(f"InputLocation {location!r}: expected s3://bucket/key")
    return {
        "inference_id": found.get("INFERENCE_ID") or str(uuid.uuid4()),
        "input_location": location,
        "body": base64.b64encode(body).decode() or None,
        "content_type": found.get("CONTENT_TYPE", ""),
        "accept": found.get("ACCEPT", ""),
        "custom_attributes": found.get("CUSTOM_ATTRIBUTES"),
        "filename": found.get("FILENAME"),
        "path_extension": found.get("S3OUTPUTPATHEXTENSION", ""),
        "ttl_s": read_seconds(found, "REQUESTTTLSECONDS", MAX_TTL_S, MAX_TTL_S),
        "timeout_s": read_seconds(found, "INVOCATIONTIMEOUTSECONDS", TIMEOUT_S, MAX_TIMEOUT_S),
        "received_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def read_seconds(headers: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = headers.get(name, str(default))
    if not (text.isdecimal() and 1 <= int(text) <= maximum):
        raise invalid(f"{name} {text!r}: expected a number from 1 to {maximum}")
    return int(text)


def locations(output: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the answer, or the error, is written, and the topics that are notified."""
    request_id = str(uuid.uuid4())
    folder = "/".join(filter(None, (output["S3OutputPath"].rstrip("/"), request["path_extension"].strip("/"))))
    failures, topics = output.get("S3FailurePath"), output.get("NotificationConfig", {})
    return {
        "output_location": f"{folder}/{request['filename'] or request_id + '.out'}",
        "failure_location": f"{failures.rstrip('/')}/{request_id}-error.out" if failures else None,
        "success_topic": topics.get("SuccessTopic"),
        "error_topic": topics.get("ErrorTopic"),
    }
