"""Each upload is processed once."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import boto3
import botocore.session
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import Stubber
from support.lambda_functions import BUCKET, load, load_shared, version_of

from inference.error_responses import INTERNAL, STATUSES
from inference.requests import S3Object, parse_request

function = load("invoke_endpoint")
claims = load_shared("jobs.claims")
KEY = "uploads/my clip (1).MP4"
PART = 5 * 1024 * 1024  # smallest part size in S3


@pytest.fixture(params=["table", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    """Run the test with each claim store."""
    if request.param == "table":
        request.getfixturevalue("table")
    return request.param


def s3_event(*keys: str, etag: str = "e1", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    """Return an event as S3 sends it; keys are given as S3 encodes them."""
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
    """Return an event as EventBridge sends it, with the key unencoded."""
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


def test_a_video_uploaded_twice_in_parts_is_processed_once(s3, endpoint, store, read_json):
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
        s3.upload_fileobj(io.BytesIO(b"part" * PART), BUCKET, KEY, Config=in_parts)
    found = [event for url in urls for event in queued(sqs, url)]
    assert s3.head_object(Bucket=BUCKET, Key=KEY)["ETag"].strip('"').endswith("-4")
    assert len(found) == 11  # moto sends each upload twice on both paths; a test event; tags, by EventBridge
    found_statuses = [status for event in found for status in statuses(function.handler(event, None))]
    assert sorted(found_statuses) == ["duplicate"] * 7 + ["invoked"]
    [call] = endpoint.calls
    assert call["EndpointName"] == "viseme"
    assert call["ContentType"] == "application/json"
    assert call["InvocationTimeoutSeconds"] == 3600
    request_key = call["InputLocation"].removeprefix(f"s3://{BUCKET}/")
    assert request_key == f"requests/{call['InferenceId']}.json"
    etag = s3.head_object(Bucket=BUCKET, Key=KEY)["ETag"].strip('"')
    assert read_json(request_key) == {"s3_bucket": BUCKET, "s3_video_key": KEY, "s3_etag": etag}


def test_new_content_under_the_same_name_is_processed(s3, endpoint, store):
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
def test_only_encoded_keys_are_decoded(s3, endpoint, read_json, event, key):
    function.handler(event, None)
    [call] = endpoint.calls
    assert read_json(call["InputLocation"].removeprefix(f"s3://{BUCKET}/"))["s3_video_key"] == key


def test_the_endpoint_can_parse_the_request():
    video = function.UploadedVideo(
        BUCKET, "uploads/1+1 ü.mp4", version_of("uploads/1+1 ü.mp4", version_id="v1"), {"face": 1}, is_direct=True
    )
    request = parse_request(video.body, "application/json", {})
    assert request.source == S3Object(BUCKET, video.key, "v1", "e1")
    assert request.options.face == 1


@pytest.mark.parametrize("key", ["results/a.mp4", "results/a.mp4.json", "requests/1.json", "other/a.mp4", "a.mp4"])
def test_other_prefixes_are_skipped(s3, endpoint, key):
    assert statuses(function.handler(s3_event(key), None)) == ["skipped"]
    assert statuses(function.handler(bridge_event(key), None)) == ["skipped"]
    assert endpoint.calls == []


@pytest.mark.parametrize("key", ["uploads/", "uploads/notes.txt", "uploads/a.mp4.json", "uploads/mp4"])
def test_other_files_are_skipped(s3, endpoint, key):
    assert statuses(function.handler(s3_event(key), None)) == ["skipped"]
    assert endpoint.calls == []


def test_a_deletion_is_skipped(s3, endpoint):
    assert function.handler(s3_event("uploads/a.mp4", name="ObjectRemoved:Delete"), None) == {"results": []}
    assert function.handler(bridge_event("uploads/a.mp4") | {"detail-type": "Object Deleted"}, None) == {"results": []}
    assert endpoint.calls == []


@pytest.mark.parametrize("mode", ["async", "realtime"])
def test_a_result_does_not_trigger_another_request(s3, endpoint, monkeypatch, mode):
    """Everything that this function writes comes back to it as an event."""
    monkeypatch.setenv("MODE", mode)
    function.handler(bridge_event(KEY), None)
    written = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert written
    for key in written:
        assert statuses(function.handler(bridge_event(key), None)) == ["skipped"]
    assert len(endpoint.calls) == 1


def test_a_loop_is_rejected_at_the_start(s3, endpoint, monkeypatch):
    monkeypatch.setenv("OUTPUT_PREFIX", "uploads/results")
    with pytest.raises(ValueError, match="is inside INPUT_PREFIX"):
        function.handler(bridge_event(KEY), None)


def test_a_retry_sends_only_the_video_that_failed(s3, endpoint, store):
    event = s3_event("uploads/a.mp4", "uploads/b.mp4", "uploads/c.mp4")
    default = {"OutputLocation": "s3://b/o"}
    endpoint.answers = [default, model_error(503, "overloaded"), default]
    with pytest.raises(function.VideosFailed, match=r"1 of 3 failed: uploads/b\.mp4: ClientError") as failed:
        function.handler(event, None)
    assert "uploads/a.mp4" not in str(failed.value)
    assert statuses(function.handler(event, None)) == ["duplicate", "invoked", "duplicate"]
    assert len(endpoint.calls) == 4


def test_a_broken_record_does_not_stop_the_others(s3, endpoint):
    event = s3_event("uploads/a.mp4", "uploads/b.mp4")
    del event["Records"][0]["s3"]["object"]["eTag"]
    with pytest.raises(function.VideosFailed, match=r"1 of 2 failed: uploads/a\.mp4: KeyError"):
        function.handler(event, None)
    assert len(endpoint.calls) == 1


def test_failed_messages_return_to_the_queue(s3, endpoint):
    endpoint.answers = [model_error(500, "no"), {"OutputLocation": "s3://b/o"}]
    bodies = [json.dumps(bridge_event("uploads/a.mp4")), json.dumps(s3_event("uploads/b.mp4")), "not JSON"]
    records = [{"eventSource": "aws:sqs", "messageId": f"m{i}", "body": body} for i, body in enumerate(bodies)]
    answer = function.handler({"Records": records}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m2"}]}


def test_a_direct_call_takes_any_key_and_options(s3, endpoint, read_json):
    s3.put_object(Bucket=BUCKET, Key="elsewhere/video", Body=b"1")
    etag = s3.head_object(Bucket=BUCKET, Key="elsewhere/video")["ETag"].strip('"')
    request = {"s3_bucket": BUCKET, "s3_video_key": "elsewhere/video", "face": 1}
    assert statuses(function.handler(request, None)) == ["invoked"]
    assert statuses(function.handler(request, None)) == ["duplicate"]
    assert statuses(function.handler(request | {"face": 0}, None)) == ["invoked"]
    assert read_json(endpoint.calls[0]["InputLocation"].removeprefix(f"s3://{BUCKET}/")) == request | {"s3_etag": etag}


def test_a_direct_call_and_an_upload_of_the_same_video_are_one(s3, endpoint):
    etag = s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"1")["ETag"].strip('"')
    function.handler(bridge_event(KEY, etag), None)
    assert statuses(function.handler({"s3_bucket": BUCKET, "s3_video_key": KEY}, None)) == ["duplicate"]


def test_a_direct_call_for_a_missing_key_fails(s3, endpoint):
    with pytest.raises(function.VideosFailed, match="404"):
        function.handler({"s3_bucket": BUCKET, "s3_video_key": "uploads/missing.mp4"}, None)


def test_an_asynchronous_call_is_valid(s3, monkeypatch):
    """Its parameters are those of AWS's own description of the operation."""
    model = botocore.session.get_session().get_service_model("sagemaker-runtime")
    sender = function.RequestSender(function.Settings.from_env({"ENDPOINT_NAME": "viseme"}))
    with Stubber(sender._endpoint) as stubber:  # validates the parameters
        stubber.add_response("invoke_endpoint_async", {"OutputLocation": "s3://b/o"})
        assert sender.send(function.UploadedVideo(BUCKET, KEY, version_of(KEY, "e1")))["status"] == "invoked"
    longest = (
        model.operation_model("InvokeEndpointAsync").input_shape.members["InvocationTimeoutSeconds"].metadata["max"]
    )
    assert longest == function.INVOCATION_TIMEOUT.total_seconds()


def test_an_unknown_event_is_rejected(s3, endpoint):
    with pytest.raises(ValueError, match="expected an S3"):
        function.handler({"hello": "world"}, None)


def test_in_real_time_the_answer_is_stored(s3, endpoint, monkeypatch, store, read_json):
    monkeypatch.setenv("MODE", "realtime")
    [outcome] = function.handler(bridge_event(KEY), None)["results"]
    assert outcome["status"] == "succeeded"
    [call] = endpoint.calls
    assert json.loads(call["Body"]) == {"s3_bucket": BUCKET, "s3_video_key": KEY, "s3_etag": "e1"}
    record = read_json("results/my clip (1).MP4.json")
    assert record["status"] == "success"
    assert record["answer"]["text"] == outcome["answer"]["text"] == "BIN BLUE AT F TWO NOW"
    assert (record["s3_video_key"], record["inference_id"]) == (KEY, call["InferenceId"])


def test_a_permanent_error_is_an_answer(s3, endpoint, monkeypatch, store, read_json):
    monkeypatch.setenv("MODE", "realtime")
    error = {"status": "error", "error": {"code": "no_face_found", "message": "no face"}}
    endpoint.answers = [model_error(400, json.dumps(error))]
    assert statuses(function.handler(bridge_event(KEY), None)) == ["failed"]
    assert statuses(function.handler(bridge_event(KEY), None)) == ["duplicate"]
    assert read_json("results/my clip (1).MP4.json")["error"] == error["error"]


# What each status of our own server means for a caller; the stock image's answers have the same ones.
FINAL = {400, 403, 404, 409, 412, 413, 415}
PASSING = {408, 429, 499, 500, 502, 503, 504, 507}
NOT_CALLED = {501}  # of POST /v1/speech and of WebRTC sessions alone, which the functions do not call


def test_every_status_of_the_server_is_final_or_passing():
    statuses = ({status for _, status, _ in STATUSES} | {INTERNAL[0]}) - NOT_CALLED
    assert statuses <= FINAL | PASSING
    assert {status for status in statuses if function.is_permanent(model_error(status, "{}"))} == FINAL & statuses


@pytest.mark.parametrize(
    "error",
    [*(model_error(status, "{}") for status in sorted(PASSING | {425})), ReadTimeoutError(endpoint_url="e")],
    ids=[*(str(status) for status in sorted(PASSING | {425})), "timed out"],
)
def test_transient_errors_are_retried(s3, endpoint, monkeypatch, store, error):
    monkeypatch.setenv("MODE", "realtime")
    endpoint.answers = [error]
    with pytest.raises(function.VideosFailed):
        function.handler(bridge_event(KEY), None)
    assert statuses(function.handler(bridge_event(KEY), None)) == ["succeeded"]


def claims_of(store: str, s3: Any) -> Any:
    return claims.DynamoDbClaims("videos") if store == "table" else claims.S3Claims(s3, claims.Prefixes.from_env({}))


def after_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    monkeypatch.setattr(claims.time, "time_ns", lambda: now() + (claims.LEASE_S + 1) * 10**9)


def test_a_claim_expires_after_its_lease_and_not_before(s3, endpoint, store, monkeypatch):
    video = function.UploadedVideo(BUCKET, KEY, version_of(KEY, "e1"))
    assert claims_of(store, s3).claim(video)  # then its function is killed
    with pytest.raises(function.VideosFailed, match="another run is sending"):  # or this event would be lost
        function.handler(bridge_event(KEY), None)
    after_lease(monkeypatch)
    assert statuses(function.handler(bridge_event(KEY), None)) == ["invoked"]
    assert statuses(function.handler(bridge_event(KEY), None)) == ["duplicate"]


def test_a_claim_taken_over_is_not_released_by_its_old_owner(s3, store, monkeypatch):
    video = function.UploadedVideo(BUCKET, KEY, version_of(KEY, "e1"))
    first, second, third = (claims_of(store, s3) for _ in range(3))
    assert first.claim(video)
    after_lease(monkeypatch)
    assert second.claim(video)
    monkeypatch.undo()
    first.release(video)
    first.confirm(video, "succeeded")
    with pytest.raises(claims.JobInFlight):
        third.claim(video)
    second.confirm(video, "invoked")
    second.release(video)
    assert not third.claim(video)


def test_of_two_that_take_over_a_claim_one_gets_it(s3, monkeypatch):
    video = function.UploadedVideo(BUCKET, KEY, version_of(KEY, "e1"))
    first, second, third = (claims_of("s3", s3) for _ in range(3))
    assert first.claim(video)
    after_lease(monkeypatch)
    read, seen = second._read, []

    def interrupted(*arguments: Any) -> Any:
        found = read(*arguments)
        if not seen:
            seen.append(third.claim(video))
        return found

    monkeypatch.setattr(second, "_read", interrupted)
    with pytest.raises(claims.JobInFlight):
        second.claim(video)
    assert seen == [True]


@pytest.mark.parametrize(("name", "value"), [("ENDPOINT_NAME", ""), ("MODE", "batch")])
def test_a_bad_setting_is_named(s3, endpoint, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        function.handler(bridge_event(KEY), None)


JOB = {"task": "lipsync", "s3_video_key": "uploads/face.png", "s3_audio_key": "uploads/a/hello.wav"}


def put_job(s3: Any, job: object, key: str = "uploads/1.job.json") -> dict[str, Any]:
    etag = s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(job).encode())["ETag"].strip('"')
    return s3_event(key, etag=etag)


def test_a_job_file_starts_lip_sync(s3, endpoint, store, read_json):
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


def test_a_realtime_jobs_answer_is_named_by_face_and_audio(s3, endpoint, monkeypatch, read_json):
    monkeypatch.setenv("MODE", "realtime")
    assert statuses(function.handler(put_job(s3, JOB), None)) == ["succeeded"]
    assert read_json("results/face.png.hello.wav.json")["status"] == "success"


def test_a_direct_call_syncs_lips(s3, endpoint, read_json):
    s3.put_object(Bucket=BUCKET, Key=JOB["s3_video_key"], Body=b"1")
    request = JOB | {"s3_bucket": BUCKET, "s3_output_prefix": "videos/"}
    assert statuses(function.handler(request, None)) == ["invoked"]
    assert read_json(endpoint.calls[0]["InputLocation"].removeprefix(f"s3://{BUCKET}/")) == request


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ([1], "expected a JSON object"),
        (JOB | {"s3_bucket": "another"}, "files in the bucket"),
        ({"task": "lipsync"}, "s3_video_key"),
        (JOB | {"more": "x" * 70_000}, "a job has at most"),
    ],
)
def test_an_invalid_job_fails(s3, endpoint, job, words):
    with pytest.raises(function.VideosFailed, match=words):
        function.handler(put_job(s3, job), None)
    assert endpoint.calls == []
