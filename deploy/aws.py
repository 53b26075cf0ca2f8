"""The one door to AWS: every call goes through it, for real or as a rehearsal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import boto3
from botocore import UNSIGNED, xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.validate import validate_parameters

from deploy.diagnostics import explain_call
from deploy.errors import CallFailed, DeployError

Answer = dict[str, Any]
CALL_TIMEOUT_S = 70  # a real-time invocation may take 60 s


class Aws(Protocol):
    """What deploying needs of AWS."""

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        """One call, by AWS's own names ("sagemaker", "CreateModel"). Raises: CallFailed, DeployError."""


class LiveAws:
    """AWS itself, with the caller's own credentials."""

    def __init__(self, region: str) -> None:
        self._session = boto3.Session(region_name=region)
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Made at the first use, and kept."""
        if service not in self._clients:
            # Invoking twice is paying twice: only what does not run a model is tried again.
            attempts = 1 if service == "sagemaker-runtime" else 5
            config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=CALL_TIMEOUT_S)
            self._clients[service] = self._session.client(service, config=config)
        return self._clients[service]

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        try:
            answer: Answer = getattr(self.client(service), xform_name(operation))(**parameters)
        except ClientError as err:
            raise as_call_failed(err, service, operation) from err
        except BotoCoreError as err:  # no credentials, no network, parameters that cannot be
            raise DeployError(f"{service} {operation}: {err}") from err
        return answer


def as_call_failed(err: ClientError, service: str, operation: str) -> CallFailed:
    """AWS's refusal, with what to do about it."""
    said = err.response.get("Error", {})
    code, message = str(said.get("Code", "")), str(said.get("Message", ""))
    return CallFailed(explain_call(service, operation, code, message), code, message)


class Rehearsal:
    """Prints what would be called, one JSON object a line, and answers as if all went well.

    Parameters are checked against AWS's own model of its services, so that what is printed would at
    least be understood. Nothing leaves the machine, and no credentials are needed.
    """

    def __init__(self, region: str, out: TextIO, assumed: Mapping[str, Answer]) -> None:
        """assumed: answers by operation; an operation that is not there answers with nothing."""
        self._region = region
        self._out = out
        self._assumed = dict(assumed)

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        self._check(service, operation, parameters)
        line = {"service": service, "operation": operation, "parameters": parameters}
        print(json.dumps(line, default=describe), file=self._out)
        self._follow(operation, parameters)
        answer = self._assumed.get(operation, {})
        if "Error" in answer:
            raise as_call_failed(ClientError(answer, operation), service, operation)
        return answer

    def _check(self, service: str, operation: str, parameters: Answer) -> None:
        client = boto3.client(service, region_name=self._region, config=Config(signature_version=UNSIGNED))
        try:
            validate_parameters(parameters, client.meta.service_model.operation_model(operation).input_shape)
        except BotoCoreError as err:
            raise DeployError(f"{service} {operation}: {err}") from err

    def _follow(self, operation: str, parameters: Answer) -> None:
        """What was called changes what is answered next."""
        if operation in ("CreateEndpoint", "UpdateEndpoint"):
            config = parameters["EndpointConfigName"]
            self._assumed["DescribeEndpoint"] = {"EndpointStatus": "InService", "EndpointConfigName": config}
        if operation == "DeleteModel":
            self._assumed["ListModels"] = {}
        if operation == "DeleteEndpoint":
            name = parameters["EndpointName"]
            said = {"Code": "ValidationException", "Message": f'Could not find endpoint "{name}".'}
            self._assumed["DescribeEndpoint"] = {"Error": said}


def describe(value: object) -> str:
    """What cannot be said in JSON: files and the like, by name."""
    name = getattr(value, "name", None)
    return f"<contents of {Path(name).name}>" if name else f"<{type(value).__name__}>"
