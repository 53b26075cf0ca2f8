"""Requests that expire in the endpoint's queue are recorded, although SageMaker may publish nothing for them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from support.lambda_functions import BUCKET, load, load_shared, version_of

invoke = load("invoke_endpoint")
on_result = load("on_result")
expired = load_shared("jobs.expired")
KEY = "uploads/clip.mp4"
RESULT = "results/clip.mp4.json"
SCHEDULE = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


@pytest.fixture(params=["table", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "table":
        request.getfixturevalue("table")
    return request.param


@pytest.fixture
def direct(s3: Any, endpoint: Any, store: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Send a video to an endpoint that has no instance; return the direct call."""
    monkeypatch.setenv("BUCKET_NAME", BUCKET)
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"1")
    request = {"s3_bucket": BUCKET, "s3_video_key": KEY}
    assert invoke.handler(request, None)["results"][0]["status"] == "invoked"
    return request


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(UTC) + by

    monkeypatch.setattr(on_result, "datetime", Clock)


def waiting(s3: Any) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix="requests/waiting/").get("Contents", [])]


def test_sagemaker_knows_how_long_a_request_may_wait(direct, endpoint):
    [call] = endpoint.calls
    assert timedelta(seconds=call["RequestTTLSeconds"]) == expired.REQUEST_TTL
    assert expired.DEADLINE > expired.REQUEST_TTL + expired.INVOCATION_TIMEOUT


def test_a_request_that_may_still_be_answered_is_left_alone(direct, s3, monkeypatch):
    later(monkeypatch, expired.DEADLINE - timedelta(minutes=1))
    assert on_result.handler(SCHEDULE, None) == {"results": []}
    assert len(waiting(s3)) == 1


def test_an_expired_request_is_recorded_and_can_be_sent_again(direct, s3, endpoint, read_json, monkeypatch, store):
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
    monkeypatch.setenv("DEAD_LETTERS_URL", url)
    later(monkeypatch, expired.DEADLINE + timedelta(minutes=1))
    assert [one["status"] for one in on_result.handler(SCHEDULE, None)["results"]] == ["error"]
    record = read_json(RESULT)
    assert record["error"]["code"] == "expired"
    assert "no result arrived within 6 hours" in record["error"]["message"]
    assert "To send the video again" in record["error"]["message"]
    assert record["retryable"] is True
    assert waiting(s3) == []
    assert on_result.handler(SCHEDULE, None) == {"results": []}
    if store == "table":
        [item] = boto3.resource("dynamodb").Table("videos").scan()["Items"]
        assert (item["state"], item["error"]) == ("retryable", record["error"]["message"])
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]
    [again] = invoke.handler(json.loads(message["Body"]), None)["results"]
    assert (again["status"], again["id"]) == ("invoked", endpoint.calls[0]["InferenceId"])
    assert invoke.handler(direct, None)["results"][0]["status"] == "duplicate"


def test_a_result_ends_the_waiting(direct, s3, endpoint, monkeypatch):
    s3.put_object(Bucket=BUCKET, Key="results/1.out", Body=b"{}")
    job_id = endpoint.calls[0]["InferenceId"]
    message = {
        "invocationStatus": "Completed",
        "inferenceId": job_id,
        "requestParameters": {"inputLocation": f"s3://{BUCKET}/requests/{job_id}.json"},
        "responseParameters": {"outputLocation": f"s3://{BUCKET}/results/1.out"},
    }
    on_result.handler({"Records": [{"Sns": {"Message": json.dumps(message)}}]}, None)
    assert waiting(s3) == []


def test_a_success_whose_waiting_was_not_ended_stays_one(direct, s3, endpoint, read_json, monkeypatch):
    """The function may be killed after it stored the record."""
    job_id = endpoint.calls[0]["InferenceId"]
    prefixes = load_shared("jobs.records").Prefixes.from_env({})
    target = load_shared("jobs.records").ObjectPath(BUCKET, RESULT)
    record = {"inference_id": job_id, "status": "success"}
    load_shared("jobs.records").store_result(s3, prefixes, target, record, version_of(KEY))
    later(monkeypatch, expired.DEADLINE + timedelta(minutes=1))
    assert [one["status"] for one in on_result.handler(SCHEDULE, None)["results"]] == ["ignored"]
    assert read_json(RESULT)["status"] == "success"
    assert waiting(s3) == []


def test_a_request_that_was_deleted_is_no_longer_waited_for(direct, s3, endpoint, monkeypatch):
    s3.delete_object(Bucket=BUCKET, Key=f"requests/{endpoint.calls[0]['InferenceId']}.json")
    later(monkeypatch, expired.DEADLINE + timedelta(minutes=1))
    assert on_result.handler(SCHEDULE, None) == {"results": []}
    assert waiting(s3) == []


def test_a_call_that_failed_is_not_waited_for(s3, endpoint, store):
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"1")
    endpoint.answers = [EndpointConnectionError(endpoint_url="e")]
    with pytest.raises(invoke.VideosFailed):
        invoke.handler({"s3_bucket": BUCKET, "s3_video_key": KEY}, None)
    assert waiting(s3) == []


def test_many_are_recorded_in_several_calls(direct, s3, monkeypatch):
    monkeypatch.setattr(on_result, "MAX_EXPIRED", 1)
    s3.put_object(Bucket=BUCKET, Key="uploads/other.mp4", Body=b"2")
    invoke.handler({"s3_bucket": BUCKET, "s3_video_key": "uploads/other.mp4"}, None)
    later(monkeypatch, expired.DEADLINE + timedelta(minutes=1))
    assert [len(on_result.handler(SCHEDULE, None)["results"]) for _ in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("event", [{}, {"source": "aws.s3"}])
def test_an_unknown_event_is_rejected(s3, event):
    with pytest.raises(ValueError, match="expected one of SNS, or of a schedule"):
        on_result.handler(event, None)


def test_the_bucket_is_needed(s3, monkeypatch):
    monkeypatch.delenv("BUCKET_NAME", raising=False)
    with pytest.raises(ValueError, match="BUCKET_NAME"):
        on_result.handler(SCHEDULE, None)
