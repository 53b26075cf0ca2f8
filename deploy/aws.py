"""The only module that calls AWS, for real or as a dry run."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TextIO

import boto3
import botocore.session
from botocore import xform_name
from botocore.config import Config
from botocore.eventstream import ParserError
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound
from botocore.validate import validate_parameters
from urllib3.exceptions import HTTPError

from deploy.diagnostics import explain_call
from deploy.errors import CallFailed, DeployError, WrongRequest

Answer = dict[str, Any]
CALL_TIMEOUT_S = 70  # a real-time invocation may take 60 s
STREAM_TIMEOUT_S = 490  # a streamed answer may take 8 minutes, and be silent in between
STREAMED = ("InvokeEndpointWithResponseStream",)
HIDDEN_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY")  # of a container's variable, such as HF_TOKEN
HIDDEN_VALUE = "<secret>"


class Aws(Protocol):
    """The AWS API as the deployment commands use it."""

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        """Make one call, by AWS's own names ("sagemaker", "CreateModel"). Raises: CallFailed, DeployError."""


class BotoAws:
    """AWS through boto3, with the caller's own credentials."""

    def __init__(self, region: str | None, profile: str | None = None) -> None:
        """region: None for that of the profile; profile: None for AWS_PROFILE. Raises: WrongRequest if it has none."""
        try:
            self._session = boto3.Session(region_name=region, profile_name=profile)
        except ProfileNotFound as err:
            raise WrongRequest(str(err)) from err
        if not self._session.region_name:
            raise WrongRequest("--region: not given, and the profile has none")
        self.region: str = self._session.region_name
        self._clients: dict[tuple[str, float], Any] = {}

    def client(self, service: str, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Return the service's client, created on first use. timeout_s: how long an answer may be silent."""
        if (service, timeout_s) not in self._clients:
            # A repeated invocation is paid for twice: only calls that do not run a model are retried.
            attempts = 1 if service == "sagemaker-runtime" else 5
            config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=timeout_s)
            self._clients[service, timeout_s] = self._session.client(service, config=config)
        return self._clients[service, timeout_s]

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        client = self.client(service, STREAM_TIMEOUT_S if operation in STREAMED else CALL_TIMEOUT_S)
        try:
            answer: Answer = getattr(client, xform_name(operation))(**parameters)
        except ClientError as err:
            raise as_call_failed(err, service, operation) from err
        except BotoCoreError as err:  # no credentials, no network, invalid parameters
            raise DeployError(f"{service} {operation}: {err}") from err
        return answer


def as_call_failed(err: ClientError, service: str, operation: str) -> CallFailed:
    """Convert boto3's error to ours, with advice on how to fix it."""
    error = err.response.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    status = err.response.get("OriginalStatusCode")
    return CallFailed(explain_call(service, operation, code, message), code, message, status)


def read_body(answer: Answer, call: str) -> bytes:
    """Return the body of an answer, which is still being transferred. Raises: DeployError if the transfer fails."""
    try:
        contents: bytes = answer["Body"].read()
    except BotoCoreError as err:  # the connection was closed, or was silent for too long
        raise DeployError(f"{call}: {err}") from err
    return contents


def read_stream(answer: Answer, service: str, operation: str) -> Iterator[bytes]:
    """Yield the parts of a streamed answer as they arrive.

    Raises: CallFailed if the answer ends with an error (ModelStreamError, InternalStreamFailure); DeployError if the
    transfer fails.
    """
    try:
        for event in answer["Body"]:
            if "PayloadPart" in event:
                yield event["PayloadPart"]["Bytes"]
    except ClientError as err:  # an event that is an exception
        raise as_call_failed(err, service, operation) from err
    # botocore decodes an event stream from the connection itself, without translating the connection's errors.
    except (BotoCoreError, HTTPError, ParserError) as err:
        raise DeployError(f"{service} {operation}: the answer broke off: {err}") from err
    finally:
        answer["Body"].close()


class DryRunAws:
    """Prints each call as one JSON object a line, and answers as if every call succeeded.

    Parameters are validated against AWS's own service model, so what is printed is at least well-formed.
    Nothing leaves the machine, and no credentials are needed.
    """

    def __init__(self, out: TextIO, canned_answers: Mapping[str, Answer]) -> None:
        """canned_answers: answers by operation; any other operation answers with an empty object."""
        self._out = out
        self._canned_answers = dict(canned_answers)

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        check_parameters(service, operation, parameters)
        line = {"service": service, "operation": operation, "parameters": hide_secrets(parameters)}
        print(json.dumps(line, default=placeholder_for), file=self._out)
        self._update_answers(operation, parameters)
        answer = self._canned_answers.get(operation, {})
        if "Error" in answer:
            raise as_call_failed(ClientError(answer, operation), service, operation)
        return answer

    def _update_answers(self, operation: str, parameters: Answer) -> None:
        """Change later answers as this call would: a created endpoint is in service, a deleted one is missing."""
        if operation in ("CreateEndpoint", "UpdateEndpoint"):
            config = parameters["EndpointConfigName"]
            self._canned_answers["DescribeEndpoint"] = {"EndpointStatus": "InService", "EndpointConfigName": config}
        if operation == "DeleteModel":
            self._canned_answers["ListModels"] = {}
        if operation == "DeleteEndpoint":
            name = parameters["EndpointName"]
            error = {"Code": "ValidationException", "Message": f'Could not find endpoint "{name}".'}
            self._canned_answers["DescribeEndpoint"] = {"Error": error}


def check_parameters(service: str, operation: str, parameters: Answer) -> None:
    """Raise DeployError unless AWS's own model of the service accepts the parameters of a call."""
    try:
        validate_parameters(parameters, service_model(service).operation_model(operation).input_shape)
    except BotoCoreError as err:
        raise DeployError(f"{service} {operation}: {err}") from err


@lru_cache
def service_model(service: str) -> Any:
    """Return AWS's description of a service, which is megabytes: it is read once."""
    return botocore.session.get_session().get_service_model(service)


def hide_secrets(parameters: Answer) -> Answer:
    """Return the parameters of a call with the container's secrets hidden: what is printed ends up in logs."""
    container = parameters.get("PrimaryContainer", {})
    if "Environment" not in container:
        return parameters
    shown = {
        name: HIDDEN_VALUE if HIDDEN_NAME.search(name) else value for name, value in container["Environment"].items()
    }
    return parameters | {"PrimaryContainer": container | {"Environment": shown}}


def placeholder_for(value: object) -> str:
    """Return what is printed for a value that JSON cannot hold, such as an open file."""
    if isinstance(value, (bytes, io.BytesIO)):
        return f"<{len(value if isinstance(value, bytes) else value.getvalue())} bytes>"
    name = getattr(value, "name", None)
    return f"<contents of {Path(name).name}>" if name else f"<{type(value).__name__}>"
