"""Lip sync on a real server, whose worker also reads lips."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer
from support.live_server import PATIENCE_S, LiveServer, live_server
from support.small_wav2lip import voice
from support.synthetic_frames import talk
from support.video_files import make_image, make_video

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BY_S3 = {
    "task": "lipsync",
    "s3_bucket": "media",
    "s3_video_key": "uploads/face.png",
    "s3_audio_key": "uploads/hello.wav",
    "s3_output_prefix": "results/",
}


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="t",
        aws_secret_access_key="t",
    )
    client.create_bucket(Bucket="media")
    client.put_object(Bucket="media", Key="uploads/face.png", Body=make_image(talk(1)[0]))
    client.put_object(Bucket="media", Key="uploads/hello.wav", Body=voice(0.4))
    yield client
    server.stop()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for the server's temporary files."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def server(
    checkpoints: list[Path], weights_cache: Path, s3: Any, scratch: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    env = CREDENTIALS | {
        "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url,
        "SM_MODEL_DIR": str(checkpoints[0].parent),
        "TMPDIR": str(scratch),
        "VISEME_ALLOWED_BUCKETS": "media",
    }
    with live_server(tmp_path_factory.mktemp("server"), env) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


def inline(face: bytes, audio: bytes, names: tuple[str, str] = ("face", "audio")) -> dict[str, str]:
    return {name: base64.b64encode(one).decode() for name, one in zip(names, (face, audio), strict=True)}


def left_over(scratch: Path) -> list[str]:
    return [path.name for path in scratch.iterdir() if path.name.startswith("viseme-")]


def test_health_reports_both_tasks(client: httpx.Client):
    found = client.get("/health").json()
    assert found["capabilities"] == {"lipread": True, "lipsync": True}
    assert found["sync_models"] == ["wav2lip", "wav2lip_gan"]


def test_from_s3_to_s3(server: LiveServer, client: httpx.Client, s3: Any, scratch: Path):
    headers = {"x-request-id": "job-7"}
    answer = client.post("/invocations", json=BY_S3 | {"models": ["wav2lip_gan", "wav2lip"]}, headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [one["model"] for one in found["outputs"]] == ["wav2lip_gan", "wav2lip"]
    for one in found["outputs"]:
        stored = s3.get_object(Bucket="media", Key=one["s3_key"])
        assert stored["ContentType"] == "video/mp4"
        assert httpx.get(one["url"], trust_env=False).content[4:8] == stored["Body"].read()[4:8] == b"ftyp"
    assert found["memory"]["ram_peak_mib"] > 100
    assert left_over(scratch) == []
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if '"video made"' in line]
    made = [(line["model"], line["frames"], line["request_id"]) for line in lines]
    assert made == [("wav2lip_gan", 10, "job-7"), ("wav2lip", 10, "job-7")]


def test_the_video_itself_is_sent_from_disk(server: LiveServer, client: httpx.Client, scratch: Path):
    body = {"task": "lipsync"} | inline(make_video(talk(10)), voice(0.4))
    answer = client.post("/invocations", json=body, headers={"accept": "video/mp4"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.content[4:8] == b"ftyp"
    assert int(answer.headers["content-length"]) == len(answer.content)
    server.wait_until(lambda: server.held() == 0)  # the client has the whole video shortly before the server deletes it
    assert left_over(scratch) == []


def test_a_generation(client: httpx.Client):
    body = inline(make_image(talk(1)[0]), voice(0.4), ("image", "audio"))
    found = client.post("/api/generate", json=body).json()
    assert (found["status"], found["num_frames"], found["duration_s"]) == ("success", 10, 0.4)
    assert base64.b64decode(found["video"])[4:8] == b"ftyp"
    itself = client.post("/api/generate", json=body, headers={"accept": "video/mp4"})
    assert itself.content == base64.b64decode(found["video"])  # the same input makes the same video


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (BY_S3 | {"s3_audio_key": "uploads/none.wav"}, 404, "object_not_found"),
        (BY_S3 | {"s3_output_prefix": "s3://secrets/out"}, 403, "access_denied"),
        ({name: value for name, value in BY_S3.items() if name != "s3_output_prefix"}, 400, "invalid_request"),
        ({"task": "lipsync"} | inline(make_image(talk(1)[0]), make_video(talk(3))), 400, "no_audio"),
        ({"task": "lipsync"} | inline(make_image(talk(1)[0]), voice(0)), 400, "no_audio"),
        ({"task": "lipsync"} | inline(make_image(talk(1)[0][:60, :60]), voice(0.2)), 400, "no_face_found"),
        ({"task": "lipsync"} | inline(b"<html>", voice(0.2)), 400, "unsupported_media"),
    ],
)
def test_failures_have_a_status_and_leave_nothing(
    client: httpx.Client, s3: Any, scratch: Path, body: dict[str, Any], status: int, code: str
):
    answer = client.post("/invocations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert left_over(scratch) == []
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="media")


def test_a_disconnected_caller_ends_the_work(server: LiveServer, client: httpx.Client, s3: Any, scratch: Path):
    worker = server.worker().pid
    s3.put_object(Bucket="media", Key="uploads/long.wav", Body=voice(600))
    body = json.dumps(BY_S3 | {"s3_audio_key": "uploads/long.wav"}).encode()
    head = f"POST /invocations HTTP/1.1\r\nhost: [::1]\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with socket.create_connection(("127.0.0.1", server.ready["port"]), timeout=PATIENCE_S) as hasty:
        hasty.sendall(head.encode() + b"\r\n\r\n" + body)
        server.wait_until(lambda: any(scratch.rglob("*.partial*")))  # it is writing the video
    server.wait_until(lambda: server.held() == 0)
    assert left_over(scratch) == []
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="media")
    assert server.worker().pid == worker  # it dropped the job without being killed
    assert 'viseme_requests_total{route="invocations",status="499"} 1.0' in client.get("/metrics").text


def test_the_same_server_reads_lips(client: httpx.Client, talking_film: bytes):
    headers = {"content-type": "video/mp4"}
    assert client.post("/invocations", content=talking_film, headers=headers).json()["num_frames"] == 75
    as_video = client.post("/invocations", content=talking_film, headers=headers | {"accept": "video/mp4"})
    assert as_video.json()["error"]["code"] == "unsupported_content_type"
