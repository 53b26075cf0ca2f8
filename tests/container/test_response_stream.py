"""SageMaker Runtime's response streams, decoded by botocore, from a server whose worker loads no model."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError
from starlette.responses import Response
from support.fake_worker import PART
from support.live_app import LiveApp, live_app, make_settings
from support.waiting import PATIENCE_S, wait_until

from container.app import Server
from container.http.answers import AnswerQuota
from container.http.event_stream import EventStreamResponse, encode_exception, encode_message
from container.http.responses import CleanupStreamingResponse, StreamAborted
from inference.requests import NDJSON


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    settings = make_settings(tmp_path_factory.mktemp("data"))
    with live_app(Server(settings), with_aws_routes=True) as running:
        yield running


def runtime_of(app: LiveApp) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=app.http(""),
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE_S),
    )


@pytest.fixture
def runtime(app: LiveApp) -> Any:
    return runtime_of(app)


def start(runtime: Any, command: bytes, accept: str = NDJSON) -> dict[str, Any]:
    return runtime.invoke_endpoint_with_response_stream(
        EndpointName="any", ContentType="video/mp4", Accept=accept, CustomAttributes='{"face": 1}', Body=command
    )


def parts_of(answer: dict[str, Any]) -> list[bytes]:
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def test_each_piece_of_the_answer_is_an_event(runtime: Any):
    answer = start(runtime, b"parts")
    assert answer["ContentType"] == NDJSON
    assert answer["CustomAttributes"] == '{"face": 1}'
    assert parts_of(answer) == [b"parts0", b"parts1", b"parts2", b"parts"]


def test_events_arrive_while_the_worker_works(app: LiveApp, runtime: Any):
    """The job of this request ends only when its caller has left."""
    answer = start(runtime, b"flood")
    assert next(iter(answer["Body"]))["PayloadPart"]["Bytes"]
    answer["Body"].close()
    wait_until(lambda: app.server.n_in_flight == 0)


def test_a_whole_file_and_a_short_answer_are_streamed(runtime: Any):
    answer = start(runtime, b"video", "video/mp4")
    assert answer["ContentType"] == "video/mp4"
    parts = parts_of(answer)
    assert len(parts) > 1
    assert b"".join(parts) == PART * 5
    assert parts_of(start(runtime, b"short")) == [b"short"]


def test_an_error_before_the_answer_has_its_status(runtime: Any):
    with pytest.raises(ClientError) as caught:
        start(runtime, b"parts", "image/png")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["OriginalStatusCode"] == 415


def test_a_failure_within_the_answer_is_its_last_event(tmp_path: Path):
    """The container's own words are the event before: SageMaker passes on what it received until the stream broke."""
    settings = make_settings(tmp_path, deadline_s=0.5)
    received: list[bytes] = []
    with live_app(Server(settings), with_aws_routes=True) as app:
        events = start(runtime_of(app), b"flood")["Body"]  # ends only at its deadline
        with pytest.raises(EventStreamError) as caught:
            received.extend(event["PayloadPart"]["Bytes"] for event in events)
    assert json.loads(received[-1])["error"]["code"] == "deadline_exceeded"
    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == ("ModelStreamError", "the model ended the stream: deadline_exceeded")


# Framing


def decode(body: bytes) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return list(buffer)


def test_messages_of_every_size():
    for payload in (b"", b"x", bytes(range(256)) * 1000):
        for headers in ({}, {":event-type": "PayloadPart", "n": "ä" * 300}):
            [message] = decode(encode_message(headers, payload))
            assert (message.headers, message.payload) == (headers, payload)


def test_exceptions_have_the_form_of_the_service_model():
    [message] = decode(encode_exception("InternalStreamFailure", {"Message": "try again"}))
    assert message.to_response_dict()["status_code"] == 400  # for botocore, an exception and no event
    assert message.headers[":exception-type"] == "InternalStreamFailure"
    assert json.loads(message.payload) == {"Message": "try again"}


async def pieces(*values: bytes, error: Exception | None = None, wait_s: float = 0.0) -> AsyncGenerator[bytes]:
    for value in values:
        yield value
    await asyncio.sleep(wait_s)
    if error is not None:
        raise error


def collect(response: Response, extensions: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run the response as a server would; return the messages that it sends."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(PATIENCE_S)

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "extensions": extensions or {}}
    asyncio.run(EventStreamResponse(response)(scope, receive, send))
    return sent


def streaming(chunks: AsyncGenerator[bytes], lasts_s: float = PATIENCE_S) -> CleanupStreamingResponse:
    return _Streaming(chunks, lasts_s)


class _Streaming(CleanupStreamingResponse):
    """A response whose deadline counts from when it is sent."""

    def __init__(self, chunks: AsyncGenerator[bytes], lasts_s: float) -> None:
        headers = {"x-request-id": "1", "content-length": "5"}
        super().__init__(chunks, contextlib.AsyncExitStack(), 0.0, AnswerQuota(1), media_type=NDJSON, headers=headers)
        self._lasts_s = lasts_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._deadline = asyncio.get_running_loop().time() + self._lasts_s
        await super().__call__(scope, receive, send)


def test_the_head_names_both_types_and_no_length():
    head, *_ = collect(streaming(pieces(b"one")))
    headers = {name.decode().lower(): value.decode() for name, value in head["headers"]}
    assert headers["content-type"] == "application/vnd.amazon.eventstream"
    assert headers["x-amzn-sagemaker-content-type"] == NDJSON
    assert "content-length" not in headers


@pytest.mark.parametrize(
    ("chunks", "lasts_s", "code"),
    [
        (lambda: pieces(b"one", error=StreamAborted("worker_died")), PATIENCE_S, "StreamBroken"),
        (lambda: pieces(b"one", wait_s=PATIENCE_S), 0.2, "ModelInvocationTimeExceeded"),
    ],
)
def test_an_answer_that_breaks_off_ends_with_an_error_event(chunks: Any, lasts_s: float, code: str):
    """Even if the server could close the connection, which is what the container's own route does."""

    def close() -> None:
        raise AssertionError("the connection was closed")

    _, *messages = collect(streaming(chunks(), lasts_s), {"viseme.close": {"close": close}})
    assert messages[-1]["more_body"] is False
    one, error = decode(b"".join(message["body"] for message in messages))
    assert one.payload == b"one"
    assert error.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(error.payload)["ErrorCode"] == code
