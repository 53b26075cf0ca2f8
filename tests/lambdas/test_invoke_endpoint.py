"""What is uploaded is read, once."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, ReadTimeoutError
from lambda_world import BUCKET, load

from inference.requests import S3Object, parse_request

function = load("invoke_endpoint")
KEY = "uploads/my clip (1).MP4"
PART = 5 * 1024 * 1024  # the smallest that S3 takes


@pytest.fixture(params=["table", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    """Either place where claims can lie."""
    if request.param == "table":
        request.getfixturevalue("table")
    return request.param


def s3_event(*keys: str, etag: str = "e1", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    """As S3 sends it; keys are given as S3 encodes them."""
    records = [
        {
            "eventSource": "aws:s3",
            "eventName": name,
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "eTag": etag}},
        }
        for key in keys
    ]
    return {"Records": records}


def bridge_event(key: str, etag: str = "e1") -> dict[str, Any]:
    """As EventBridge sends it: the key as it is."""
    detail = {"bucket": {"name": BUCKET}, "object": {"key": key, "etag": etag, "size": 9}}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


def model_error(status: int, message: str) -> ClientError:
    found = {"Error": {"Code": "ModelError", "Message": "m"}, "OriginalStatusCode": status, "OriginalMessage": message}
    return ClientError(found, "InvokeEndpoint")


def statuses(answer: dict[str, Any]) -> list[str]:
    return [one["status"] for one in answer["results"]]


def queued(sqs: Any, url: str) -> list[dict[str, Any]]:
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def test_one_film_uploaded_twice_in_parts_with_its_copies_is_read_once(s3, endpoint, store, read_json):
    sqs, events = boto3.client("sqs"), boto3.client("events")
    urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("notified", "bridged")]
    arns = [sqs.get_queue_attributes(QueueUrl=u, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"] for u in urls]
    notify = {"QueueArn": arns[0], "Events": ["s3:ObjectCreated:*"]}
    configuration = {"QueueConfigurations": [notify], "EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=configuration)
    events.put_rule(Name="uploads", EventPattern=json.dumps({"source": ["aws.s3"]}))
    events.put_targets(Rule="uploads", Targets=[{"Id": "1", "Arn": arns[1]}])
    for _ in range(2):
        in_parts = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
        s3.upload_fileobj(io.BytesIO(b"film" * PART), BUCKET, KEY, Config=in_parts)
    found = [event for url in urls for event in queued(sqs, url)]
    assert s3.head_object(Bucket=BUCKET, Key=KEY)["ETag"].strip('"').endswith("-4")
    assert len(found) == 11  # moto tells of each upload twice, either way; a test event; tags, by EventBridge
    seen = [status for event in found for status in statuses(function.handler(event, None))]
    assert sorted(seen) == ["duplicate"] * 7 + ["invoked"]
    [call] = endpoint.calls
    assert call["EndpointName"] == "viseme"
    assert call["ContentType"] == "application/json"
    request_key = call["InputLocation"].removeprefix(f"s3://{BUCKET}/")
    assert request_key == f"requests/{call['InferenceId']}.json"
    assert read_json(request_key) == {"s3_bucket": BUCKET, "s3_video_key": KEY}


def test_other_content_under_the_same_name_is_read_again(s3, endpoint, store):
    for etag in ("e1", "e2"):
        assert statuses(function.handler(bridge_event(KEY, etag), None)) == ["invoked"]
    assert len({call["InferenceId"] for call in endpoint.calls}) == 2


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (s3_event("uploads/my+clip+%281%29.MP4"), KEY),
        (s3_event("uploads%2F1%2B1+%C3%BC.mp4"), "uploads/1+1 ü.mp4"),
        (bridge_event("uploads/1+1 %20.mp4"), "uploads/1+1 %20.mp4"),
    ],
)
def test_keys_are_decoded_where_they_were_encoded(s3, endpoint, read_json, event, key):
    function.handler(event, None)
    [call] = endpoint.calls
    assert read_json(call["InputLocation"].removeprefix(f"s3://{BUCKET}/"))["s3_video_key"] == key


def test_the_endpoint_understands_what_it_is_sent():
    film = function.Film(BUCKET, "uploads/1+1 ü.mp4", "e1", {"face": 1}, is_asked_for=True)
    request = parse_request(film.body, "application/json", {})
    assert request.source == S3Object(BUCKET, film.key)
    assert request.options.face == 1


@pytest.mark.parametrize("key", ["results/a.mp4", "results/a.mp4.json", "requests/1.json", "other/a.mp4", "a.mp4"])
def test_what_lies_elsewhere_starts_nothing(s3, endpoint, key):
    assert statuses(function.handler(s3_event(key), None)) == ["skipped"]
    assert statuses(function.handler(bridge_event(key), None)) == ["skipped"]
    assert endpoint.calls == []


@pytest.mark.parametrize("key", ["uploads/", "uploads/notes.txt", "uploads/a.mp4.json", "uploads/mp4"])
def test_what_is_no_film_starts_nothing(s3, endpoint, key):
    assert statuses(function.handler(s3_event(key), None)) == ["skipped"]
    assert endpoint.calls == []


def test_a_deleted_film_starts_nothing(s3, endpoint):
    assert function.handler(s3_event("uploads/a.mp4", name="ObjectRemoved:Delete"), None) == {"results": []}
    assert function.handler(bridge_event("uploads/a.mp4") | {"detail-type": "Object Deleted"}, None) == {"results": []}
    assert endpoint.calls == []


@pytest.mark.parametrize("mode", ["async", "realtime"])
def test_a_result_never_starts_another(s3, endpoint, monkeypatch, mode):
    """Whatever this function writes comes back to it as an event."""
    monkeypatch.setenv("MODE", mode)
    function.handler(bridge_event(KEY), None)
    written = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert written
    for key in written:
        assert statuses(function.handler(bridge_event(key), None)) == ["skipped"]
    assert len(endpoint.calls) == 1


def test_a_loop_is_refused_at_the_start(s3, endpoint, monkeypatch):
    monkeypatch.setenv("OUTPUT_PREFIX", "uploads/results")
    with pytest.raises(ValueError, match="lies in INPUT_PREFIX"):
        function.handler(bridge_event(KEY), None)


def test_one_of_several_fails_and_the_retry_sends_only_that(s3, endpoint, store):
    event = s3_event("uploads/a.mp4", "uploads/b.mp4", "uploads/c.mp4")
    usual = {"OutputLocation": "s3://b/o"}
    endpoint.answers = [usual, model_error(503, "overloaded"), usual]
    with pytest.raises(function.FilmsFailed, match=r"1 of 3 failed: uploads/b\.mp4: ClientError") as failed:
        function.handler(event, None)
    assert "uploads/a.mp4" not in str(failed.value)
    assert statuses(function.handler(event, None)) == ["duplicate", "invoked", "duplicate"]
    assert len(endpoint.calls) == 4


def test_a_broken_record_does_not_stop_the_others(s3, endpoint):
    event = s3_event("uploads/a.mp4", "uploads/b.mp4")
    del event["Records"][0]["s3"]["object"]["eTag"]
    with pytest.raises(function.FilmsFailed, match=r"1 of 2 failed: uploads/a\.mp4: KeyError"):
        function.handler(event, None)
    assert len(endpoint.calls) == 1


def test_a_queue_gets_back_what_failed(s3, endpoint):
    endpoint.answers = [model_error(500, "no"), {"OutputLocation": "s3://b/o"}]
    bodies = [json.dumps(bridge_event("uploads/a.mp4")), json.dumps(s3_event("uploads/b.mp4")), "not JSON"]
    records = [{"eventSource": "aws:sqs", "messageId": f"m{i}", "body": body} for i, body in enumerate(bodies)]
    answer = function.handler({"Records": records}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m2"}]}


def test_a_direct_call_reads_any_film_with_any_options(s3, endpoint, read_json):
    s3.put_object(Bucket=BUCKET, Key="elsewhere/film", Body=b"1")
    ask = {"s3_bucket": BUCKET, "s3_video_key": "elsewhere/film", "face": 1}
    assert statuses(function.handler(ask, None)) == ["invoked"]
    assert statuses(function.handler(ask, None)) == ["duplicate"]
    assert statuses(function.handler(ask | {"face": 0}, None)) == ["invoked"]
    assert read_json(endpoint.calls[0]["InputLocation"].removeprefix(f"s3://{BUCKET}/")) == ask


def test_a_direct_call_and_an_upload_of_the_same_film_are_one(s3, endpoint):
    etag = s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"1")["ETag"].strip('"')
    function.handler(bridge_event(KEY, etag), None)
    assert statuses(function.handler({"s3_bucket": BUCKET, "s3_video_key": KEY}, None)) == ["duplicate"]


def test_a_direct_call_for_nothing_fails(s3, endpoint):
    with pytest.raises(function.FilmsFailed, match="404"):
        function.handler({"s3_bucket": BUCKET, "s3_video_key": "uploads/none.mp4"}, None)


def test_an_unknown_event_is_refused(s3, endpoint):
    with pytest.raises(ValueError, match="expected one of S3"):
        function.handler({"hello": "world"}, None)


def test_in_real_time_the_answer_is_stored(s3, endpoint, monkeypatch, store, read_json):
    monkeypatch.setenv("MODE", "realtime")
    [outcome] = function.handler(bridge_event(KEY), None)["results"]
    assert outcome["status"] == "succeeded"
    [call] = endpoint.calls
    assert json.loads(call["Body"]) == {"s3_bucket": BUCKET, "s3_video_key": KEY}
    record = read_json("results/my clip (1).MP4.json")
    assert record["status"] == "success"
    assert record["answer"]["text"] == outcome["answer"]["text"] == "BIN BLUE AT F TWO NOW"
    assert (record["s3_video_key"], record["inference_id"]) == (KEY, call["InferenceId"])


def test_a_film_that_cannot_be_read_is_an_answer(s3, endpoint, monkeypatch, store, read_json):
    monkeypatch.setenv("MODE", "realtime")
    error = {"status": "error", "error": {"code": "no_face_found", "message": "no face"}}
    endpoint.answers = [model_error(400, json.dumps(error))]
    assert statuses(function.handler(bridge_event(KEY), None)) == ["failed"]
    assert statuses(function.handler(bridge_event(KEY), None)) == ["duplicate"]
    assert read_json("results/my clip (1).MP4.json")["error"] == error["error"]


@pytest.mark.parametrize(
    "error",
    [model_error(503, "{}"), model_error(429, "{}"), ReadTimeoutError(endpoint_url="e")],
    ids=["overloaded", "throttled", "too late"],
)
def test_what_may_pass_is_tried_again(s3, endpoint, monkeypatch, store, error):
    monkeypatch.setenv("MODE", "realtime")
    endpoint.answers = [error]
    with pytest.raises(function.FilmsFailed):
        function.handler(bridge_event(KEY), None)
    assert statuses(function.handler(bridge_event(KEY), None)) == ["succeeded"]


def test_a_claim_lapses_after_its_lease_and_not_before(s3, endpoint, table, monkeypatch):
    film = function.Film(BUCKET, KEY, "e1")
    assert function.ClaimsInTable("films").claim(film)  # and then its function is killed
    assert statuses(function.handler(bridge_event(KEY), None)) == ["duplicate"]
    later = time.time_ns() + (function.LEASE_S + 1) * 10**9
    monkeypatch.setattr(function.time, "time_ns", lambda: later)
    assert statuses(function.handler(bridge_event(KEY), None)) == ["invoked"]


def test_a_claim_taken_over_is_not_released_by_its_old_owner(table, monkeypatch):
    film = function.Film(BUCKET, KEY, "e1")
    first, second = function.ClaimsInTable("films"), function.ClaimsInTable("films")
    assert first.claim(film)
    later = time.time_ns() + (function.LEASE_S + 1) * 10**9
    monkeypatch.setattr(function.time, "time_ns", lambda: later)
    assert second.claim(film)
    first.release(film)
    assert table.get_item(Key={"id": film.id})["Item"]["state"] == "claimed"
    second.confirm(film, "invoked")
    first.confirm(film, "succeeded")
    assert table.get_item(Key={"id": film.id})["Item"]["state"] == "invoked"


@pytest.mark.parametrize(("name", "value"), [("ENDPOINT_NAME", ""), ("MODE", "batch")])
def test_a_bad_setting_is_named(s3, endpoint, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        function.handler(bridge_event(KEY), None)


JOB = {"task": "lipsync", "s3_video_key": "uploads/face.png", "s3_audio_key": "uploads/a/hello.wav"}


def put_job(s3: Any, job: object, key: str = "uploads/1.job.json") -> dict[str, Any]:
    etag = s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(job).encode())["ETag"].strip('"')
    return s3_event(key, etag=etag)


def test_a_job_file_has_a_face_say_a_voice(s3, endpoint, store, read_json):
    event = put_job(s3, JOB | {"models": ["wav2lip"]})
    assert statuses(function.handler(event, None)) == ["invoked"]
    assert statuses(function.handler(event, None)) == ["duplicate"]
    [call] = endpoint.calls
    sent = read_json(call["InputLocation"].removeprefix(f"s3://{BUCKET}/"))
    assert sent == JOB | {"s3_bucket": BUCKET, "models": ["wav2lip"], "s3_output_prefix": "results/"}
    request = parse_request(json.dumps(sent), "application/json", {})
    assert (request.face, request.audio) == (
        S3Object(BUCKET, "uploads/face.png"),
        S3Object(BUCKET, JOB["s3_audio_key"]),
    )
    assert (request.output.bucket, request.output.prefix) == (BUCKET, "results/")


def test_in_real_time_a_jobs_answer_is_filed_by_face_and_voice(s3, endpoint, monkeypatch, read_json):
    monkeypatch.setenv("MODE", "realtime")
    assert statuses(function.handler(put_job(s3, JOB), None)) == ["succeeded"]
    assert read_json("results/face.png.hello.wav.json")["status"] == "success"


def test_a_direct_call_syncs_lips(s3, endpoint, read_json):
    s3.put_object(Bucket=BUCKET, Key=JOB["s3_video_key"], Body=b"1")
    ask = JOB | {"s3_bucket": BUCKET, "s3_output_prefix": "films/"}
    assert statuses(function.handler(ask, None)) == ["invoked"]
    assert read_json(endpoint.calls[0]["InputLocation"].removeprefix(f"s3://{BUCKET}/")) == ask


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ([1], "expected a JSON object"),
        (JOB | {"s3_bucket": "another"}, "files in the bucket"),
        ({"task": "lipsync"}, "s3_video_key"),
        (JOB | {"more": "x" * 70_000}, "a job has at most"),
    ],
)
def test_a_job_that_is_none_fails(s3, endpoint, job, words):
    with pytest.raises(function.FilmsFailed, match=words):
        function.handler(put_job(s3, job), None)
    assert endpoint.calls == []
