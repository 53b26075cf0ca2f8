"""A function's process, and how its events are delivered again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.lambda_functions import load

from deploy.aws import BotoAws
from deploy.dev import events
from deploy.dev.events import EventPump, Wakeup, event_of, scheduled_event
from deploy.dev.functions import FunctionFailed, LocalFunction, local_environment
from deploy.dev.stack import REGION, FunctionSpec

CODE = """
import os, time

def handler(event, context):
    print("not an answer", flush=True)
    if event.get("sleep"):
        time.sleep(60)
    if event.get("exit"):
        os._exit(3)
    return {"pid": os.getpid(), "name": os.environ["NAME"], "doubled": 2 * event["number"]}
"""


@contextmanager
def local_function(folder: Path, queue_url: str = "") -> Iterator[LocalFunction]:
    (folder / "job.py").write_text(CODE)
    letters = f"arn:aws:sqs:{REGION}:123456789012:letters"
    spec = FunctionSpec("job", "job.handler", folder, 60.0, {"NAME": "a"}, queue_url, letters)
    function = LocalFunction(spec, local_environment("http://127.0.0.1:9"))
    try:
        yield function
    finally:
        function.close()


def test_a_process_answers_again_and_again(tmp_path: Path):
    with local_function(tmp_path) as function:
        first, second = (function.invoke({"number": number}) for number in (1, 2))
        assert (first["doubled"], second["doubled"], first["name"]) == (2, 4, "a")
        assert first["pid"] == second["pid"] != os.getpid()
        with pytest.raises(FunctionFailed, match="KeyError: 'number'") as caught:
            function.invoke({})
        assert caught.value.error == {"errorType": "KeyError", "errorMessage": "'number'"}
        with pytest.raises(FunctionFailed, match=r"Runtime\.ExitError"):
            function.invoke({"exit": True})
        assert function.invoke({"number": 3})["pid"] != first["pid"]
    with pytest.raises(FunctionFailed, match="closing"):
        function.invoke({"number": 1})


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path):
    with local_function(tmp_path) as function:
        pid = function.invoke({"number": 1})["pid"]
        function.spec = replace(function.spec, timeout_s=0.25)
        with pytest.raises(FunctionFailed, match=r"Task timed out after 0\.25 s"):
            function.invoke({"sleep": True})
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_callers_account_is_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "company")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://192.0.2.1")
    found = {name: value for name, value in local_environment("http://x").items() if name.startswith("AWS_")}
    assert {"AWS_PROFILE", "AWS_ENDPOINT_URL_S3"}.isdisjoint(found)
    assert found["AWS_ENDPOINT_URL"] == "http://x"
    assert found["AWS_CONFIG_FILE"] == found["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


@pytest.fixture
def queue(moto: None) -> Callable[[str], str]:
    sqs = boto3.client("sqs", region_name=REGION)
    return lambda name: sqs.create_queue(QueueName=name)["QueueUrl"]


def test_an_event_that_fails_thrice_is_a_dead_letter(
    tmp_path: Path, queue: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "RETRY_DELAYS_S", (0, 0))
    url, letters = queue("events"), queue("letters")
    sqs = boto3.client("sqs", region_name=REGION)
    for body in ({"no": "number"}, {"number": 1}):
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))
    with local_function(tmp_path, queue_url=url) as function:
        pump = EventPump(BotoAws(REGION), function, Wakeup())
        assert [pump.deliver_next() for _ in range(5)] == [True] * 4 + [False]
    [letter] = sqs.receive_message(QueueUrl=letters, MessageAttributeNames=["All"])["Messages"]
    assert json.loads(letter["Body"]) == {"no": "number"}
    assert letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == "KeyError: 'number'"


@pytest.mark.parametrize(
    ("body", "reason"), [("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[1]", "JSON list, expected an object")]
)
def test_a_message_that_is_no_event_is_a_dead_letter_at_once(
    tmp_path: Path, queue: Callable[[str], str], body: str, reason: str
):
    url, letters = queue("events"), queue("letters")
    sqs = boto3.client("sqs", region_name=REGION)
    sqs.send_message(QueueUrl=url, MessageBody=body)
    with local_function(tmp_path, queue_url=url) as function:
        pump = EventPump(BotoAws(REGION), function, Wakeup())
        assert [pump.deliver_next(), pump.deliver_next()] == [True, False]
    [letter] = sqs.receive_message(QueueUrl=letters, MessageAttributeNames=["All"])["Messages"]
    assert letter["Body"] == body
    why = letter["MessageAttributes"]["ErrorMessage"]["StringValue"]
    assert why.startswith("InvalidRequestContentException: ")
    assert reason in why
    assert (
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][
            "ApproximateNumberOfMessagesNotVisible"
        ]
        == "0"
    )


def test_an_event_waits_before_it_is_delivered_again(tmp_path: Path, queue: Callable[[str], str]):
    url = queue("events")
    boto3.client("sqs", region_name=REGION).send_message(QueueUrl=url, MessageBody="{}")
    with local_function(tmp_path, queue_url=url) as function:
        pump = EventPump(BotoAws(REGION), function, Wakeup())
        assert [pump.deliver_next(), pump.deliver_next()] == [True, False]


def test_events_have_the_form_that_the_functions_know():
    message: dict[str, Any] = {"Type": "Notification", "TopicArn": "arn", "Message": '{"a": 1}'}
    on_result = load("on_result")
    assert on_result.list_messages(event_of(message), None, None) == ['{"a": 1}']
    settings = on_result.Settings.from_env({})
    with pytest.raises(ValueError, match="BUCKET_NAME"):  # it is taken for a schedule's event
        on_result.list_messages(event_of(scheduled_event("arn", datetime.now(UTC))), None, settings)
