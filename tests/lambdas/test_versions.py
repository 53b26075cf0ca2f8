"""The result of a video is that of its newest version, in whatever order events and results arrive."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from support.lambda_functions import BUCKET, load, load_shared, version_of

invoke = load("invoke_endpoint")
on_result = load("on_result")
jobs_claims = load_shared("jobs.claims")
records = load_shared("jobs.records")
versions = load_shared("jobs.version")

KEY = "uploads/clip.mp4"
RESULT = "results/clip.mp4.json"


@pytest.fixture(params=["table", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "table":
        request.getfixturevalue("table")
    return request.param


def uploaded(number: int, contents: str) -> dict[str, Any]:
    """Return EventBridge's event for the upload with this number; contents: stands for the bytes."""
    found = {"key": KEY, "etag": contents, "version-id": f"v{number}", "sequencer": f"617f08299329d{number:03x}"}
    detail = {"bucket": {"name": BUCKET}, "object": found}
    # The time is that of all of them: only the sequencer tells which is newer.
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail, "time": "2026-11-30T08:00:00Z"}


def job_id(contents: str) -> str:
    return str(invoke.UploadedVideo(BUCKET, KEY, version_of(KEY, contents)).id)


def answered(s3: Any, contents: str, status: str = "Completed", **changes: Any) -> dict[str, Any]:
    """Write the endpoint's answer, which names the bytes that it was made of; return SNS's event."""
    s3.put_object(Bucket=BUCKET, Key=f"results/{contents}.out", Body=json.dumps({"text": contents}).encode())
    message = {
        "invocationStatus": status,
        "inferenceId": job_id(contents),
        "eventTime": datetime.now(UTC).isoformat(),
        "requestParameters": {"inputLocation": f"s3://{BUCKET}/requests/{job_id(contents)}.json"},
        "responseParameters": {"outputLocation": f"s3://{BUCKET}/results/{contents}.out"},
    }
    return {"Records": [{"Sns": {"Message": json.dumps(message | changes)}}]}


def permutations(*names: str) -> list[Any]:
    return [pytest.param(order, id="-".join(order)) for order in itertools.permutations(names)]


@pytest.mark.parametrize("results", permutations("a", "b", "c"))
@pytest.mark.parametrize("events", [(1, 2, 3), (3, 1, 2)], ids=["in order", "newest first"])
def test_the_newest_versions_result_stays(s3, endpoint, store, read_json, events, results):
    for number in events:
        invoke.handler(uploaded(number, "abc"[number - 1]), None)
    for contents in results:
        on_result.handler(answered(s3, contents), None)
    found = read_json(RESULT)
    assert found["answer"] == {"text": "c"}
    assert (found["s3_version_id"], found["s3_etag"]) == ("v3", "c")
    for number, contents in enumerate("abc", start=1):  # each job's own record remains
        own = read_json(f"requests/{job_id(contents)}.result.json")
        assert (own["answer"], own["s3_version_id"]) == ({"text": contents}, f"v{number}")


@pytest.mark.parametrize("order", permutations("result a", "result b", "a again"))
def test_the_same_bytes_uploaded_again_after_others_are_one_job_and_the_newest(s3, endpoint, store, read_json, order):
    invoke.handler(uploaded(1, "a"), None)
    invoke.handler(uploaded(2, "b"), None)
    for step in order:
        if step == "a again":
            assert invoke.handler(uploaded(3, "a"), None)["results"][0]["status"] == "duplicate"
        else:
            on_result.handler(answered(s3, step[-1]), None)
    assert len(endpoint.calls) == 2
    found = read_json(RESULT)
    assert (found["answer"], found["s3_version_id"], found["s3_etag"]) == ({"text": "a"}, "v3", "a")


@pytest.mark.parametrize("order", permutations("1", "2", "3"))
def test_in_real_time_as_well(s3, endpoint, store, monkeypatch, read_json, order):
    """Uploads 1 and 3 have the same bytes."""
    monkeypatch.setenv("MODE", "realtime")
    contents = {"1": "a", "2": "b", "3": "a"}
    for number in order:
        endpoint.answers = [{"status": "success", "text": contents[number]}]
        invoke.handler(uploaded(int(number), contents[number]), None)
    assert len(endpoint.calls) == 2
    found = read_json(RESULT)
    assert (found["answer"]["text"], found["s3_version_id"]) == ("a", "v3")


def test_an_event_delivered_twice_changes_nothing(s3, endpoint, store, read_json):
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    invoke.handler(uploaded(1, "a"), None)
    on_result.handler(answered(s3, "a"), None)
    written = s3.head_object(Bucket=BUCKET, Key=RESULT)["VersionId"]
    invoke.handler(uploaded(1, "a"), None)
    assert s3.head_object(Bucket=BUCKET, Key=RESULT)["VersionId"] == written


def test_the_request_names_the_version(s3, endpoint, read_json):
    invoke.handler(uploaded(7, "a"), None)
    sent = {"s3_bucket": BUCKET, "s3_video_key": KEY, "s3_version_id": "v7", "s3_etag": "a"}
    assert read_json(f"requests/{job_id('a')}.json") == sent


def test_a_failure_that_arrives_after_the_success_is_ignored(s3, endpoint, store, read_json):
    """SNS may deliver an earlier attempt's failure again."""
    invoke.handler(uploaded(1, "a"), None)
    on_result.handler(answered(s3, "a"), None)
    [stored] = on_result.handler(answered(s3, "a", "Failed"), None)["results"]
    assert stored["status"] == "ignored"
    assert read_json(RESULT)["status"] == "success"
    assert invoke.handler(uploaded(1, "a"), None)["results"][0]["status"] == "duplicate"


def test_a_newer_versions_failure_replaces_an_older_success(s3, endpoint, store, read_json):
    invoke.handler(uploaded(1, "a"), None)
    invoke.handler(uploaded(2, "b"), None)
    on_result.handler(answered(s3, "b", "Failed", failureReason="Received client error (400) from model"), None)
    on_result.handler(answered(s3, "a"), None)
    found = read_json(RESULT)
    assert (found["status"], found["s3_version_id"]) == ("error", "v2")


def test_the_same_bytes_come_again_while_the_first_are_being_sent(s3, endpoint, store, monkeypatch, read_json):
    """The second event is repeated until the first run has sent its request."""
    invoke_async = endpoint.invoke_endpoint_async

    def interrupted(**call: Any) -> Any:
        monkeypatch.setattr(endpoint, "invoke_endpoint_async", invoke_async)
        with pytest.raises(invoke.VideosFailed, match="another run is sending"):
            invoke.handler(uploaded(3, "a"), None)
        return invoke_async(**call)

    monkeypatch.setattr(endpoint, "invoke_endpoint_async", interrupted)
    invoke.handler(uploaded(1, "a"), None)
    invoke.handler(uploaded(2, "b"), None)
    assert invoke.handler(uploaded(3, "a"), None)["results"][0]["status"] == "duplicate"
    for contents in "ab":
        on_result.handler(answered(s3, contents), None)
    assert len(endpoint.calls) == 2
    assert read_json(RESULT)["s3_version_id"] == "v3"


def test_a_call_that_failed_does_not_lose_a_newer_version(s3, endpoint, store, monkeypatch, read_json):
    """The same bytes came again meanwhile; then the first event is repeated."""
    request = records.ObjectPath(BUCKET, f"requests/{job_id('a')}.json")

    def failing(**call: Any) -> Any:
        version = invoke.version_of(KEY, uploaded(3, "a"))
        records.renew_request(s3, request, invoke.UploadedVideo(BUCKET, KEY, version).body, version)
        raise EndpointConnectionError(endpoint_url="e")

    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "invoke_endpoint_async", failing)
        with pytest.raises(invoke.VideosFailed):
            invoke.handler(uploaded(1, "a"), None)
    invoke.handler(uploaded(2, "b"), None)
    assert invoke.handler(uploaded(1, "a"), None)["results"][0]["status"] == "invoked"
    for contents in "ab":
        on_result.handler(answered(s3, contents), None)
    assert read_json(RESULT)["s3_version_id"] == "v3"


class Interrupted:
    """An S3 client in which somebody else writes just before the first conditional write of a key."""

    def __init__(self, s3: Any, key: str, write: Callable[[], object]) -> None:
        self._s3 = s3
        self._key = key
        self._write: Callable[[], object] | None = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def put_object(self, **call: Any) -> Any:
        if call["Key"] == self._key and self._write:
            write, self._write = self._write, None
            write()
        return self._s3.put_object(**call)


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(("own", "others", "kept"), [(1, 2, "others"), (2, 1, "own")])
def test_two_results_at_the_same_time(s3, read_json, exists: bool, own: int, others: int, kept: str):
    target = records.ObjectPath(BUCKET, RESULT)

    def version(number: int) -> Any:
        return version_of(KEY, sequencer=f"617f08299329d{number:03x}", version_id=f"v{number}")

    if exists:
        records.publish(s3, target, {"by": "first"}, version(0))
    busy = Interrupted(s3, RESULT, lambda: records.publish(s3, target, {"by": "others"}, version(others)))
    assert records.publish(busy, target, {"by": "own"}, version(own)) == (kept == "own")
    assert read_json(RESULT)["by"] == kept


def test_an_object_replaced_at_every_attempt_is_an_error(s3):
    class Busy(Interrupted):
        def put_object(self, **call: Any) -> Any:
            self._s3.put_object(Bucket=BUCKET, Key=RESULT, Body=b"another")
            self._s3.put_object(Bucket=BUCKET, Key=RESULT, Body=b"one")
            return self._s3.put_object(**call | {"IfNoneMatch": "*"})

    with pytest.raises(records.WriteConflict, match="replaced 10 times"):
        records.publish(Busy(s3, RESULT, lambda: None), records.ObjectPath(BUCKET, RESULT), {}, version_of(KEY))


def test_other_errors_of_s3_are_raised(s3):
    with pytest.raises(ClientError, match="Bucket"):
        records.publish(s3, records.ObjectPath("no-such-bucket", RESULT), {}, version_of(KEY))


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E6"),
        ("0055AED6DCD90281E5", "00617F08299329D189"),
        ("617f08299329d189", "617f08299329d18a"),
        ("617f08299329d18", "617f08299329d189"),  # the shorter one continues with zeros
        ("00617F08299329D188", "617f08299329d189"),  # a notification of S3, an event of EventBridge
        ("617f08299329d188", "00617F08299329D189"),
    ],
)
def test_sequencers_are_ordered_as_s3_documents_it(older: str, newer: str):
    first, second = (version_of(KEY, sequencer=one) for one in (older, newer))
    assert first.is_older_than(second)
    assert not second.is_older_than(first)
    assert not first.is_older_than(first)


def test_without_comparable_sequencers_the_time_decides():
    """A direct call has none, and those of two keys cannot be compared: two job files may have one result."""
    early = version_of("uploads/1.job.json", sequencer="2", current_at_ms=1)
    late = version_of("uploads/2.job.json", sequencer="1", current_at_ms=2)
    direct = version_of("uploads/1.job.json", current_at_ms=3)
    assert early.is_older_than(late)
    assert not late.is_older_than(early)
    assert late.is_older_than(direct)


def test_a_direct_call_for_the_current_version_is_not_a_newer_one():
    event = version_of(KEY, version_id="v1", sequencer="1", current_at_ms=1)
    assert not event.is_older_than(version_of(KEY, version_id="v1", current_at_ms=9))


def test_a_version_survives_as_metadata():
    version = version_of("uploads/ü 1+1.mp4", "e-2", version_id="v", sequencer="1", current_at_ms=5)
    assert versions.UploadVersion.from_metadata(version.metadata) == version
    assert all(text.isascii() for text in version.metadata.values())


def test_a_claim_whose_answer_was_lost_is_still_its_owners(s3, endpoint, store, monkeypatch):
    """boto3 repeats such a call, and the second time finds what the first one wrote."""

    def twice(write: Callable[..., Any]) -> Callable[..., Any]:
        def put(**call: Any) -> Any:
            write(**call)
            return write(**call)

        return put

    if store == "table":
        claims = invoke.DynamoDbClaims("videos")
        monkeypatch.setattr(claims._table, "put_item", twice(claims._table.put_item))
    else:
        claims = invoke.S3Claims(s3, records.Prefixes.from_env({}))
        monkeypatch.setattr(s3, "put_object", twice(s3.put_object))
    video = invoke.UploadedVideo(BUCKET, KEY, version_of(KEY))
    assert claims.claim(video)
    with pytest.raises(jobs_claims.JobInFlight):
        claims.claim(video)
    claims.confirm(video, "invoked")
    assert not claims.claim(video)


@pytest.mark.parametrize("name", ["ü" * 506 + ".mp4", "a" * 1012 + ".mp4", "a+b c%20&=日本語 (1).mp4"])
def test_results_of_long_and_odd_names_are_stored(s3, name):
    """A key has at most 1024 bytes, also that of the result, which is longer than the video's."""
    prefixes = records.Prefixes.from_env({})
    key = f"uploads/{name}"
    result = prefixes.result_key(key, "uploads/" + "b" * 900 + ".wav")
    assert len(key.encode()) <= 1024 >= len(result.encode())
    assert result.endswith(".json")
    assert prefixes.result_key(f"{key[:-5]}_.mp4") != prefixes.result_key(key)
    records.publish(s3, records.ObjectPath(BUCKET, result), {}, version_of(key))
