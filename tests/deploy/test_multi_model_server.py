"""The archive under the stock image's real server: Multi Model Server 1.1.11 and Hugging Face's toolkit 2.6.0.

One server answers most tests, another loads slowly meanwhile. `.ci/run` installs Java.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
from support.live_server import LiveServer, live_server
from support.stock_layer import Layer
from support.stock_server import Reply, StockServer, stock_server
from support.synthetic_frames import SENTENCE, talk
from support.video_files import make_image, make_video, make_wav

from container.cli import main
from inference.multi_model_server import SERVER_CLASS

JSON = "application/json"
LOAD_S = 65  # longer than SageMaker waits for an answer, 60 s, and than the server once waited for a load
PROBE = f"""
import time

def model_fn(model_dir, context=None):
    time.sleep({LOAD_S})
    return "loaded"

def input_fn(body, content_type, context=None):
    return int(body)

def predict_fn(data, model, context=None):
    return data

def output_fn(prediction, accept, context=None):
    return b"x" * prediction
"""


@pytest.fixture(scope="module")
def layer(stock: tuple[Layer, dict[str, tuple[str, str]]]) -> Layer:
    if shutil.which("java") is None:
        pytest.skip("Multi Model Server needs Java: apt-get install default-jre-headless")
    return stock[0]


@pytest.fixture(scope="module")
def slow(layer: Layer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockServer]:
    """Start a server whose model only takes its time, and answers with as many bytes as it is asked for."""
    model_dir = tmp_path_factory.mktemp("opt") / "model"
    (model_dir / "code").mkdir(parents=True)
    (model_dir / "code" / "probe_entry.py").write_text(PROBE)
    with stock_server(layer, model_dir, SAGEMAKER_PROGRAM="probe_entry.py") as server:
        yield server


@pytest.fixture(scope="module")
def server(slow: StockServer, layer: Layer, unpacked: Path) -> Iterator[StockServer]:
    with stock_server(layer, unpacked) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def ours(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Start Viseme's own server with the archive's weights."""
    with live_server(tmp_path_factory.mktemp("ours"), {"SM_MODEL_DIR": str(unpacked)}) as server:
        yield server


def words_of(answer: bytes) -> list[str]:
    found = json.loads(answer)
    assert found["text"] == " ".join(word["word"] for word in found["words"])
    return [word["word"] for word in found["words"]]


def test_the_same_clip_has_the_same_words_everywhere(
    server: StockServer, ours: LiveServer, talking_film: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "clip.mp4").write_bytes(talking_film)
    assert main(["read", str(tmp_path / "clip.mp4"), "--format", "json"]) == 0
    with ours.client() as client:
        own = client.post("/invocations", content=talking_film, headers={"content-type": "video/mp4"})
    stock = server.invoke(talking_film, "video/mp4")
    assert stock.status == own.status_code == 200
    words = words_of(stock.body)
    assert words == words_of(own.content) == words_of(capsys.readouterr().out.encode())
    assert words == SENTENCE.split()


def test_a_video_is_made(server: StockServer):
    face, audio = make_image(talk(1)[0]), make_wav(0.6)
    body = json.dumps({"task": "lipsync", "face": encode(face), "audio": encode(audio)}).encode()
    reply = server.invoke(body, JSON, Accept="video/mp4")
    assert (reply.status, reply.headers["content-type"]) == (200, "video/mp4"), reply.body[:500]
    with av.open(io.BytesIO(reply.body)) as video:
        assert sorted(stream.type for stream in video.streams) == ["audio", "video"]
        assert sum(1 for _ in video.decode(video=0)) == 15


@pytest.mark.parametrize(
    ("body", "content_type", "headers"),
    [
        (b"{}", JSON, {}),
        (b"{", JSON, {"Accept": "text/vtt"}),
        (b"", "video/mp4", {}),
        (b"\0\1\2 no video", "video/mp4", {}),
        (b"hello", "text/html", {}),
        (b"hello", None, {}),
        (b"a=1", "application/x-www-form-urlencoded", {}),
        (b'{"task": "sing"}', JSON, {}),
        (b'{"video": "%%%"}', JSON, {}),
        (b'{"video": "AAAA", "fps": 30}', JSON, {}),
        (b"a video", "video/mp4", {"Accept": "image/png"}),
        (b"a video", "video/mp4", {"X_Amzn_SageMaker_Custom_Attributes": '{"face": "x"}'}),
        (b'{"task": "lipsync", "face": "AAAA"}', JSON, {"Accept": "video/mp4"}),
    ],
)
def test_a_bad_request_gets_the_answer_of_our_own_server(
    server: StockServer, ours: LiveServer, body: bytes, content_type: str | None, headers: dict[str, str]
):
    stock = server.invoke(body, content_type, **headers)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        names["Content-Type"] = content_type
    with ours.client() as client:
        own = client.post("/invocations", content=body, headers=names)
    assert 400 <= own.status_code < 500
    assert (stock.status, stock.headers["content-type"]) == (own.status_code, own.headers["content-type"])
    assert json.loads(stock.body) == own.json()


def test_a_video_without_a_face(server: StockServer, ours: LiveServer):
    gray = make_video([frame * 0 + 128 for frame in talk(5, 160, 120)])
    stock = server.invoke(gray, "video/mp4")
    with ours.client() as client:
        own = client.post("/invocations", content=gray, headers={"content-type": "video/mp4"})
    assert (stock.status, json.loads(stock.body)) == (own.status_code, own.json())
    assert own.json()["error"]["code"] == "no_face_found"


def test_text_that_is_not_utf8_never_reaches_us(server: StockServer):
    """The toolkit decodes JSON itself: the status is ours by luck, the body is the server's."""
    reply = server.invoke(b'{"video": "\xff"}', JSON)
    assert reply.status == 400
    assert json.loads(reply.body)["type"] == "InternalServerException"


def test_a_caller_that_leaves_costs_nobody_a_model(server: StockServer, talking_film: bytes):
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        head = (
            f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: {len(talking_film)}"
        )
        caller.sendall(head.encode() + b"\r\n\r\n" + talking_film)
    assert server.invoke(talking_film, "video/mp4").status == 200
    assert server.log().count("viseme is ready") == 1


def test_more_callers_than_would_wait_are_refused(server: StockServer, talking_film: bytes):
    def call(_: int) -> Reply:
        return server.invoke(talking_film, "video/mp4")

    with ThreadPoolExecutor(14) as callers:  # eight wait, and one is read, if its worker took it in time
        replies = list(callers.map(call, range(14)))
    refused = [reply for reply in replies if reply.status != 200]
    assert 1 <= len(refused) <= 6
    assert {reply.status for reply in refused} == {503}
    assert {json.loads(reply.body)["type"] for reply in refused} == {"ServiceUnavailableException"}


def test_sigterm_closes_the_port_and_ends_the_worker(server: StockServer):
    server.terminate()
    server.wait_until(lambda: not server.is_open())
    server.wait_until(lambda: not [line for line in server.command_lines() if SERVER_CLASS in line])
    # What stays is killed with process 1: the entry point's sleep, and a process that has nothing loaded.
    server.wait_until(lambda: len(server.command_lines()) <= 2)


def test_a_failed_load_ends_the_container(layer: Layer, unpacked: Path):
    with stock_server(layer, unpacked, VISEME_PRECISION="f17") as server:
        server.wait_until(server.is_open)
        assert server.request("GET", "/ping").status == 200  # whatever the state of its models
        server.wait_until(lambda: server.process.poll() is not None)
        assert server.process.returncode != 0
        assert not server.is_open()
        last = "\n".join(server.log().splitlines()[-20:])  # as many as deploy.endpoint shows
        assert "viseme: the models cannot be loaded, so the model server is ended: InvalidRequest: VISEME_PREC" in last


def test_loading_may_take_longer_than_a_request(slow: StockServer):
    slow.wait_until_loaded()
    assert slow.invoke(b"5", "application/octet-stream").body == b"xxxxx"
    assert slow.log().count("model_service_worker started") == 1  # at the first attempt


def test_an_answer_of_20_megabytes(slow: StockServer):
    slow.wait_until_loaded()
    reply = slow.invoke(b"20000000", "application/octet-stream")
    assert (reply.status, len(reply.body)) == (200, 20_000_000)
    assert slow.invoke(b"1", "application/octet-stream").body == b"x"  # by the same worker
    assert slow.log().count("model_service_worker started") == 1


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
