"""Submitting jobs over HTTP."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.job_server import JobServer, running_job_server
from support.waiting import wait_until

from container.jobs import retry
from container.jobs.api import submissions
from container.jobs.api.callers import Caller
from container.jobs.api.submissions import SubmissionRules, read_submission
from container.jobs.records import NewJob, Submission
from container.jobs.repository import JobRepository
from inference.errors import InvalidRequest, StorageError
from inference.settings import Settings

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
JSON = {"content-type": "application/json"}
CALLER = Caller("192.0.2.1", "192.0.2.1", "192.0.2.1")
INLINE = {"video": base64.b64encode(b"a video").decode()}


def read(tmp_path: Path, body: bytes, rules: SubmissionRules | None = None, **headers: str):
    path = tmp_path / "body"
    path.write_bytes(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_submission(path, named, CALLER, "request-1", rules or SubmissionRules())


def input_folders(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_dir / "jobs" / "files").glob("*/*"))


def test_a_raw_video_becomes_a_job(tmp_path: Path):
    new = read(tmp_path, b"a video", content_type="video/mp4", x_amzn_sagemaker_custom_attributes='{"nbest": 3}')
    assert (new.task, new.outputs, new.input_bytes) == ("lipread", (), 7)
    assert (new.owner, new.client, new.request_id, new.idempotency_key) == ("192.0.2.1", "192.0.2.1", "request-1", None)
    assert new.headers == {"content-type": "video/mp4", "x-amzn-sagemaker-custom-attributes": '{"nbest": 3}'}


def test_outputs_of_lip_sync_are_expected_by_their_models(tmp_path: Path):
    fields = {"task": "lipsync", "face_url": "https://a.example/f.png", "audio": "YQ==", "models": ["b", "a", "b"]}
    new = read(tmp_path, json.dumps(fields).encode(), content_type="application/json")
    assert (new.task, new.outputs) == ("lipsync", ("b.mp4", "a.mp4"))


def test_the_fields_of_the_webhook_are_not_part_of_the_workers_request(tmp_path: Path):
    fields = INLINE | {"webhook_url": "https://hooks.example/a", "webhook_events": ["job.failed", "job.failed"]}
    new = read(
        tmp_path, json.dumps(fields).encode(), SubmissionRules(has_webhooks=True), content_type="application/json"
    )
    assert (new.webhook_url, new.webhook_events) == ("https://hooks.example/a", ("job.failed",))
    assert json.loads((tmp_path / "body").read_bytes()) == INLINE
    assert new.input_bytes == (tmp_path / "body").stat().st_size


def test_a_raw_body_has_its_webhook_in_headers(tmp_path: Path):
    headers = {"x_webhook_url": "https://hooks.example/a", "x_webhook_events": "job.failed, job.succeeded"}
    new = read(tmp_path, b"video", SubmissionRules(has_webhooks=True), content_type="video/mp4", **headers)
    assert (new.webhook_url, new.webhook_events) == ("https://hooks.example/a", ("job.failed", "job.succeeded"))


WRONG: dict[str, tuple[bytes, dict[str, str], str]] = {
    "an empty video": (b"", {"content_type": "video/mp4"}, "the body is empty"),
    "an option": (b"v", {"content_type": "video/mp4", "x_amzn_sagemaker_custom_attributes": '{"nbest": 0}'}, '"nbest"'),
    "a type": (b"v", {"content_type": "text/plain"}, "content type text/plain"),
    "not JSON": (b"{", {"content_type": "application/json"}, "not JSON"),
    "a field": (b'{"vidoe": ""}', {"content_type": "application/json"}, '"vidoe": no such field'),
    "a key": (b"v", {"content_type": "video/mp4", "idempotency_key": "a b"}, "Idempotency-Key: found 'a b'"),
    "a long key": (b"v", {"content_type": "video/mp4", "idempotency_key": "a" * 129}, "expected 1 to 128"),
    "an empty key": (b"v", {"content_type": "video/mp4", "idempotency_key": ""}, "expected 1 to 128"),
    "a private address": (
        b'{"video_url": "http://169.254.169.254/latest"}',
        {"content_type": "application/json"},
        '"video_url": 169.254.169.254: has an address that is not public',
    ),
    "a private address of the audio": (
        b'{"task": "lipsync", "face_url": "https://a.example/f.mp4", "audio_url": "http://[::ffff:10.0.0.1]/a.wav"}',
        {"content_type": "application/json"},
        '"audio_url": ::ffff:10.0.0.1: has an address',
    ),
    "no secret": (b"v", {"content_type": "video/mp4", "x_webhook_url": "https://a.example"}, "VISEME_WEBHOOK_SECRET"),
    "events alone": (b"v", {"content_type": "video/mp4", "x_webhook_events": "job.failed"}, 'expected "webhook_url"'),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistake_is_found_before_the_job_is_queued(kind: str, tmp_path: Path):
    body, headers, words = WRONG[kind]
    with pytest.raises(InvalidRequest, match=words):
        read(tmp_path, body, **headers)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"webhook_url": "ftp://a.example"}, "http or https"),
        ({"webhook_url": "http://10.0.0.1/hook"}, "not public"),
        ({"webhook_url": 7}, "expected a URL"),
        ({"webhook_url": "https://a.example", "webhook_events": ["job.started"]}, "expected some of job.succeeded"),
        ({"webhook_url": "https://a.example", "webhook_events": {"job.failed": 1}}, "expected some of job.succeeded"),
    ],
)
def test_a_wrong_webhook_is_named(fields: dict[str, object], words: str, tmp_path: Path):
    rules = SubmissionRules(has_webhooks=True)
    with pytest.raises(InvalidRequest, match=words):
        read(tmp_path, json.dumps(INLINE | fields).encode(), rules, content_type="application/json")


def test_large_json_is_left_to_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submissions, "MAX_PARSED_BYTES", 10)
    new = read(tmp_path, b'{"wrong": "but long"}', content_type="application/json")
    assert new.task == "unknown"
    assert (tmp_path / "body").read_bytes() == b'{"wrong": "but long"}'


def test_json_that_is_large_by_its_media_is_checked(tmp_path: Path):
    media = base64.b64encode(bytes(1 << 20)).decode()
    fields = {"task": "lipsync", "face": media, "audio": media, "models": ["a"]}
    body = json.dumps(fields).encode()
    new = read(tmp_path, body, content_type="application/json")
    assert (new.task, new.outputs, new.input_bytes) == ("lipsync", ("a.mp4",), len(body))
    assert (tmp_path / "body").read_bytes() == body
    with pytest.raises(InvalidRequest, match='"fase": no such field'):
        read(tmp_path, body.replace(b'"face"', b'"fase"'), content_type="application/json")


@pytest.mark.parametrize("n_before", range(1, 30))
def test_a_webhook_in_large_json_is_not_lost(n_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The field may lie across the pieces in which the body is read."""
    monkeypatch.setattr(submissions, "MAX_PARSED_BYTES", 16)
    fields = {"a" * n_before: "", "webhook_url": "https://a.example"}
    with pytest.raises(InvalidRequest, match="expected the header X-Webhook-Url"):
        read(tmp_path, json.dumps(fields).encode(), content_type="application/json")


def test_the_digest_covers_all_that_is_submitted(tmp_path: Path):
    rules = SubmissionRules(has_webhooks=True)
    kinds = {"content_type": "video/mp4"}
    digests = [
        read(tmp_path, b"v", rules, **kinds).request_sha256,
        read(tmp_path, b"w", rules, **kinds).request_sha256,
        read(tmp_path, b"v", rules, content_type="video/webm").request_sha256,
        read(tmp_path, b"v", rules, **kinds, x_amzn_sagemaker_custom_attributes='{"nbest": 3}').request_sha256,
        read(tmp_path, b"v", rules, **kinds, x_webhook_url="https://a.example").request_sha256,
    ]
    assert len(set(digests)) == 5
    assert read(tmp_path, b"v", rules, **kinds, user_agent="another").request_sha256 == digests[0]


def test_a_job_is_accepted_and_done(jobs: JobServer):
    accepted = jobs.submit(b"a video", x_request_id="mine-1")
    assert accepted.status_code == 202
    job = accepted.json()
    assert accepted.headers["location"] == f"/v1/jobs/{job['id']}" == job["urls"]["job"]
    assert (job["state"], job["progress"], job["result"], job["outputs"]) == ("queued", 0, None, [])
    done = jobs.wait_for(job["id"])
    assert (done["state"], done["progress"], done["request_id"]) == ("succeeded", 100, "mine-1")
    assert done["result"]["text"] == "BIN BLUE"
    assert jobs.pool.bodies == [b"a video"]
    (attempt,) = done["attempts"]
    assert (attempt["outcome"], attempt["ram_peak_mib"], attempt["vram_peak_mib"]) == ("succeeded", 812.5, None)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] < done["expires_at"]
    assert done["created_at"].endswith("Z")


def test_a_failed_job_has_its_error(jobs: JobServer):
    failed = jobs.wait_for(jobs.submit(b"fail").json()["id"])
    assert (failed["state"], failed["result"]) == ("failed", None)
    assert failed["error"] == {"code": "no_face_found", "message": "no face in any frame", "status": 400}


def test_a_mistake_is_a_400(jobs: JobServer, settings: Settings):
    answer = jobs.client.post("/v1/jobs", content=b'{"vidoe": 1}', headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert not (settings.data_dir / "jobs").exists()


def test_the_same_submission_is_the_same_job(jobs: JobServer, settings: Settings):
    first = jobs.submit(b"a video", idempotency_key="k-1")
    again = jobs.submit(b"a video", idempotency_key="k-1")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert jobs.submit(b"a video", idempotency_key="k-2").json()["id"] != first.json()["id"]
    assert len(input_folders(settings)) == 2
    other = jobs.submit(b"another video", idempotency_key="k-1")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len(input_folders(settings)) == 2


def test_of_equal_submissions_at_once_one_is_queued(jobs: JobServer, settings: Settings):
    jobs.client.get("/v1/jobs")  # the database exists
    barrier = threading.Barrier(6)

    def submit(_i: int) -> tuple[int, str]:
        barrier.wait()
        answer = jobs.submit(b"a video", idempotency_key="race")
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(submit, range(6)))
    assert sorted(status for status, _ in answers) == [200, 200, 200, 200, 200, 202]
    assert len({job_id for _, job_id in answers}) == 1
    jobs.wait_for(answers[0][1])
    assert input_folders(settings) == [answers[0][1]]
    assert jobs.pool.bodies == [b"a video"]


def test_a_record_that_fails_is_not_acknowledged(jobs: JobServer, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """The files are written first: without a record they belong to no job, and a repetition is a new job."""
    real = JobRepository.submit
    is_down = threading.Event()
    is_down.set()

    def submit(self: JobRepository, new: NewJob) -> Submission:
        if is_down.is_set():
            raise StorageError("the jobs database failed (disk I/O error)")
        return real(self, new)

    monkeypatch.setattr(JobRepository, "submit", submit)
    monkeypatch.setattr(retry, "DATABASE_RETRY_S", 0.0)
    answer = jobs.submit(b"a video", idempotency_key="k")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "storage_unavailable")
    is_down.clear()
    accepted = jobs.submit(b"a video", idempotency_key="k")
    assert accepted.status_code == 202
    assert jobs.wait_for(accepted.json()["id"])["state"] == "succeeded"


def test_a_full_queue_is_a_503(settings: Settings):
    with running_job_server(settings.model_copy(update={"job_queue_size": 1, "job_workers": 0})) as jobs:
        assert jobs.submit(b"one").status_code == 202
        refused = jobs.submit(b"two")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "5"
        assert len(input_folders(settings)) == 1


def test_a_webhook_is_recorded(settings: Settings):
    with running_job_server(settings.model_copy(update={"webhook_secret": SECRET, "job_workers": 0})) as jobs:
        fields = INLINE | {"webhook_url": "https://hooks.example/a", "webhook_events": ["job.failed"]}
        job = jobs.client.post("/v1/jobs", json=fields).json()
        assert (job["webhook_url"], job["webhook_events"]) == ("https://hooks.example/a", ["job.failed"])


def test_a_draining_server_accepts_no_jobs_but_shows_them(jobs: JobServer):
    job = jobs.wait_for(jobs.submit().json()["id"])
    jobs.server.drain()
    refused = jobs.submit()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert jobs.job(job["id"]) == job
    wait_until(lambda: jobs.server.n_in_flight == 0)


def test_a_digest_is_of_the_body_as_it_was_sent(tmp_path: Path):
    """A webhook in the body is taken out of it, but distinguishes the submissions."""
    rules = SubmissionRules(has_webhooks=True)
    with_webhook = json.dumps(INLINE | {"webhook_url": "https://a.example"}).encode()
    one = read(tmp_path, with_webhook, rules, content_type="application/json")
    two = read(tmp_path, json.dumps(INLINE).encode(), rules, content_type="application/json")
    assert one.request_sha256 != two.request_sha256
    assert replace(one, id=two.id, request_sha256="", webhook_url=None) == replace(two, request_sha256="")
