"""Records have the form of the server's own jobs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from support.lambda_functions import BUCKET, load, load_shared, version_of

from container.jobs.api.views import output_view, summary_of, view_of
from container.jobs.records import JobRecord, JobState, OutputRecord

form = load_shared("jobs.job_form")
invoke = load("invoke_endpoint")
on_result = load("on_result")
VIDEO = OutputRecord("wav2lip.mp4", JobState.SUCCEEDED, "attempts/1/wav2lip.mp4", "video/mp4")
# A job of the server; the fields that only a server with workers has are not in the records of the functions.
JOB = JobRecord(
    *(1, "ab" * 16, "owner", "client", JobState.SUCCEEDED, "done", 100, 1, "invocations", {}, "lipread", None, "", 10),
    *("", 1.0, 2.0, 3.0, 4.0, None, None, {"text": "bin"}, None, (), {}, (VIDEO,)),
)
OF_SERVERS = {"urls", "attempts", "input_bytes", "request_id", "webhook_url", "webhook_events"}
ANSWER = {
    "status": "success",
    "outputs": [
        {"model": "wav2lip", "s3_bucket": "b", "s3_key": "r/a.mp4", "url": "https://b/r/a.mp4", "num_frames": 75}
        | {"duration_s": 3.0}
    ],
}


def record_of(**fields: Any) -> dict[str, Any]:
    found = {"inference_id": "i", "status": "success", "answer": ANSWER, "finished_at": "2026-01-25T22:46:00.608Z"}
    found |= fields
    return found | form.job_fields(found, {"task": "lipsync"}, datetime(2026, 1, 25, 22, 45, tzinfo=UTC))


def test_a_record_has_the_fields_of_a_job():
    assert set(summary_of(JOB)) - OF_SERVERS == set(form.job_fields(record_of(), None)) - {"result", "outputs"} | {
        "error"
    }
    assert set(view_of(JOB)) - OF_SERVERS <= set(record_of(error=None))
    assert set(record_of()["outputs"][0]) == set(output_view(JOB, VIDEO))


def test_a_lip_sync_has_its_videos_as_outputs():
    record = record_of()
    assert (record["id"], record["state"], record["progress"], record["task"]) == ("i", "succeeded", 100, "lipsync")
    assert (record["created_at"], record["result"]) == ("2026-01-25T22:45:00.000Z", ANSWER)
    (output,) = record["outputs"]
    assert (output["name"], output["s3_key"], output["url"]) == ("wav2lip.mp4", "r/a.mp4", "https://b/r/a.mp4")
    assert output["details"] == {"model": "wav2lip", "num_frames": 75, "duration_s": 3.0}


@pytest.mark.parametrize("answer", [None, [], "text", {"outputs": 3}, {"outputs": ["a"]}])
def test_an_answer_of_another_form_has_no_outputs(answer: object):
    assert record_of(answer=answer)["outputs"] == []


def test_a_failure_has_neither_result_nor_outputs():
    record = record_of(status="error", error={"code": "no_audio", "message": "why"})
    assert (record["state"], record["progress"], record["result"], record["outputs"]) == ("failed", 0, None, [])


@pytest.mark.parametrize("mode", ["async", "realtime"])
def test_both_modes_write_records_of_one_form(s3, endpoint, read_json, monkeypatch: pytest.MonkeyPatch, mode: str):
    monkeypatch.setenv("MODE", mode)
    s3.put_object(Bucket=BUCKET, Key="uploads/a.mp4", Body=b"1")
    body = {"task": "lipread", "s3_bucket": BUCKET, "s3_video_key": "uploads/a.mp4", "decoder": "greedy"}
    (sent,) = invoke.handler(body, None)["results"]
    if mode == "async":
        answer = {"status": "success", "text": "BIN BLUE AT F TWO NOW"}
        s3.put_object(Bucket=BUCKET, Key="results/1.out", Body=json.dumps(answer).encode())
        notice = {
            "invocationStatus": "Completed",
            "inferenceId": sent["id"],
            "eventTime": "2026-01-25T22:46:00.608Z",
            "requestParameters": {"inputLocation": f"s3://{BUCKET}/requests/{sent['id']}.json"},
            "responseParameters": {"outputLocation": f"s3://{BUCKET}/results/1.out"},
        }
        on_result.handler({"Records": [{"Sns": {"Message": json.dumps(notice)}}]}, None)
    record = read_json("results/a.mp4.json")
    assert set(view_of(JOB)) - OF_SERVERS - {"error"} <= set(record)
    assert (record["id"], record["state"], record["task"]) == (sent["id"], "succeeded", "lipread")
    assert record["result"] == record["answer"]
    for name in ("created_at", "finished_at"):
        assert datetime.fromisoformat(record[name]).tzinfo is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"video_url": "https://h/a.mp4"}, 'found "video_url"; only files in S3'),
        ({"video": "AAAA"}, 'found "video"; only files in S3'),
        ({}, "found a body without it"),
        ({"s3_video_key": "uploads/a.mp4", "webhook_url": "https://h"}, '"webhook_url": expected none here'),
    ],
)
def test_what_an_endpoint_cannot_do_is_named(s3, endpoint, fields: dict[str, str], message: str):
    s3.put_object(Bucket=BUCKET, Key="uploads/a.mp4", Body=b"1")
    with pytest.raises(invoke.VideosFailed, match=message):
        invoke.handler({"s3_bucket": BUCKET} | fields, None)
    s3.put_object(Bucket=BUCKET, Key="uploads/a.job.json", Body=json.dumps(fields).encode())
    event = {"s3": {"bucket": {"name": BUCKET}, "object": {"key": "uploads/a.job.json", "eTag": "e"}}}
    with pytest.raises(invoke.VideosFailed, match=message):
        invoke.handler({"Records": [event]}, None)
    assert endpoint.calls == []


def test_the_fields_are_of_the_current_version_too():
    assert version_of("k").record_fields == {"s3_version_id": None, "s3_etag": "e1"}
    assert not set(version_of("k").record_fields) & set(form.job_fields(record_of(), None))
