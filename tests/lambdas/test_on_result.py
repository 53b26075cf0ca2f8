"""Results are stored under the video's name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from support.lambda_functions import BUCKET, load, version_of

from inference.error_responses import STATUSES

function = load("on_result")
invoke = load("invoke_endpoint")
VIDEO = invoke.UploadedVideo(BUCKET, "uploads/a/my clip (1).MP4", version_of("uploads/a/my clip (1).MP4", "e1"))
RECORD = "results/a/my clip (1).MP4.json"
ANSWER = {"status": "success", "text": "BIN BLUE AT F TWO NOW", "words": []}


def notice(status: str = "Completed", **changes: Any) -> dict[str, Any]:
    """Return a notification as SageMaker publishes it."""
    found = {
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "awsRegion": "us-east-1",
        "invocationStatus": status,
        "inferenceId": VIDEO.id,
        "requestParameters": {"endpointName": "viseme", "inputLocation": f"s3://{BUCKET}/requests/{VIDEO.id}.json"},
        "responseParameters": {"contentType": "application/json", "outputLocation": f"s3://{BUCKET}/results/1.out"},
    }
    return found | changes


def sns_event(*notices: dict[str, Any]) -> dict[str, Any]:
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(one)}} for one in notices]}


@pytest.fixture
def invoked(s3: Any, endpoint: Any) -> Any:
    """Send the video, and write the endpoint's answer."""
    invoke.RequestSender(invoke.Settings.from_env({"ENDPOINT_NAME": "viseme"})).send(VIDEO)
    s3.put_object(Bucket=BUCKET, Key="results/1.out", Body=json.dumps(ANSWER).encode())
    return s3


def test_a_success_is_stored_with_its_answer(invoked, read_json):
    [stored] = function.handler(sns_event(notice(eventTime="2026-01-25T22:46:00.608Z")), None)["results"]
    assert stored == {"status": "success", "inference_id": VIDEO.id, "record": RECORD}
    record = read_json(RECORD)
    assert record["answer"] == ANSWER
    assert (record["s3_bucket"], record["s3_video_key"]) == (BUCKET, VIDEO.key)
    assert record["output_location"] == f"s3://{BUCKET}/results/1.out"
    assert record["finished_at"] == "2026-01-25T22:46:00.608Z"


def test_a_failure_is_stored_with_its_reason(invoked, read_json):
    failed = notice("Failed", failureReason="no face", responseParameters={"failureLocation": "s3://b/failures/1"})
    function.handler(sns_event(failed), None)
    record = read_json(RECORD)
    assert record["status"] == "error"
    assert record["error"] == {"code": "invocation_failed", "message": "no face"}
    assert record["failure_location"] == "s3://b/failures/1"


def reason_of(status: int) -> str:
    """Return SageMaker's words for a container's status."""
    side = "client" if 400 <= status < 500 else "server"
    return f"ClientError: Received {side} error ({status}) from model. See the SageMaker Endpoint logs in your account."


def test_failures_are_final_or_passing_by_status():
    passing = {status for _, status, _ in STATUSES if function.is_retryable(reason_of(status))}
    unseen = {429, 501}  # 501: of POST /v1/speech alone, which the functions do not call
    assert passing - unseen == {408, 499, 500, 502, 503, 504, 507}
    assert function.RETRYABLE_STATUSES == invoke.RETRYABLE_STATUSES
    assert function.is_retryable("SageMaker gave no reason")


@pytest.fixture
def dead_letters(aws: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """Return the events in the dead-letter queue."""
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
    monkeypatch.setenv("DEAD_LETTERS_URL", url)
    return lambda: [json.loads(one["Body"]) for one in sqs.receive_message(QueueUrl=url).get("Messages", [])]


@pytest.mark.parametrize("with_table", [True, False])
@pytest.mark.parametrize(("status", "may_pass"), [(400, False), (503, True), (507, True)])
def test_a_passing_failure_can_be_sent_again(
    s3, endpoint, dead_letters, read_json, request: pytest.FixtureRequest, with_table: bool, status: int, may_pass: bool
):
    table = request.getfixturevalue("table") if with_table else None
    etag = s3.put_object(Bucket=BUCKET, Key=VIDEO.key, Body=b"1")["ETag"].strip('"')
    video = invoke.UploadedVideo(BUCKET, VIDEO.key, version_of(VIDEO.key, etag))
    direct = {"s3_bucket": BUCKET, "s3_video_key": VIDEO.key}
    sent = invoke.handler(direct, None)["results"]
    parameters = {"inputLocation": f"s3://{BUCKET}/requests/{video.id}.json"}
    failed = notice("Failed", failureReason=reason_of(status), inferenceId=video.id, requestParameters=parameters)
    function.handler(sns_event(failed), None)
    assert read_json(RECORD)["retryable"] == may_pass
    if table is not None:
        assert table.get_item(Key={"id": video.id})["Item"]["state"] == ("retryable" if may_pass else "failed")
    events = dead_letters()
    named = [{name: event[name] for name in direct} | {"etag": event["version"]["etag"]} for event in events]
    assert named == ([direct | {"etag": etag}] if may_pass else [])
    again = [outcome["status"] for event in events for outcome in invoke.handler(event, None)["results"]]
    assert again == (["invoked"] if may_pass else [])
    assert invoke.handler(direct, None)["results"][0]["status"] == "duplicate"
    assert [one["status"] for one in sent] == ["invoked"]


@pytest.mark.parametrize("with_table", [True, False])
def test_a_failure_delivered_again_does_not_repeat_the_job(
    s3, endpoint, dead_letters, read_json, monkeypatch, request: pytest.FixtureRequest, with_table: bool
):
    if with_table:
        request.getfixturevalue("table")
    s3.put_object(Bucket=BUCKET, Key=VIDEO.key, Body=b"1")
    direct = {"s3_bucket": BUCKET, "s3_video_key": VIDEO.key}
    job_id = invoke.handler(direct, None)["results"][0]["id"]
    parameters = {"inputLocation": f"s3://{BUCKET}/requests/{job_id}.json"}
    failed = sns_event(notice("Failed", inferenceId=job_id, requestParameters=parameters))
    for status in ("error", "ignored"):  # before the job is sent again
        assert [one["status"] for one in function.handler(failed, None)["results"]] == [status]
    [event] = dead_letters()
    monkeypatch.setattr(function, "milliseconds", lambda _text: 1000)  # S3 has whole seconds: not the same one
    assert [one["status"] for one in invoke.handler(event, None)["results"]] == ["invoked"]
    assert [one["status"] for one in function.handler(failed, None)["results"]] == ["ignored"]  # and after that
    assert dead_letters() == []
    assert invoke.handler(direct, None)["results"][0]["status"] == "duplicate"
    assert len(endpoint.calls) == 2


@pytest.mark.parametrize("with_table", [True, False])
def test_a_failure_that_was_stored_in_part_is_stored_again(
    s3, endpoint, dead_letters, monkeypatch, request: pytest.FixtureRequest, with_table: bool
):
    """The function may fail at any step: Lambda repeats the notification, and the job can be sent again then."""
    if with_table:
        request.getfixturevalue("table")
    s3.put_object(Bucket=BUCKET, Key=VIDEO.key, Body=b"1")
    job_id = invoke.handler({"s3_bucket": BUCKET, "s3_video_key": VIDEO.key}, None)["results"][0]["id"]
    parameters = {"inputLocation": f"s3://{BUCKET}/requests/{job_id}.json"}
    failed = sns_event(notice("Failed", inferenceId=job_id, requestParameters=parameters))
    url = os.environ["DEAD_LETTERS_URL"]
    monkeypatch.setenv("DEAD_LETTERS_URL", f"{url}-missing")
    with pytest.raises(function.ResultsFailed):
        function.handler(failed, None)
    monkeypatch.setenv("DEAD_LETTERS_URL", url)
    assert [one["status"] for one in function.handler(failed, None)["results"]] == ["error"]
    [event] = dead_letters()
    assert [one["status"] for one in invoke.handler(event, None)["results"]] == ["invoked"]


def test_a_request_of_another_caller_is_recorded_by_its_own_name(s3, endpoint, read_json):
    """`deploy` puts its inputs beside those of the function: a video, or a request with the media inside."""
    s3.put_object(Bucket=BUCKET, Key="results/1.out", Body=json.dumps(ANSWER).encode())
    for name, body in (("a.mp4", b"\x00video"), ("b.json", b'{"task": "lipsync", "face": "", "audio": ""}')):
        s3.put_object(Bucket=BUCKET, Key=f"requests/{name}", Body=body)
        parameters = {"inputLocation": f"s3://{BUCKET}/requests/{name}"}
        function.handler(sns_event(notice(requestParameters=parameters)), None)
        assert read_json(f"results/requests/{name}.json")["answer"] == ANSWER


def test_a_lip_sync_is_named_by_face_and_audio(s3, endpoint, read_json):
    options = {"task": "lipsync", "s3_audio_key": "uploads/a/hello.wav", "s3_output_prefix": "results/"}
    video = invoke.UploadedVideo(
        BUCKET, "uploads/face.png", version_of("uploads/face.png", "e1"), options, is_direct=True
    )
    invoke.RequestSender(invoke.Settings.from_env({"ENDPOINT_NAME": "viseme"})).send(video)
    answer = {"status": "success", "outputs": []}
    s3.put_object(Bucket=BUCKET, Key="results/1.out", Body=json.dumps(answer).encode())
    parameters = {"endpointName": "viseme", "inputLocation": f"s3://{BUCKET}/requests/{video.id}.json"}
    function.handler(sns_event(notice(inferenceId=video.id, requestParameters=parameters)), None)
    assert read_json("results/face.png.hello.wav.json")["answer"] == answer


def test_a_failure_without_reason_and_location_is_stored(invoked, read_json):
    bare = notice("Failed")
    del bare["responseParameters"]
    function.handler(sns_event(bare), None)
    assert read_json(RECORD)["error"]["message"] == "SageMaker gave no reason"


@pytest.mark.parametrize(("status", "state"), [("Completed", "succeeded"), ("Failed", "failed")])
def test_the_claim_is_completed(table, s3, endpoint, monkeypatch, status, state):
    why = reason_of(400)
    sender = invoke.RequestSender(invoke.Settings.from_env({"ENDPOINT_NAME": "viseme", "TABLE_NAME": "videos"}))
    assert sender.send(VIDEO)["status"] == "invoked"
    s3.put_object(Bucket=BUCKET, Key="results/1.out", Body=b"{}")
    before = table.get_item(Key={"id": VIDEO.id})["Item"]
    assert before["state"] == "invoked"
    monkeypatch.setattr(function.time, "time", lambda: float(before["expires_at"]) + 9)
    for _ in range(2):  # SNS delivers at least once
        function.handler(sns_event(notice(status, failureReason=why)), None)
    item = table.get_item(Key={"id": VIDEO.id})["Item"]
    assert (item["state"], item["record"]) == (state, f"s3://{BUCKET}/requests/{VIDEO.id}.result.json")
    assert (item["etag"], item["expires_at"]) == ("e1", before["expires_at"])
    assert item["error"] == (why if status == "Failed" else None)
    assert sender.send(VIDEO)["status"] == "duplicate"


def test_a_result_before_the_confirmation_is_kept(table, s3, endpoint):
    claims = invoke.DynamoDbClaims("videos")
    claims.claim(VIDEO)
    record = {"inference_id": VIDEO.id, "s3_bucket": "b", "s3_video_key": "k", "status": "success"}
    function.complete_item(function.Settings.from_env({"TABLE_NAME": "videos"}), record, "r")
    claims.confirm(VIDEO, "invoked")
    assert table.get_item(Key={"id": VIDEO.id})["Item"]["state"] == "succeeded"


def test_a_video_passed_as_the_input_itself_is_stored(table, invoked, read_json):
    other = notice(inferenceId="theirs", requestParameters={"inputLocation": f"s3://{BUCKET}/uploads/other.mp4"})
    function.handler(sns_event(other), None)
    assert read_json("results/other.mp4.json")["answer"] == ANSWER
    assert table.get_item(Key={"id": "theirs"})["Item"]["expires_at"] > 0


@pytest.mark.parametrize("change", ["text", "long"])
def test_an_answer_that_is_not_json_or_too_long_is_not_copied(invoked, read_json, monkeypatch, change):
    message = notice()
    if change == "text":
        message["responseParameters"]["contentType"] = "text/vtt"
    else:
        monkeypatch.setattr(function, "MAX_ANSWER_BYTES", 5)
    function.handler(sns_event(message), None)
    record = read_json(RECORD)
    assert record["status"] == "success"
    assert "answer" not in record


@pytest.mark.parametrize("wrong", [notice("Perhaps"), {}, notice(requestParameters={"inputLocation": "https://h/k"})])
def test_invalid_results_are_reported_and_the_rest_stored(invoked, read_json, wrong):
    with pytest.raises(function.ResultsFailed, match="1 of 2 failed"):
        function.handler(sns_event(wrong, notice()), None)
    assert read_json(RECORD)["answer"] == ANSWER


def test_a_record_does_not_trigger_a_request(invoked, monkeypatch):
    function.handler(sns_event(notice()), None)
    settings = invoke.Settings.from_env({"ENDPOINT_NAME": "viseme"})
    assert invoke.reason_to_skip(invoke.UploadedVideo(BUCKET, RECORD, version_of(RECORD, "e")), settings)
