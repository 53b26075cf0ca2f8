"""Downloads of outputs and logs."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from support.job_server import JobServer, running_job_server
from support.local_s3 import running_s3

from inference.settings import Settings

BODY = bytes(range(256)) * 1000
URL = "/v1/jobs/{}/outputs/wav2lip+gan.mp4"


@pytest.fixture
def done(jobs: JobServer) -> dict[str, Any]:
    return jobs.wait_for(jobs.submit(BODY).json()["id"])


def test_an_output_is_sent_whole(jobs: JobServer, done: dict[str, Any]):
    (output,) = done["outputs"]
    assert output["url"] == URL.format(done["id"])
    assert (output["size"], output["sha256"], output["state"]) == (256_000, sha256(BODY).hexdigest(), "succeeded")
    assert output["details"] == {"num_frames": 75}
    answer = jobs.client.get(output["url"])
    assert answer.content == BODY
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["etag"] == f'"{output["sha256"]}"'
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''wav2lip%2Bgan.mp4"
    assert answer.headers["cache-control"] == "private, no-cache"
    head = jobs.client.head(output["url"])
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "256000", b"")


@pytest.mark.parametrize(
    ("wanted", "expected", "content_range"),
    [
        ("bytes=0-0", BODY[:1], "bytes 0-0/256000"),
        ("bytes=100-299", BODY[100:300], "bytes 100-299/256000"),
        ("bytes=255990-", BODY[255_990:], "bytes 255990-255999/256000"),
        ("bytes=-5", BODY[-5:], "bytes 255995-255999/256000"),
    ],
)
def test_a_range_is_sent(jobs: JobServer, done: dict[str, Any], wanted: str, expected: bytes, content_range: str):
    answer = jobs.client.get(URL.format(done["id"]), headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"] == content_range


def test_a_range_beyond_the_end_is_not_sent(jobs: JobServer, done: dict[str, Any]):
    answer = jobs.client.get(URL.format(done["id"]), headers={"range": "bytes=256000-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */256000")


def test_a_range_of_another_version_is_the_whole(jobs: JobServer, done: dict[str, Any]):
    url, etag = URL.format(done["id"]), f'"{sha256(BODY).hexdigest()}"'
    part = {"range": "bytes=0-9"}
    assert jobs.client.get(url, headers=part | {"if-range": etag}).content == BODY[:10]
    assert jobs.client.get(url, headers=part | {"if-range": '"another"'}).content == BODY


def test_a_known_output_is_not_sent_again(jobs: JobServer, done: dict[str, Any]):
    url, etag = URL.format(done["id"]), f'"{sha256(BODY).hexdigest()}"'
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = jobs.client.get(url, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert jobs.client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_a_log_is_sent(jobs: JobServer, done: dict[str, Any]):
    (attempt,) = done["attempts"]
    answer = jobs.client.get(attempt["log_url"])
    assert answer.text == "a line of the model\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "path", ["outputs/other.mp4", "outputs/..%2Finput", "outputs/input", "logs/2", "logs/0", "logs/01", "logs/input"]
)
def test_what_is_not_there_is_a_404(jobs: JobServer, done: dict[str, Any], path: str):
    answer = jobs.client.get(f"/v1/jobs/{done['id']}/{path}")
    assert answer.status_code == 404
    assert answer.json()["status"] == "error"


def test_a_running_job_has_no_outputs(jobs: JobServer):
    job = jobs.wait_for(jobs.submit(b"wait").json()["id"], "processing")
    answer = jobs.client.get(URL.format(job["id"]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "object_not_found")


@pytest.fixture
def bucket() -> Iterator[str]:
    """Yield the URL of an S3 with the bucket `jobs`."""
    with running_s3("jobs") as url:
        yield url


def test_an_output_in_s3_is_sent_from_there(settings: Settings, bucket: str):
    stored = settings.model_copy(update={"job_storage": "s3://jobs/files", "s3_endpoint_url": bucket})
    with running_job_server(stored) as jobs:
        done = jobs.wait_for(jobs.submit(BODY).json()["id"])
        answer = jobs.client.get(URL.format(done["id"]))
        assert answer.status_code == 307
        assert answer.headers["location"].startswith(bucket)
        assert httpx.get(answer.headers["location"]).content == BODY
        log = jobs.client.get(done["attempts"][0]["log_url"], follow_redirects=True)
        assert log.text == "a line of the model\n"
