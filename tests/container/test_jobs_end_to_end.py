"""A job from its submission to its webhook, in a real server with real engines; S3 and the receiver are local."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer
from standardwebhooks import Webhook
from support.live_server import PATIENCE_S, LiveServer, live_server
from support.small_wav2lip import voice
from support.synthetic_frames import talk
from support.video_files import make_video
from support.waiting import wait_until
from sync import Sync
from sync.common import Audio, GenerationOptions, Video

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
VISEME = str(Path(sys.executable).parent / "viseme")
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
TOKEN = "a-token-of-the-test"


class OutsideServer(ThreadingHTTPServer):
    """Another party's server: it has files to fetch, and receives webhooks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), OutsideHandler)
        self.files: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.received: list[tuple[dict[str, str], bytes]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"


class OutsideHandler(BaseHTTPRequestHandler):
    server: OutsideServer

    def do_GET(self) -> None:
        self.server.fetched.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        # The first try fails, as receivers do; the next one is after 5 s.
        self.send_response(503 if len(self.server.received) == 1 else 204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@contextmanager
def outside_server() -> Iterator[OutsideServer]:
    with OutsideServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def outside() -> Iterator[OutsideServer]:
    with outside_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3(s3_url: str) -> Any:
    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_url, **names)
    client.create_bucket(Bucket="jobs")
    return client


@pytest.fixture(scope="module")
def server(
    weights_cache: Path, s3_url: str, s3: Any, outside: OutsideServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("server")
    env = AWS | {
        "AWS_ENDPOINT_URL_S3": s3_url,
        "VISEME_DATABASE_URL": f"sqlite:///{folder / 'jobs.sqlite3'}",
        "VISEME_JOB_STORAGE": "s3://jobs/files",
        "VISEME_ALLOWED_URL_HOSTS": outside.host,
        "VISEME_WEBHOOK_SECRET": SECRET,
        "VISEME_TOKEN": TOKEN,
    }
    with live_server(folder, env) as live:
        yield live


def run(server: LiveServer, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `viseme jobs` against the server."""
    environment = {"VISEME_URL": server.url, "VISEME_TOKEN": TOKEN, "PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1"}
    command = [VISEME, "jobs", *arguments]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert found.returncode == status, found.stderr + server.log.read_text()[-2000:]
    return found


def test_a_job_from_submission_to_webhook(
    server: LiveServer, outside: OutsideServer, s3: Any, talking_film: bytes, tmp_path: Path
):
    outside.files["/clip.mp4"] = talking_film
    options = ["--idempotency-key", "one", "--webhook", f"{outside.url}/hook", "--decoder", "grammar"]
    submitted = run(server, "submit", f"{outside.url}/clip.mp4", *options)
    job_id = submitted.stdout.strip()
    assert run(server, "submit", f"{outside.url}/clip.mp4", *options).stdout.strip() == job_id

    events = [json.loads(line) for line in run(server, "watch", job_id, "--json").stdout.splitlines()]
    assert [one["state"] for one in events if one["event"] == "state"] == [
        "queued",
        "starting",
        "processing",
        "succeeded",
    ]
    assert [one["id"] for one in events] == [str(i) for i in range(1, len(events) + 1)]

    record = json.loads(run(server, "show", job_id).stdout)
    assert (record["state"], record["progress"], record["attempt"]) == ("succeeded", 100, 1)
    text = record["result"]["text"]
    assert text
    streamed = [word["word"] for one in events if one["event"] == "words" for word in one["words"]]
    assert streamed in ([], text.split())
    assert run(server, "watch", job_id).stdout.split() == text.split()
    assert outside.fetched == ["/clip.mp4"]  # once, though it was submitted twice

    listed = [json.loads(line) for line in run(server, "list", "--state", "succeeded").stdout.splitlines()]
    assert [one["id"] for one in listed] == [job_id]
    assert "job done: transcript.txt, " in run(server, "show", job_id, "--log").stdout
    check_downloads(server, record, tmp_path / "made")
    stored = {one["Key"].split("/", 2)[2] for one in s3.list_objects_v2(Bucket="jobs")["Contents"]}
    assert {f"{job_id}/input", f"{job_id}/attempts/1/transcript.txt"} <= stored  # in the folder of the database
    check_webhook(outside, job_id, text)


def check_downloads(server: LiveServer, record: dict[str, Any], folder: Path) -> None:
    written = run(server, "download", record["id"], "-o", str(folder)).stdout.split()
    assert {Path(path).name for path in written} == {one["name"] for one in record["outputs"]} | {"result.json"}
    for output in record["outputs"]:
        assert hashlib.sha256((folder / output["name"]).read_bytes()).hexdigest() == output["sha256"]
    assert (folder / "transcript.txt").read_text().strip() == record["result"]["text"]
    assert json.loads((folder / "result.json").read_text()) == record["result"]


def check_webhook(outside: OutsideServer, job_id: str, text: str) -> None:
    """The first try failed, so there are two of one id; both verify by the library that receivers use."""
    wait_until(lambda: len(outside.received) == 2)
    ids = set()
    for headers, body in outside.received:
        payload = Webhook(SECRET).verify(body, headers)
        assert (payload["type"], payload["data"]["id"]) == ("job.succeeded", job_id)
        assert payload["data"]["result"]["text"] == text
        ids.add(headers["webhook-id"])
    assert len(ids) == 1


def test_a_generation_by_the_client_of_sync_so(server: LiveServer, outside: OutsideServer):
    outside.files |= {"/face.mp4": make_video(talk(10)), "/voice.wav": voice(0.8)}
    client = Sync(base_url=server.url, api_key=TOKEN).generations
    created = client.create(
        model="lipsync-2",
        input=[Video(url=f"{outside.url}/face.mp4"), Audio(url=f"{outside.url}/voice.wav")],
        options=GenerationOptions(sync_mode="loop"),
        webhook_url=f"{outside.url}/hook",
        output_file_name="spoken",
    )
    wait_until(lambda: client.get(created.id).status in ("COMPLETED", "FAILED", "REJECTED"))
    done = client.get(created.id)
    assert (done.status, done.error) == ("COMPLETED", None)
    assert done.model == "starter"
    assert done.output_url is not None
    assert TOKEN not in done.output_url
    video = httpx.get(done.output_url, follow_redirects=True, trust_env=False)  # to S3, where the files of jobs are
    with av.open(io.BytesIO(video.content)) as container:
        n_frames = sum(1 for _ in container.decode(video=0))
    assert n_frames == 20  # 0.8 s
    assert done.output_duration == pytest.approx(0.8)
    check_webhook_of_sync_so(outside, created.id)


def check_webhook_of_sync_so(outside: OutsideServer, generation_id: str) -> None:
    """Verify the webhook as https://sync.so/docs/api-reference/guides/webhooks does."""

    def found() -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for headers, body in outside.received if json.loads(body).get("id") == generation_id]

    wait_until(lambda: bool(found()))
    headers, body = found()[0]
    timestamp, signature = (part.partition("=")[2] for part in headers["sync-signature"].split(","))
    expected = hmac.new(SECRET.encode(), f"{timestamp}.{body.decode()}".encode(), hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signature, expected)
    payload = json.loads(body)
    assert (payload["status"], payload["outputFileName"]) == ("COMPLETED", "spoken")
    assert httpx.get(payload["outputUrl"], trust_env=False).status_code == 307


def test_a_private_address_that_is_not_allowed_is_never_fetched(server: LiveServer, talking_film: bytes):
    with outside_server() as other:
        other.files["/clip.mp4"] = talking_film
        assert "not public" in run(server, "submit", f"{other.url}/clip.mp4", status=2).stderr
        url = f"http://localhost:{other.server_port}/clip.mp4"
        job_id = run(server, "submit", url).stdout.strip()
        ended = run(server, "watch", job_id, status=2)
        assert "access_denied" in ended.stderr
        assert other.fetched == []
        refused = run(server, "download", job_id, "-o", "/nonexistent", status=2)
        assert "is failed; expected one that has succeeded" in refused.stderr


def test_jobs_are_for_those_who_have_the_token(server: LiveServer):
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/0/events")):
            assert client.request(method, path).status_code == 403
