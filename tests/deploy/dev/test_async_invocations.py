"""Asynchronous requests: what is accepted, and what becomes of those that the container does not answer."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import boto3
import pytest
from support.quiet_http import serving

from deploy.aws import BotoAws
from deploy.dev.async_invocations import AsyncInvoker, parse_request
from deploy.dev.events import Wakeup
from deploy.dev.http_proxy import ContainerConnection
from deploy.dev.runtime import RuntimeFault, locations, read_async_request
from deploy.dev.stack import REGION

OUTPUT = {
    "S3OutputPath": "s3://clips/results/",
    "S3FailurePath": "s3://clips/failures/",
    "NotificationConfig": {},
}
HEADER = "HTTP_X_AMZN_SAGEMAKER_"


def environ(body: bytes = b"", **headers: str) -> dict[str, Any]:
    given = {f"{HEADER}{name}": value for name, value in headers.items()}
    return given | {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}


@pytest.mark.parametrize(
    ("request_environ", "reason"),
    [
        (environ(), "either InputLocation or Body"),
        (environ(b"1", INPUTLOCATION="s3://a/b"), "either InputLocation or Body"),
        (environ(INPUTLOCATION="s3://a"), "InputLocation 's3://a'"),
        (environ(b"1" * 128_001), "128001 bytes"),
        (environ(b"1", REQUESTTTLSECONDS="21601"), "from 1 to 21600"),
        (environ(b"1", INVOCATIONTIMEOUTSECONDS="0"), "from 1 to 3600"),
        (environ(b"1", INVOCATIONTIMEOUTSECONDS="x"), "from 1 to 3600"),
        (environ(b"1") | {"CONTENT_LENGTH": "-1"}, "either InputLocation or Body"),
    ],
)
def test_what_is_not_accepted(request_environ: dict[str, Any], reason: str):
    with pytest.raises(RuntimeFault, match=reason) as caught:
        read_async_request(request_environ)
    assert caught.value.code == "ValidationError"


def test_a_caller_may_name_the_result():
    request = read_async_request(environ(b"1", FILENAME="a.json", S3OUTPUTPATHEXTENSION="b/c"))
    assert locations(OUTPUT, request)["output_location"] == "s3://clips/results/b/c/a.json"
    assert locations({"S3OutputPath": "s3://clips"}, request | {"path_extension": ""}) == {
        "output_location": "s3://clips/a.json",
        "failure_location": None,
        "success_topic": None,
        "error_topic": None,
    }


class Container(BaseHTTPRequestHandler):
    """Answers with what it gets, or with the status that the body names; to "cut", with a byte too few."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status = int(body) if body.isdigit() else 200
        n_missing = 1 if body == b"cut" else 0
        found = {"path": self.path, "body": body.decode(), "headers": {k.lower(): v for k, v in self.headers.items()}}
        answer = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer) + n_missing))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def queue_url(moto: None) -> str:
    boto3.client("s3", region_name=REGION).create_bucket(Bucket="clips")
    url: str = boto3.client("sqs", region_name=REGION).create_queue(QueueName="requests")["QueueUrl"]
    return url


def process(
    queue_url: str, request: dict[str, Any], port: int | None, *, is_stopped: bool = False, bucket: str = "clips"
) -> dict[str, Any]:
    """Process one request; return its record, what is stored, and what is published."""
    sqs, sns = (boto3.client(one, region_name=REGION) for one in ("sqs", "sns"))
    topic = sns.create_topic(Name="results")["TopicArn"]
    notices = sqs.create_queue(QueueName="notices")["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:123456789012:notices")
    config = OUTPUT | {"NotificationConfig": {"SuccessTopic": topic, "ErrorTopic": topic}}
    request = request | {"endpoint": "viseme"} | locations(config, request)
    sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(request))
    container, wakeup = ContainerConnection(), Wakeup()
    container.port, wakeup.is_stopped = port, is_stopped
    is_done = AsyncInvoker(BotoAws(REGION), container, queue_url, wakeup).process_next()
    found = sqs.receive_message(QueueUrl=notices).get("Messages", [])
    stored = boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=bucket).get("Contents", [])
    left = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessagesNotVisible"])[
        "Attributes"
    ]
    return {
        "is_done": is_done,
        "is_left": left["ApproximateNumberOfMessagesNotVisible"] == "1",
        "notice": json.loads(json.loads(found[0]["Body"])["Message"]) if found else None,
        "keys": [one["Key"] for one in stored],
        "request": request,
    }


def test_the_container_gets_the_request_as_sagemaker_sends_it(queue_url: str):
    given = {"CONTENT_TYPE": "video/mp4", "ACCEPT": "text/vtt", "INFERENCE_ID": "7", "CUSTOM_ATTRIBUTES": "{}"}
    with serving(Container) as url:
        found = process(queue_url, read_async_request(environ(b"a", **given)), int(url.rpartition(":")[2]))
    body = boto3.client("s3", region_name=REGION).get_object(Bucket="clips", Key=found["keys"][0])["Body"].read()
    answer = json.loads(body)
    assert (answer["path"], answer["body"]) == ("/invocations", "a")
    expected = {
        "content-type": "video/mp4",
        "accept": "text/vtt",
        "x-amzn-sagemaker-inference-id": "7",
        "x-amzn-sagemaker-custom-attributes": "{}",
    }
    assert answer["headers"].items() >= expected.items()
    notice = found["notice"]
    assert (notice["invocationStatus"], notice["inferenceId"]) == ("Completed", "7")
    assert notice["responseParameters"]["outputLocation"] == f"s3://clips/{found['keys'][0]}"


@pytest.mark.parametrize("status", [400, 503])
def test_an_error_of_the_container_is_a_failure_object(queue_url: str, status: int):
    request = read_async_request(environ(str(status).encode()))
    with serving(Container) as url:
        found = process(queue_url, request, int(url.rpartition(":")[2]))
    [key] = found["keys"]
    assert found["request"]["failure_location"] == f"s3://clips/{key}"
    assert found["notice"]["responseParameters"] == {"failureLocation": f"s3://clips/{key}"}
    assert f"error ({status}) from model" in found["notice"]["failureReason"]


def test_requests_without_an_answer(queue_url: str):
    expired = read_async_request(environ(b"1")) | {
        "received_at": (datetime.now(UTC) - timedelta(hours=7)).isoformat(timespec="milliseconds")
    }
    missing = read_async_request(environ(INPUTLOCATION="s3://clips/none.mp4"))
    for request, reason in ((expired, "expired"), (missing, "s3://clips/none.mp4 cannot be read")):
        found = process(queue_url, request, None)
        assert reason in found["notice"]["failureReason"]
        assert not found["is_left"]


def test_an_answer_that_breaks_off_is_a_failure(queue_url: str):
    with serving(Container) as url:
        found = process(queue_url, read_async_request(environ(b"cut")), int(url.rpartition(":")[2]))
    assert found["notice"]["failureReason"].startswith("InternalServerError: IncompleteRead")
    assert not found["is_left"]


@pytest.mark.parametrize("body", [b"500", b"503", b"cut"])  # of requests that run, that wait, and that are cut off
def test_a_request_stays_queued_if_the_container_is_ending(queue_url: str, body: bytes):
    request = read_async_request(environ(body))
    with serving(Container) as url:
        found = process(queue_url, request, int(url.rpartition(":")[2]), is_stopped=True)
    assert (found["is_done"], found["is_left"], found["notice"], found["keys"]) == (False, True, None, [])


def test_what_the_container_rejects_while_it_is_ending_is_done(queue_url: str):
    with serving(Container) as url:
        found = process(queue_url, read_async_request(environ(b"400")), int(url.rpartition(":")[2]), is_stopped=True)
    assert (found["is_done"], found["is_left"], len(found["keys"])) == (True, False, 1)


def test_a_request_stays_queued_if_the_container_has_ended(queue_url: str):
    found = process(queue_url, read_async_request(environ(b"1")), None, is_stopped=True)
    assert (found["is_done"], found["is_left"], found["notice"], found["keys"]) == (False, True, None, [])


@pytest.mark.parametrize("body", ["{", "[]", "{}", "[" * 100_000])
def test_a_message_that_is_no_request_is_dropped(queue_url: str, body: str, caplog: pytest.LogCaptureFixture):
    sqs = boto3.client("sqs", region_name=REGION)
    sqs.send_message(QueueUrl=queue_url, MessageBody=body)
    invoker = AsyncInvoker(BotoAws(REGION), ContainerConnection(), queue_url, Wakeup())
    assert [invoker.process_next(), invoker.process_next()] == [True, False]
    assert "is no request, and was dropped" in caplog.text


def test_a_message_has_the_fields_of_a_request():
    request = read_async_request(environ(b"1"))
    request |= {"endpoint": "viseme"} | locations(OUTPUT, request)
    assert parse_request(json.dumps(request)) == request


def test_an_answer_that_cannot_be_stored_is_a_failure(queue_url: str):
    request = read_async_request(environ(b"a"))
    boto3.client("s3", region_name=REGION).delete_bucket(Bucket="clips")
    boto3.client("s3", region_name=REGION).create_bucket(Bucket="other")
    with serving(Container) as url:
        found = process(queue_url, request, int(url.rpartition(":")[2]), bucket="other")
    assert "cannot be written" in found["notice"]["failureReason"]
    assert "responseParameters" not in found["notice"]
    assert not found["is_left"]


def test_a_topic_that_was_deleted_does_not_end_the_thread(
    queue_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    request = read_async_request(environ(b"1"))
    topic = {"ErrorTopic": f"arn:aws:sns:{REGION}:123456789012:none"}
    request |= {"endpoint": "viseme"} | locations(OUTPUT | {"NotificationConfig": topic}, request)
    boto3.client("sqs", region_name=REGION).send_message(QueueUrl=queue_url, MessageBody=json.dumps(request))
    wakeup, stops = Wakeup(), iter((False, True))

    def wait(seen: int, _timeout_s: float) -> int:
        wakeup.is_stopped = next(stops)
        return seen

    monkeypatch.setattr(wakeup, "wait", wait)
    AsyncInvoker(BotoAws(REGION), ContainerConnection(), queue_url, wakeup).run()
    assert "NotFound" in caplog.text
