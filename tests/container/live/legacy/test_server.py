"""Older clients over a real socket, with a tiny synthetic avatar under the name that they request."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import uvicorn
import websockets
from support.live_app import PATIENCE_S, LiveApp, live_app, make_settings
from websockets.asyncio.client import ClientConnection
from websockets.sync.client import connect

from container.app import Server
from container.http.pacing import Pacer
from container.live import avatar_cache as avatars_module
from container.live.legacy import server as legacy_module
from inference.avatar import AvatarPackage

MODEL = "sanders"
BOUNDS = struct.Struct("<I4f")


@pytest.fixture(scope="module")
def app(
    avatar_folder: Path, avatar_package: AvatarPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("old") / "avatars"
    folder.mkdir()
    (folder / MODEL).symlink_to(avatar_folder)
    server = Server(make_settings(folder, avatars=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatars_module, "load_package", lambda _name, _settings: SharedPackage(avatar_package))
        patch.setattr(legacy_module, "BROADCAST_INTERVAL_S", 24 * 3600.0)  # so that tests receive responses only
        patch.setattr(server.live.legacy, "_pacer", Pacer(rate=1e6, burst=1e6))
        with live_app(server) as running:
            yield running


class SharedPackage:
    """The loaded package, which no server closes."""

    def __init__(self, package: AvatarPackage) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)

    def close(self) -> None:
        pass


def request(app: LiveApp, *messages: str | bytes, path: str = "/ws") -> list[Any]:
    """Send messages on one connection, and return the response to each."""
    responses = []
    with connect(app.ws(path), open_timeout=PATIENCE_S, ping_interval=None, proxy=None) as connection:
        for message in messages:
            connection.send(message)
            response = connection.recv(PATIENCE_S)
            responses.append(json.loads(response) if isinstance(response, str) else response)
    return responses


def request_json(app: LiveApp, path: str = "/ws", **fields: Any) -> Any:
    return request(app, json.dumps(fields), path=path)[0]


def long_form(frame_id: int, audio: bytes = b"", name: bytes = MODEL.encode()) -> bytes:
    return struct.pack("<I", len(name)) + name + struct.pack("<II", frame_id, len(audio)) + audio


def short_form(frame_id: int, name: bytes = MODEL.encode()) -> bytes:
    return bytes([len(name)]) + name + struct.pack("<I", frame_id)


def parse_response(response: bytes) -> dict[str, Any]:
    """Parse a response to its last byte."""
    success, frame_id, took_ms, n = struct.unpack_from("<BIII", response)
    content, bounds_bytes = response[13 : 13 + n], response[13 + n :]
    assert len(content) == n
    if not success:
        assert (frame_id, bounds_bytes) == (0, b"")
        return {"success": 0, "error": content.decode()}
    n_bounds, *bounds = BOUNDS.unpack(bounds_bytes)
    assert n_bounds == 16
    return {"success": 1, "frame_id": frame_id, "took_ms": took_ms, "image": decode(content), "bounds": bounds}


def decode(jpeg: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.asarray(found)


def box_of(package: AvatarPackage, i: int) -> list[float]:
    box = package.box(i)
    return [box.left, box.top, box.right, box.bottom]


@pytest.mark.parametrize("path", ["/", "/ws"])
@pytest.mark.parametrize("message", [long_form(50), short_form(50)])
def test_a_frame_is_whole_and_composed(app: LiveApp, avatar_package: AvatarPackage, path: str, message: bytes):
    (raw,) = request(app, message, path=path)
    response = parse_response(raw)
    assert (response["success"], response["frame_id"]) == (1, 50)
    assert response["bounds"] == box_of(avatar_package, 50)
    assert response["image"].shape == (240, 320, 3)
    # One browser client maps the bounds in place as float32.
    assert (len(raw) - 16) % 4 == 0
    left, top, right, bottom = map(int, response["bounds"])
    difference = np.abs(response["image"].astype(int) - avatar_package.background(50)).mean(axis=2)
    assert difference[top:bottom, left:right].mean() > 12
    difference[top:bottom, left:right] = 0
    assert difference.mean() < 4


def test_audio_in_the_request_moves_the_mouth(app: LiveApp, avatar_package: AvatarPackage):
    rng = np.random.default_rng(5)
    audio = (rng.standard_normal(15_360) * 8000).astype("<i2").tobytes()  # 640 ms at 24 kHz
    silent, spoken, silent_too = (
        parse_response(one) for one in request(app, *(long_form(9, a) for a in (b"", audio, b"")))
    )
    assert np.array_equal(silent["image"], silent_too["image"])
    assert not np.array_equal(silent["image"], spoken["image"])
    response = request_json(app, model_name=MODEL, frame_id=9, audio_override=base64.b64encode(audio).decode())
    assert np.array_equal(decode(base64.b64decode(response["prediction_data"])), spoken["image"])
    assert response["metadata"]["audio"] == "request"


def test_json_responses_have_the_keys_that_clients_read(app: LiveApp, avatar_package: AvatarPackage):
    for fields in ({"model_name": MODEL, "frame_id": 3}, {"type": "inference", "model_name": MODEL, "frame_id": 3}):
        response = request_json(app, **fields)
        assert (response["success"], response["model_name"], response["frame_id"]) == (True, MODEL, 3)
        assert response["bounds"] == box_of(avatar_package, 3)
        assert response["prediction_shape"] == "240x320x3"
        assert response["processing_time_ms"] >= response["inference_time_ms"] > 0
        assert response["protocol"] == "json_fallback"
        assert response["request_id"] >= 1
        assert decode(base64.b64decode(response["prediction_data"])).shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model_name": "nobody"}, "avatar 'nobody': no such name; known: .*sanders"),
        ({}, "model_name 'None'"),
        ({"model_name": 7}, "model_name '7'"),
        ({"model_name": "../sanders"}, "no such name"),
        ({"model_name": MODEL, "frame_id": 75}, "frame 75 .*expected 0 to 74"),
        ({"model_name": MODEL, "frame_id": -1}, "frame_id '-1'"),
        ({"model_name": MODEL, "frame_id": True}, "frame_id 'True'"),
        ({"model_name": MODEL, "frame_id": 1.5}, "frame_id '1.5'"),
        ({"model_name": MODEL, "audio_override": "?"}, '"audio_override": not base64'),
        ({"model_name": MODEL, "audio_override": 5}, "audio_override of type int"),
        ({"model_name": MODEL, "audio_override": "AAAA"}, "audio of 3 bytes; expected 16-bit mono PCM at 24000"),
        ({"model_name": MODEL, "audio_override": "AAA="}, None),
        ({"model_name": MODEL, "audio_override": "data:audio/pcm;base64,AAA"}, None),
        ({"model_name": MODEL, "audio_override": "AAA=", "sample_rate": "x"}, "sample_rate 'x'"),
        ({"model_name": MODEL, "audio_override": "AAA=", "sample_rate": 10**400}, "sample_rate '1000"),
        ({"model_name": MODEL, "pad": "x" * legacy_module.MAX_JSON_CHARS}, "characters; expected at most"),
        ({"model_name": MODEL, "audio_override": "A" * 1_400_000}, "audio_override of 1400000 characters"),
        ({"type": "dance"}, "Unknown message type: dance"),
        ({"type": ["get_stats"]}, "Unknown message type"),
        ({"type": "get_metadata", "model_name": "nobody"}, "no such name"),
        ({"type": "get_model_stats"}, "model_name 'None'"),
        ({"type": "get_video_frame", "model_name": MODEL, "video_type": "nude"}, "video_type 'nude'"),
        ({"type": "get_video_frame", "model_name": MODEL, "frame_id": 99}, "frame 99"),
    ],
)
def test_invalid_requests_are_explained(app: LiveApp, fields: dict[str, Any], reason: str | None):
    response = request_json(app, **fields)
    assert response["success"] is (reason is None)
    if reason is not None:
        import re

        assert re.search(reason, response["error"]), response["error"]
        assert response["code"] in ("invalid_request", "avatar_not_found")


def test_text_that_is_not_a_request_gets_an_error(app: LiveApp):
    for text in ("", "{", "[1]", "[" * 5000, "\x00"):
        (response,) = request(app, text)
        assert response["success"] is False
        assert response["protocol"] == "json_fallback"


def test_an_unknown_model_is_an_error_not_another_model(app: LiveApp):
    for message in (long_form(0, name=b"default_model"), short_form(0, name="müller".encode()), bytes(12)):
        response = parse_response(request(app, message)[0])
        assert response["success"] == 0
        assert "no such name" in response["error"]


def test_recorded_requests_get_responses(app: LiveApp, shared: Path):
    recorded = json.loads((shared / "golden" / "protocol.json").read_text())
    for one in [*recorded["requests"], *recorded["responses"]]:
        if "request_hex" not in one and "hex" not in one:
            continue
        message = bytes.fromhex(one.get("request_hex") or one["hex"])
        if "request_hex" not in one and "form" not in one:
            continue  # a response without a recorded request
        (raw,) = request(app, message)
        response = parse_response(raw)
        model, frame_id = one.get("model"), one.get("frame_id")
        if model is not None:
            assert response["success"] == (model == MODEL and frame_id < 75)
        if response["success"]:
            assert raw[:5] == b"\x01" + struct.pack("<I", response["frame_id"])
        else:
            assert raw[:5] == bytes(5)


def test_counts_on_request(app: LiveApp):
    before = request_json(app, type="get_stats")
    request(app, short_form(1), short_form(2), json.dumps({"model_name": MODEL}))
    after = request_json(app, type="get_stats")
    assert after["type"] == "stats"
    assert after["binary_requests"] - before["binary_requests"] == 2
    assert after["json_requests"] - before["json_requests"] == 2
    assert after["total_requests"] == after["binary_requests"] + after["json_requests"]
    assert 0 < after["binary_percentage"] < 100
    assert after["average_time_ms"] > 0
    assert after["connected_clients"] == 1
    stats = request_json(app, type="get_model_stats", model_name=MODEL)["stats"]
    assert stats["frame_count"] == 75
    assert stats["total_requests"] >= 3
    assert 0 < stats["min_inference_time_ms"] <= stats["avg_inference_time_ms"] <= stats["max_inference_time_ms"]


def test_counts_are_broadcast_to_all_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(legacy_module, "BROADCAST_INTERVAL_S", 0.05)
    with (
        live_app(Server(make_settings(tmp_path))) as app,
        connect(app.ws("/"), ping_interval=None, proxy=None) as one,
        connect(app.ws("/"), ping_interval=None, proxy=None) as other,
    ):
        one.send(b"?")
        for connection in (one, other):
            response = connection.recv(PATIENCE_S)
            while isinstance(response, bytes):
                response = connection.recv(PATIENCE_S)
            assert json.loads(response)["binary_requests"] == 1


def test_models_and_their_metadata(app: LiveApp, avatar_package: AvatarPackage):
    models = request_json(app, type="get_models")
    assert models["type"] == "models"
    assert MODEL in models["models"]["loaded_models"]
    listed = request_json(app, type="list_models")
    assert (listed["type"], listed["count"]) == ("model_list", len(listed["models"]))
    about = request_json(app, type="get_metadata", model_name=MODEL)
    assert (about["type"], about["success"], about["frame_count"]) == ("metadata", True, 75)
    assert about["bounds"] == box_of(avatar_package, 0)
    assert "full_body" in about["available_videos"]


@pytest.mark.parametrize(
    ("video_type", "shape"),
    [
        ("full_body", (240, 320, 3)),
        ("face_regions", (328, 328, 3)),
        ("rois_320", (320, 320, 3)),
        ("masked_regions", (320, 320, 3)),
    ],
)
def test_frames_of_the_source_video(app: LiveApp, video_type: str, shape: tuple[int, ...]):
    fields = {"type": "get_video_frame", "model_name": MODEL, "frame_id": 12, "video_type": video_type}
    (raw,) = request(app, json.dumps(fields))
    kind, frame_id, n = struct.unpack_from("<BIB", raw)
    assert (kind, frame_id, raw[6 : 6 + n].decode()) == (2, 12, video_type)
    (n_jpeg,) = struct.unpack_from("<I", raw, 6 + n)
    image = decode(raw[10 + n :])
    assert len(raw) == 10 + n + n_jpeg
    assert image.shape == shape
    if video_type == "masked_regions":
        assert image[20:300, 20:300].max() < 16


def test_messages_are_paced_by_client(app: LiveApp, monkeypatch: pytest.MonkeyPatch):
    """Other clients are served between the messages of one that floods."""
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    monkeypatch.setattr(app.server.live.legacy, "_pacer", Pacer(lambda: 0.0, sleep, rate=10, burst=2))

    async def go() -> None:
        async with websockets.connect(app.ws("/ws"), ping_interval=None, proxy=None) as connection:
            for _ in range(5):
                await connection.send(json.dumps({"type": "get_model_stats"}))
                await connection.recv()

    asyncio.run(go())
    assert waits == pytest.approx([0.1, 0.2, 0.3])


def test_a_client_that_sends_nothing_is_disconnected(app: LiveApp, monkeypatch: pytest.MonkeyPatch):
    """It answers pings; one that asks for frames stays."""
    monkeypatch.setattr(legacy_module, "IDLE_TIMEOUT_S", 0.5)

    async def go() -> None:
        async with websockets.connect(app.ws("/ws"), ping_interval=None, proxy=None) as connection:
            for _ in range(4):
                await asyncio.sleep(0.2)
                await connection.send(json.dumps({"type": "get_models"}))
                await connection.recv()
            async with asyncio.timeout(PATIENCE_S):
                await connection.wait_closed()
            assert (connection.close_code, connection.close_reason) == (1001, "no message for 0.5 s")

    asyncio.run(go())
    assert app.server.live.legacy.stats()["connected_clients"] == 0


def test_a_client_that_answers_no_ping_is_disconnected(app: LiveApp, monkeypatch: pytest.MonkeyPatch):
    """As on every WebSocket route: it may be gone without a word."""
    config = app._http.config
    monkeypatch.setattr(config, "ws_ping_interval", 0.1)
    monkeypatch.setattr(config, "ws_ping_timeout", 0.1)
    lines = ("GET /ws HTTP/1.1", f"host: localhost:{app.port}", "connection: upgrade", "upgrade: websocket")
    key = ("sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-version: 13", "", "")
    with socket.create_connection(("127.0.0.1", app.port), PATIENCE_S) as silent:
        silent.sendall("\r\n".join((*lines, *key)).encode())
        assert b"".join(iter(lambda: silent.recv(1 << 16), b"")).startswith(b"HTTP/1.1 101 ")


def test_ten_thousand_random_messages_do_not_end_the_connection(app: LiveApp):
    """Each message gets a well-formed response, and the connection works as before."""
    rng = random.Random(20)
    messages = [noise(rng) for _ in range(10_000)]

    async def go() -> None:
        async with websockets.connect(app.ws("/ws"), ping_interval=None, proxy=None, max_queue=256) as connection:
            sending = asyncio.create_task(send_all(connection, messages))
            n_responses = 0
            while n_responses < len(messages):
                async with asyncio.timeout(PATIENCE_S):
                    response = await connection.recv()
                if isinstance(response, bytes):
                    parse_response(response)
                    n_responses += 1
            await sending
            await connection.send(short_form(3))
            response = await connection.recv()
            while isinstance(response, str):
                response = await connection.recv()
            assert parse_response(response)["success"] == 1

    asyncio.run(go())


async def send_all(connection: ClientConnection, messages: list[bytes]) -> None:
    for message in messages:
        await connection.send(message)


def noise(rng: random.Random) -> bytes:
    """Return random bytes, or a request with bytes changed, removed or added, or with a hostile length."""
    kind = rng.randrange(6)
    whole = long_form(rng.randrange(90), rng.randbytes(2 * rng.randrange(4))) if rng.random() < 0.5 else short_form(80)
    if kind == 0:
        return rng.randbytes(rng.randrange(64))
    if kind == 1:
        return whole[: rng.randrange(len(whole))]
    if kind == 2:
        return whole + rng.randbytes(1 + rng.randrange(8))
    if kind == 3:
        at = rng.randrange(len(whole))
        return whole[:at] + rng.randbytes(1) + whole[at + 1 :]
    at = rng.choice([0, 4, max(len(whole) - 4, 0)])
    return whole[:at] + struct.pack("<I", rng.choice([0xFFFFFFFF, 1 << 31, 1 << 24, 255, 256])) + whole[at + 4 :]


def test_the_legacy_ports(app: LiveApp):
    """Those that were 8084, 8085 and the proxy's 8086."""

    async def go() -> list[Any]:
        found: list[Any] = []
        for index in range(3):
            config = uvicorn.Config(app.server.live.legacy_app(index), port=0, log_config=None, lifespan="off")
            http = uvicorn.Server(config)
            serving = asyncio.create_task(http.serve())
            while not http.started:
                await asyncio.sleep(0.01)
            port = http.servers[0].sockets[0].getsockname()[1]
            found.append(await asyncio.to_thread(query_port, port))
            http.should_exit = True
            await serving
        return found

    (minimal, *_), (optimized, *_), (proxy, health) = asyncio.run(go())
    assert minimal == {
        "type": "protocol_info",
        "binary_supported": True,
        "binary_protocol_version": "1.0",
        "message": "Binary protocol available",
    }
    assert optimized["type"] == "protocol_info"
    assert proxy == {"type": "protocol_ack", "message": "Binary protocol supported"}
    assert health["healthy"] is True
    assert health["total_backends"] == health["healthy_count"] == 1
    assert health["backends"][0]["total_requests"] > 0


def query_port(port: int) -> list[Any]:
    with connect(f"ws://127.0.0.1:{port}/ws", ping_interval=None, proxy=None) as connection:
        connection.send('{"type": "switch_to_binary"}')
        response = json.loads(connection.recv(PATIENCE_S))
    health = httpx.get(f"http://127.0.0.1:{port}/health")
    return [response, health.json() if health.status_code == 200 else None]
