from __future__ import annotations

import base64
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import httpx
import numpy as np
import openai
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from support.aws_cli import require_cli
from support.live_server import PATIENCE_S, LiveServer, live_server
from support.synthetic_frames import talk
from support.video_files import make_image, make_video, make_wav, numbered_frames

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
QUEUE_SIZE = 3
SAGEMAKERS_PING_S = 2.0  # seconds that SageMaker waits for /ping


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def server(weights_cache: Path, s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    env = CREDENTIALS | {
        "AWS_ENDPOINT_URL_S3": s3_url,
        "VISEME_QUEUE_SIZE": str(QUEUE_SIZE),
        "VISEME_ALLOWED_BUCKETS": "clips,missing-bucket",
        "VISEME_DEADLINE_S": str(PATIENCE_S),  # a busy machine takes minutes for 16 s of video
    }
    with live_server(tmp_path_factory.mktemp("server"), env, "--aws-routes") as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


@pytest.fixture(scope="module")
def bucket(s3_url: str, talking_film: bytes) -> str:
    s3 = boto3.client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t"
    )
    s3.create_bucket(Bucket="clips")
    s3.create_bucket(Bucket="secret")
    s3.put_object(Bucket="clips", Key="uploads/my clip (1).mp4", Body=talking_film)
    return "clips"


@pytest.fixture(scope="module")
def long_video() -> bytes:
    """A video long enough to observe while it is read, and short enough for a busy machine to finish in time."""
    return make_video(talk(25) * 16, crf=30)


def error_of(response: httpx.Response) -> str:
    body = response.json()
    assert body["status"] == "error"
    assert set(body["error"]) == {"code", "message"}
    assert "Traceback" not in response.text
    return body["error"]["code"]


def test_ping_is_200_and_empty(client: httpx.Client):
    response = client.get("/ping")
    assert (response.status_code, response.content) == (200, b"")


def test_health_reports_what_the_worker_found(client: httpx.Client):
    found = client.get("/health").json()
    assert found["status"] == "ok"
    assert found["inference_ready"] is True
    assert found["capabilities"] == {"lipread": True, "lipsync": bool(found["sync_models"])}
    assert found["torch_version"]
    assert found["openvino_version"]
    assert found["device"] in ("cpu", "cuda")


def test_one_log_line_reports_readiness_and_hardware(server: LiveServer, client: httpx.Client):
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (ready,) = [line for line in lines if line["event"] == "viseme is ready"]
    health = client.get("/health").json()
    for name in ("torch_version", "openvino_version", "device", "gpu", "driver", "torch_cuda"):
        assert ready[name] == health[name]
    assert ready["level"] == "info"
    assert (ready["gpu"] is None) == (ready["device"] == "cpu")


def test_raw_video(client: httpx.Client, talking_film: bytes):
    response = client.post("/invocations", content=talking_film, headers={"content-type": "video/mp4"})
    assert response.status_code == 200
    found = response.json()
    assert found["status"] == "success"
    assert found["num_frames"] == 75
    assert found["fps"] == 25


def test_the_seeds_body_by_s3(client: httpx.Client, bucket: str):
    body = {"s3_bucket": bucket, "s3_video_key": "uploads/my clip (1).mp4", "fps": 25}
    found = client.post("/invocations", json=body).json()
    assert {"status", "text", "num_frames", "fps"} <= set(found)
    assert found["timings_ms"]["fetch"] > 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"s3_bucket": "clips", "s3_video_key": "nope.mp4"}, 404, "object_not_found"),
        ({"s3_bucket": "missing-bucket", "s3_video_key": "nope.mp4"}, 404, "object_not_found"),
        ({"s3_bucket": "secret", "s3_video_key": "nope.mp4"}, 403, "access_denied"),
    ],
)
def test_unavailable_objects(client: httpx.Client, bucket: str, body: dict, status: int, code: str):
    response = client.post("/invocations", json=body)
    assert response.status_code == status
    assert error_of(response) == code


@pytest.mark.parametrize("accept", ["text/plain", "text/vtt", "application/x-subrip"])
def test_media_types_of_the_answer(client: httpx.Client, talking_film: bytes, accept: str):
    response = client.post(
        "/invocations", content=talking_film, headers={"content-type": "video/mp4", "accept": accept}
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(accept)


def test_custom_attributes_and_request_ids_are_echoed(client: httpx.Client, talking_film: bytes):
    headers = {
        "content-type": "video/mp4",
        "x-amzn-sagemaker-custom-attributes": '{"face": "largest"}',
        "x-request-id": "abc-1",
    }
    response = client.post("/invocations", content=talking_film, headers=headers)
    assert response.headers["x-amzn-sagemaker-custom-attributes"] == '{"face": "largest"}'
    assert response.headers["x-request-id"] == "abc-1"
    assert len(client.post("/invocations", content=b"x").headers["x-request-id"]) == 32


def test_a_long_video_streams_while_it_is_read(client: httpx.Client, long_video: bytes):
    headers = {"content-type": "video/mp4", "accept": "application/x-ndjson"}
    with client.stream("POST", "/invocations", content=long_video, headers=headers) as response:
        assert response.status_code == 200
        lines = [json.loads(line) for line in response.iter_lines()]
    assert lines[-1]["status"] == "success"
    assert lines[-1]["num_frames"] == 400
    streamed = [word for line in lines[:-1] for word in line["words"]]
    assert all(line["status"] == "reading" for line in lines[:-1])
    assert streamed == lines[-1]["words"][: len(streamed)]


def test_metrics_count(client: httpx.Client):
    before = client.get("/metrics").text
    client.post("/invocations", content=b"x", headers={"content-type": "video/mp4"})
    after = client.get("/metrics").text
    name = 'viseme_requests_total{route="invocations",status="400"}'
    counts = [
        next((float(x.split()[-1]) for x in text.splitlines() if x.startswith(name)), 0.0) for text in (before, after)
    ]
    assert counts[1] == counts[0] + 1
    assert "viseme_ready 1.0" in after
    resident = dict(re.findall(r'viseme_resident_bytes{process="(\w+)"} (\S+)', after))
    assert float(resident["workers"]) > 50 * 2**20  # numpy and OpenVINO alone are more
    assert float(resident["server"]) > 20 * 2**20


def test_an_unknown_route_is_a_typed_404(client: httpx.Client):
    response = client.get("/nope")
    assert response.status_code == 404
    error_of(response)


def huge_header() -> bytes:
    png = bytearray(make_image(np.zeros((32, 32, 3), np.uint8)))
    at = png.index(b"IHDR")
    png[at + 4 : at + 12] = (20_000).to_bytes(4, "big") * 2
    png[at + 17 : at + 21] = zlib.crc32(bytes(png[at : at + 17])).to_bytes(4, "big")
    return bytes(png)


def png_bomb(side: int = 12_000) -> bytes:
    """Make a small file that decompresses to a very large image."""

    def chunk(kind: bytes, contents: bytes) -> bytes:
        return len(contents).to_bytes(4, "big") + kind + contents + zlib.crc32(kind + contents).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = zlib.compress(bytes(side * 3 + 1) * 200, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def malformed() -> list[tuple[str, bytes]]:
    """Return fifty invalid bodies, each with a content type."""
    whole = make_video(talk(10))
    mkv = make_video(numbered_frames(20), container="matroska")
    media = [
        *(whole[: int(len(whole) * share)] for share in (0.01, 0.05, 0.2, 0.5, 0.7, 0.9)),
        *(mkv[: int(len(mkv) * share)] for share in (0.02, 0.1, 0.4)),
        make_wav(),
        make_image(np.zeros((1, 1, 3), np.uint8)),
        make_image(np.zeros((64, 64, 3), np.uint8)),
        huge_header(),
        png_bomb(),
        make_video([np.full((64, 64, 3), 90, np.uint8)] * 5),
        b"just text",
        b"\0" * 1000,
        bytes(range(256)) * 20,
        b"#EXTM3U\nhttp://127.0.0.1:1/a.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"<?xml version='1.0'?><MPD/>",
        b"<html></html>",
        b"RIFF\0\0\0\0AVI ",
        b"\x1a\x45\xdf\xa3" + b"\xff" * 100,
        b"GIF89a" + b"\0" * 20,
    ]
    bodies = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"video"',
        b"{}",
        b"\xff\xfe\xfd",
        b"[" * 50_000,
        b'{"a":' * 20_000,
        b'{"video": "%%%"}',
        b'{"video": ""}',
        b'{"video": 5}',
        b'{"video": null}',
        b'{"video": "AAAA", "fps": 60}',
        b'{"video": "AAAA", "face": "x"}',
        b'{"video": "AAAA", "task": "sing"}',
        b'{"video": "AAAA", "colour": 1}',
        b'{"video": "AAAA"}',
        b'{"s3_bucket": "clips"}',
        b'{"s3_video_key": "a"}',
        b'{"s3_bucket": "clips", "s3_video_key": "../../etc/passwd"}',
        b'{"s3_bucket": 5, "s3_video_key": "a"}',
    ]
    others = [("text/html", whole)]
    return [("video/mp4", one) for one in media] + [("application/json", one) for one in bodies] + others


def cpu_s(server: LiveServer) -> float:
    """Return the CPU seconds of the server and all its processes so far, including those that ended."""
    parent = psutil.Process(server.process.pid)
    return sum(sum(one.cpu_times()[:4]) for one in [parent, *parent.children(recursive=True)])


def test_fifty_malformed_inputs_each_get_a_typed_4xx(
    server: LiveServer, client: httpx.Client, bucket: str, talking_film: bytes
):
    inputs = malformed()
    assert len(inputs) == 50
    for content_type, body in inputs:
        before = cpu_s(server)
        response = client.post("/invocations", content=body, headers={"content-type": content_type})
        assert 400 <= response.status_code < 500, (content_type, body[:40], response.text)
        error_of(response)
        assert cpu_s(server) - before < 5, (
            content_type,
            body[:40],
        )  # CPU time: waiting on a busy machine does not count
    good = client.post("/invocations", content=talking_film, headers={"content-type": "video/mp4"})
    assert good.status_code == 200


def test_a_body_over_25_mb_is_rejected(client: httpx.Client):
    response = client.post("/invocations", content=b"x" * (26 << 20), headers={"content-type": "video/mp4"})
    assert response.status_code == 413
    assert error_of(response) == "media_too_large"


def test_an_unknown_accept_is_rejected_before_the_work(client: httpx.Client, talking_film: bytes):
    headers = {"content-type": "video/mp4", "accept": "image/png"}
    response = client.post("/invocations", content=talking_film, headers=headers)
    assert response.status_code == 415


def watch(server: LiveServer, until: threading.Event, seen: list[tuple[int, float, int]]) -> None:
    """Ping until the event is set. seen: status, seconds, and memory of the server process."""
    parent = psutil.Process(server.process.pid)
    with server.client() as own:
        while not until.is_set():
            started = time.monotonic()
            status = own.get("/ping").status_code
            seen.append((status, time.monotonic() - started, parent.memory_info().rss))
            until.wait(0.02)


def test_two_hundred_at_once_are_answered_and_ping_goes_on(server: LiveServer, talking_film: bytes):
    large = talking_film + b"\0" * (24 << 20)  # data after a complete MP4 is ignored
    idle_bytes = psutil.Process(server.process.pid).memory_info().rss
    worker = server.worker().pid
    seen: list[tuple[int, float, int]] = []

    def ask(i: int) -> httpx.Response:
        with server.client() as own:
            return own.post("/invocations", content=large, headers={"content-type": "video/mp4"})

    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(server, done, seen))
    watcher.start()
    try:
        with ThreadPoolExecutor(40) as callers:
            answers = list(callers.map(ask, range(200)))
    finally:
        done.set()
        watcher.join(PATIENCE_S)
    assert {answer.status_code for answer in answers} == {200, 503}
    for refused in (answer for answer in answers if answer.status_code == 503):
        assert int(refused.headers["retry-after"]) > 0
        assert error_of(refused) == "overloaded"
    statuses, seconds, n_bytes = zip(*seen, strict=True)
    assert set(statuses) == {200}
    assert np.median(seconds) < SAGEMAKERS_PING_S  # bench/ measures the latency; a test machine may be busy
    assert max(n_bytes) - idle_bytes < 200 << 20  # 40 callers send 25 MB each; holding one body in memory would show
    assert server.worker().pid == worker


def in_thread(call) -> tuple[threading.Thread, list]:
    answers: list = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def post_video(server: LiveServer, contents: bytes) -> httpx.Response:
    with server.client() as own:
        return own.post("/invocations", content=contents, headers={"content-type": "video/mp4"})


def wait_until_at_work(server: LiveServer, before_s: float) -> None:
    """Wait until the worker is reading: it has used more CPU time than before (`work_s`)."""
    server.wait_until(lambda: work_s(server) > before_s + 0.1)


def work_s(server: LiveServer) -> float:
    return sum(server.worker().cpu_times()[:2])


def test_a_killed_worker_fails_only_its_request(server: LiveServer, long_video: bytes, talking_film: bytes):
    idle_s = work_s(server)
    thread, answers = in_thread(lambda: post_video(server, long_video))
    wait_until_at_work(server, idle_s)
    server.worker().send_signal(signal.SIGKILL)
    thread.join(PATIENCE_S)
    assert answers[0].status_code == 500
    assert error_of(answers[0]) == "worker_died"
    server.wait_until_ready()
    assert post_video(server, talking_film).status_code == 200


def test_a_disconnected_caller_frees_the_worker(
    server: LiveServer, client: httpx.Client, long_video: bytes, talking_film: bytes
):
    worker, idle_s = server.worker().pid, work_s(server)
    with socket.create_connection(("127.0.0.1", server.ready["port"])) as hasty:
        head = (
            f"POST /invocations HTTP/1.1\r\nhost: [::1]\r\ncontent-type: video/mp4\r\ncontent-length: {len(long_video)}"
        )
        hasty.sendall(head.encode() + b"\r\n\r\n" + long_video)
        wait_until_at_work(server, idle_s)
    assert post_video(server, talking_film).status_code == 200
    assert server.worker().pid == worker  # it dropped the job without being killed
    assert 'viseme_requests_total{route="invocations",status="499"}' in client.get("/metrics").text


def test_openais_own_client_reads_lips(server: LiveServer, talking_film: bytes):
    own = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)

    def file() -> tuple[str, io.BytesIO]:
        return ("clip.mp4", io.BytesIO(talking_film))

    plain = own.audio.transcriptions.create(model="whisper-1", file=file())
    verbose = own.audio.transcriptions.create(
        model="whisper-1", file=file(), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert verbose.text == plain.text
    assert verbose.duration == 3.0
    assert [word.word for word in verbose.words or []] == plain.text.split()
    assert own.audio.transcriptions.create(model="x", file=file(), response_format="vtt").startswith("WEBVTT")
    with pytest.raises(openai.BadRequestError, match=r"not a media file|looks like text"):
        own.audio.transcriptions.create(model="x", file=("a.mp4", io.BytesIO(b"nonsense")))


def test_boto3_invokes_it_as_an_endpoint(server: LiveServer, bucket: str):
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="t",
        aws_secret_access_key="t",
        config=Config(retries={"max_attempts": 0}),
    )
    body = json.dumps({"s3_bucket": bucket, "s3_video_key": "uploads/my clip (1).mp4", "fps": 25})
    answer = runtime.invoke_endpoint(
        EndpointName="viseme", ContentType="application/json", Body=body, CustomAttributes="trace=1"
    )
    assert json.loads(answer["Body"].read())["num_frames"] == 75
    assert answer["CustomAttributes"] == "trace=1"
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="viseme", ContentType="application/json", Body="{")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["OriginalStatusCode"] == 400


@pytest.mark.parametrize("major", [1, 2])
def test_the_aws_cli_invokes_it(major: int, server: LiveServer, bucket: str, tmp_path: Path):
    cli = str(require_cli(major))
    body = json.dumps({"s3_bucket": bucket, "s3_video_key": "uploads/my clip (1).mp4", "fps": 25})
    (tmp_path / "body.json").write_text(body)
    command = [cli, "sagemaker-runtime", "invoke-endpoint", "--endpoint-url", server.url, "--endpoint-name", "viseme"]
    command += ["--content-type", "application/json", "--body", f"fileb://{tmp_path}/body.json", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | CREDENTIALS, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "out").read_text())["num_frames"] == 75


def test_sigterm_in_the_middle_finishes_the_request(tmp_path: Path, weights_cache: Path):
    with live_server(tmp_path) as live:
        live.worker().send_signal(signal.SIGSTOP)  # keeps the request running while this test checks
        thread, answers = in_thread(lambda: post_video(live, make_video(talk(25))))
        live.wait_until(lambda: live.held() == 1)
        live.process.send_signal(signal.SIGTERM)
        live.wait_until(lambda: live.get("/ping").status_code == 503)
        refused = post_video(live, b"x")
        assert refused.status_code == 503
        assert error_of(refused) == "not_ready"
        live.worker().send_signal(signal.SIGCONT)
        thread.join(PATIENCE_S)
        assert answers[0].status_code == 200
        assert live.process.wait(PATIENCE_S) == 0


def test_a_second_sigterm_aborts_the_request_of_a_suspended_worker(tmp_path: Path, weights_cache: Path):
    with live_server(tmp_path, {"VISEME_DEADLINE_S": str(PATIENCE_S)}) as live:
        worker = live.worker()
        worker.send_signal(signal.SIGSTOP)
        callers = [in_thread(lambda: post_video(live, make_video(talk(5)))) for _ in range(2)]
        live.wait_until(lambda: live.held() == 2)
        live.process.send_signal(signal.SIGTERM)
        live.wait_until(lambda: live.get("/ping").status_code == 503)
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(PATIENCE_S) == 0
        assert "did not finish in time" not in live.log.read_text()  # it did not wait for the drain timeout
        for thread, _ in callers:
            thread.join(PATIENCE_S)
        errors = [(answers[0].status_code, error_of(answers[0])) for _, answers in callers]
        assert sorted(errors) == [(500, "worker_died"), (503, "not_ready")]
        assert not worker.is_running()


def test_an_invalid_setting_is_named_and_stops_the_start(tmp_path: Path):
    script = Path(sys.executable).parent / "viseme"
    run = subprocess.run(
        [script, "serve"], env=os.environ | {"VISEME_QUEUE_SIZE": "none"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "VISEME_QUEUE_SIZE='none'" in run.stderr


def test_the_images_entry_point_serves_and_ends_on_sigterm(tmp_path: Path, weights_cache: Path):
    serve = Path(__file__).parents[2] / "container" / "serve"
    env = {"SAGEMAKER_BIND_TO_PORT": "0", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with live_server(tmp_path, env, command=(str(serve),)) as live:
        assert live.ready["host"] == "0.0.0.0"
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(PATIENCE_S) == 0


def test_wrong_weights_end_the_start(tmp_path: Path, weights_cache: Path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>")
    with (
        pytest.raises(AssertionError, match="exit code 1") as caught,
        live_server(tmp_path, {"SM_MODEL_DIR": str(tmp_path)}),
    ):
        pass
    assert "HTML page" in str(caught.value)


def test_inline_base64(client: httpx.Client, talking_film: bytes):
    body = {"task": "lipread", "video": base64.b64encode(talking_film).decode(), "face": 0}
    assert client.post("/invocations", json=body).json()["status"] == "success"


def test_a_caller_that_disconnects_from_a_stream_frees_its_place(server: LiveServer, long_video: bytes):
    headers = {"content-type": "video/mp4", "accept": "application/x-ndjson"}
    with server.client() as own, own.stream("POST", "/invocations", content=long_video, headers=headers) as response:
        next(response.iter_lines())
    server.wait_until(lambda: server.held() == 0)


def test_the_soft_limit_of_open_files_is_raised():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines = (
        "import resource",
        "from container.server import raise_descriptor_limit",
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))",
        "raise_descriptor_limit()",
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])",
    )
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert int(run.stdout) == hard
