from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from support.lambda_functions import BUCKET
from support.service_models import shared_loader  # noqa: F401 - a fixture of every test here


class FakeEndpoint:
    """Replaces the SageMaker runtime client and records its calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.answers: list[Any] = []  # replies or errors returned first, before the default

    def invoke_endpoint_async(self, **call: Any) -> dict[str, Any]:
        return self._answer(
            call, {"InferenceId": call["InferenceId"], "OutputLocation": "s3://viseme-videos/results/1.out"}
        )

    def invoke_endpoint(self, **call: Any) -> dict[str, Any]:
        return self._answer(call, {"status": "success", "text": "BIN BLUE AT F TWO NOW"})

    def _answer(self, call: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else default
        if isinstance(answer, Exception):
            raise answer
        return answer if "InputLocation" in call else {"Body": Reply(answer)}


class Reply:
    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def read(self) -> bytes:
        return json.dumps(self._answer).encode()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("TABLE_NAME", "MODE", "OUTPUT_PREFIX", "INPUT_PREFIX", "REQUEST_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield


@pytest.fixture
def s3(aws: None) -> Any:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def table(aws: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    boto3.client("dynamodb").create_table(
        TableName="videos",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    monkeypatch.setenv("TABLE_NAME", "videos")
    return boto3.resource("dynamodb").Table("videos")


@pytest.fixture
def endpoint(aws: None, monkeypatch: pytest.MonkeyPatch) -> FakeEndpoint:
    """Replace moto's endpoint by one that records its calls and can fail."""
    fake, make = FakeEndpoint(), boto3.client
    monkeypatch.setattr(
        boto3, "client", lambda name, **rest: fake if name == "sagemaker-runtime" else make(name, **rest)
    )
    monkeypatch.setenv("ENDPOINT_NAME", "viseme")
    return fake


@pytest.fixture
def read_json(s3: Any) -> Callable[[str], Any]:
    return lambda key: json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
