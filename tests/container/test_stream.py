"""Sessions over a real socket, with a tiny synthetic avatar."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import random
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest
import websockets
from support.live_app import LiveApp, live_app, make_settings
from support.waiting import PATIENCE_S, wait_until
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from container.app import Server
from container.live import avatar_cache as avatars_module
from container.live.frame_messages import PATCH, WHOLE, FrameMessage, unpack_frame
from container.live.transport import WEBSOCKET_CONFIG
from container.stream import AvatarServer
from inference.avatar import AvatarPackage
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise

SESSION = "/v1/avatars/drawn/session"
STREAM = "/invocations-bidirectional-stream"
SPOKEN_S = 0.6
LOAD = avatars_module.load_package


@pytest.fixture(scope="module")
def app(
    avatar_folder: Path, shared_package: AvatarPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveApp]:
    settings = make_settings(tmp_path_factory.mktemp("data"), avatars=avatar_folder.parent)
    with pytest.MonkeyPatch.context() as patch, live_app(Server(settings)) as running:
        patch.setattr(avatars_module, "load_package", lambda _name, _settings: shared_package)
        yield running


@pytest.fixture(scope="module")
def shared_package(avatar_package: AvatarPackage) -> AvatarPackage:
    """Return the loaded package, which no server closes."""
    shared_package = copy.copy(avatar_package)
    vars(shared_package)["close"] = lambda: None
    return shared_package


@pytest.fixture
def loaded(avatar_folder: Path, shared_package: AvatarPackage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the avatar's folder, for servers that share the loaded package."""
    monkeypatch.setattr(avatars_module, "load_package", lambda _name, _settings: shared_package)
    return avatar_folder


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Return 0.6 s of speech, which is not a whole number of frames."""
    samples = synthesise(SyntheticClip("BIN BLUE AT F TWO NOW", 3).speech, 3)[SYNTHESIS_RATE // 2 :][
        : round(SPOKEN_S * SYNTHESIS_RATE) + 7
    ]
    return np.rint(samples * 32_767).astype(np.int16)


class Client:
    """A client that parses and records messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.frames: list[FrameMessage] = []

    async def send_command(self, kind: str, **about: Any) -> None:
        await self.connection.send(json.dumps({"type": kind} | about))

    async def receive(self) -> dict[str, Any] | FrameMessage:
        async with asyncio.timeout(PATIENCE_S):
            message = await self.connection.recv()
        if isinstance(message, bytes):
            self.frames.append(unpack_frame(message))
            return self.frames[-1]
        self.events.append(json.loads(message))
        return self.events[-1]

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            found = await self.receive()
            if isinstance(found, dict) and found["type"] == kind:
                return found

    async def next_frame(self, *, is_speaking: bool | None = None) -> FrameMessage:
        while True:
            found = await self.receive()
            if isinstance(found, FrameMessage) and is_speaking in (None, found.is_speaking):
                return found

    async def until_closed(self) -> int:
        """Receive until the connection closes, and return the close code."""
        closed: websockets.Close | None = None
        while closed is None:
            try:
                await self.receive()
            except ConnectionClosed as err:
                closed = err.rcvd or websockets.Close(1006, "")
        return closed.code


@asynccontextmanager
async def session(app: LiveApp, path: str = SESSION, **options: Any) -> AsyncIterator[Client]:
    async with websockets.connect(
        app.ws(path), open_timeout=PATIENCE_S, ping_interval=None, proxy=None, **options
    ) as connection:
        yield Client(connection)


def test_avatars_are_listed(app: LiveApp):
    (drawn,) = [one for one in httpx.get(app.http("/v1/avatars")).json() if one["name"] == "drawn"]
    assert drawn == {"name": "drawn", "frames": 75, "fps": 25, "width": 320, "height": 240, "alpha": False}


def test_idle_frames_are_numbered_without_gaps(app: LiveApp):
    async def go() -> Client:
        async with session(app) as client:
            while len(client.frames) < 12:
                await client.receive()
            return client

    client = asyncio.run(go())
    ready = client.events[0]
    assert (ready["type"], ready["generation"], ready["avatar"], ready["width"]) == ("ready", 0, "drawn", 320)
    assert [frame.frame for frame in client.frames] == list(range(12))
    for frame in client.frames:
        assert (frame.kind, frame.is_speaking, frame.generation) == (PATCH, False, 0)
        assert frame.pts_ms == frame.frame * 40
        assert frame.pcm == bytes(2 * 640)
        assert image_of(frame).shape == (frame.h, frame.w, 3)
        assert frame.x + frame.w <= 320
        assert frame.y + frame.h <= 240


def test_frames_return_the_audio_byte_for_byte(app: LiveApp, speech: np.ndarray):
    audio = speech.tobytes()

    async def go() -> Client:
        async with session(app) as client:
            await client.until("ready")
            for i in range(0, len(audio), 1001):  # odd, so samples are split
                await client.connection.send(audio[i : i + 1001])
            await client.send_command("flush")
            await client.until("speech_finished")
            return client

    client = asyncio.run(go())
    spoken = [frame for frame in client.frames if frame.is_speaking]
    returned = b"".join(frame.pcm for frame in spoken)
    assert returned[: len(audio)] == audio
    assert returned[len(audio) :] == bytes(len(returned) - len(audio))
    assert len(returned) == 2 * 640 * -(-len(speech) // 640)
    assert [frame.frame for frame in client.frames] == list(range(len(client.frames)))
    started = next(event for event in client.events if event["type"] == "speech_started")
    assert started["frame"] == spoken[0].frame
    resting, moving = image_of(spoken[0]).astype(int), image_of(spoken[8]).astype(int)
    assert resting.shape != moving.shape or np.abs(resting - moving).max() > 0


def test_an_interrupt_drops_all_earlier_speech(app: LiveApp, speech: np.ndarray):
    async def go() -> tuple[Client, int]:
        async with session(app) as client:
            await client.connection.send(np.tile(speech, 8).tobytes())
            await client.next_frame(is_speaking=True)
            await client.send_command("interrupt")
            assert (await client.until("interrupted"))["generation"] == 1
            n_before = len(client.frames)
            for _ in range(10):
                await client.next_frame()
            await client.connection.send(speech.tobytes())
            await client.send_command("flush")
            await client.until("speech_finished")
            return client, n_before

    client, n_before = asyncio.run(go())
    later = client.frames[n_before:]
    assert {frame.generation for frame in later} == {1}
    assert not any(frame.is_speaking for frame in later[:10])
    assert b"".join(frame.pcm for frame in later if frame.is_speaking)[: 2 * len(speech)] == speech.tobytes()
    numbers = [frame.frame for frame in client.frames]
    assert numbers == sorted(set(numbers))


def test_whole_frames_are_composed(app: LiveApp, avatar_package: AvatarPackage, speech: np.ndarray):
    async def go(path: str) -> FrameMessage:
        async with session(app, path) as client:
            await client.connection.send(speech.tobytes())
            await client.send_command("flush")
            frames = [await client.next_frame(is_speaking=True) for _ in range(8)]
            return frames[-1]

    whole = asyncio.run(go(SESSION + "?frames=whole"))
    assert (whole.kind, whole.x, whole.y, whole.w, whole.h) == (WHOLE, 0, 0, 320, 240)
    patch = asyncio.run(go(SESSION + "?background=true"))
    box = avatar_package.box(patch.background)
    assert (patch.x, patch.y, patch.w, patch.h) == (box.left, box.top, box.width, box.height)
    # The two frames differ only by JPEG compression.
    own = image_of(whole).astype(int)[patch.y : patch.y + patch.h, patch.x : patch.x + patch.w]
    background = avatar_package.background(patch.background).astype(int)
    assert np.abs(own - image_of(patch)).mean() < 6
    assert np.abs(own - background[patch.y : patch.y + patch.h, patch.x : patch.x + patch.w]).mean() > 12
    outside = np.ones((240, 320), bool)
    outside[patch.y : patch.y + patch.h, patch.x : patch.x + patch.w] = False
    assert np.abs(image_of(whole).astype(int) - background)[outside].mean() < 4


def test_background_frames_over_http(app: LiveApp, avatar_package: AvatarPackage):
    response = httpx.get(app.http("/v1/avatars/drawn/background/7"))
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "public, no-cache"  # the avatar may be replaced
    tag = {"if-none-match": f'W/"another", {response.headers["etag"]}'}
    again = httpx.get(app.http("/v1/avatars/drawn/background/7"), headers=tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", response.headers["etag"])
    other = httpx.get(app.http("/v1/avatars/drawn/background/8"), headers=tag)
    assert other.status_code == 200
    assert other.headers["etag"] != response.headers["etag"]
    assert np.abs(decode(response.content).astype(int) - avatar_package.background(7)).mean() < 4
    assert httpx.get(app.http("/v1/avatars/drawn/background/75")).status_code == 400
    for alpha, message in (("1", "has no mattes"), ("2", "expected 0 or 1")):
        refused = httpx.get(app.http(f"/v1/avatars/drawn/background/7?alpha={alpha}"))
        assert refused.status_code == 400
        assert message in refused.json()["error"]["message"]
    assert httpx.get(app.http("/v1/avatars/nobody/background/0")).status_code == 404


@pytest.mark.parametrize("index", ["9" * 5000, "9" * 10, "-1", "1.5", "nan", "%D9%A1"])
def test_no_background_has_such_an_index(app: LiveApp, index: str):
    assert httpx.get(app.http(f"/v1/avatars/drawn/background/{index}")).status_code == 404


def test_a_background_is_encoded_once(app: LiveApp, monkeypatch: pytest.MonkeyPatch):
    first = httpx.get(app.http("/v1/avatars/drawn/background/21"))
    monkeypatch.setattr("container.stream.encode_video_frame", lambda *_: pytest.fail("encoded again"))
    again = httpx.get(app.http("/v1/avatars/drawn/background/21"))
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])


@pytest.mark.parametrize("forwarded", [{}, {"X-Forwarded-For": "192.0.2.1"}])
def test_a_client_has_a_limit_of_sessions(loaded: Path, tmp_path: Path, forwarded: dict[str, str]):
    settings = make_settings(tmp_path, avatars=loaded.parent, max_sessions_per_client=1, trusted_proxies=1)

    async def go(app: LiveApp) -> None:
        async with session(app, additional_headers=forwarded) as client:
            await client.until("ready")
            with pytest.raises(InvalidStatus) as caught:
                async with session(app, additional_headers=forwarded):
                    pass
            assert caught.value.response.status_code == 503
            assert json.loads(caught.value.response.body)["error"]["code"] == "overloaded"
            async with session(app, additional_headers={"X-Forwarded-For": "198.51.100.7"}) as other:
                await other.until("ready")
        await asyncio.to_thread(wait_until, lambda: app.server.live.n_sessions == 0)
        async with session(app, additional_headers=forwarded) as client:
            await client.until("ready")

    with live_app(Server(settings)) as app:
        asyncio.run(go(app))


def test_clients_elsewhere_have_a_limit_by_default(tmp_path: Path):
    here = AvatarServer(make_settings(tmp_path))
    assert [here.max_sessions_of(one) for one in ("192.0.2.1", "127.0.0.1", "::1")] == [16, None, None]
    assert AvatarServer(make_settings(tmp_path, on_sagemaker=True)).max_sessions_of("192.0.2.1") is None
    assert AvatarServer(make_settings(tmp_path, max_sessions_per_client=3)).max_sessions_of("127.0.0.1") == 3


def test_the_sample_rate_is_set_in_the_query_or_by_start(app: LiveApp, speech: np.ndarray):
    async def go(path: str, **start: Any) -> Client:
        async with session(app, path) as client:
            await client.until("ready")
            if start:
                await client.next_frame()
                await client.send_command("start", **start)
                await client.until("ready")
            await client.connection.send(speech.tobytes())
            await client.send_command("flush")
            await client.until("speech_finished")
            return client

    for client in (asyncio.run(go(SESSION + "?sample_rate=24000")), asyncio.run(go(SESSION, sample_rate=24_000))):
        assert client.events[-1]["type"] == "speech_finished"
        spoken = [frame for frame in client.frames if frame.is_speaking]
        assert {len(frame.pcm) for frame in spoken} == {2 * 960}
        assert b"".join(frame.pcm for frame in spoken)[: 2 * len(speech)] == speech.tobytes()
        numbers = [frame.frame for frame in client.frames]
        assert numbers == sorted(set(numbers))


def test_visemes_come_before_their_frames(app: LiveApp, speech: np.ndarray):
    async def go() -> list[dict[str, Any] | FrameMessage]:
        async with session(app, SESSION + "?visemes=1") as client:
            assert (await client.until("ready"))["visemes"] is True
            await client.connection.send(speech.tobytes())
            await client.send_command("flush")
            received: list[dict[str, Any] | FrameMessage] = []
            while not received or not (isinstance(received[-1], dict) and received[-1]["type"] == "speech_finished"):
                received.append(await client.receive())
            received += [await client.receive(), await client.receive()]
            return received

    received = asyncio.run(go())
    n_speaking = 0
    for one, following in pairwise(received):
        if isinstance(one, dict) and one["type"] == "visemes":
            assert isinstance(following, FrameMessage)
            assert (one["frame"], one["pts_ms"]) == (following.frame, following.pts_ms)
            n_speaking += following.is_speaking
            assert following.is_speaking or one["viseme"] == "sil"
    assert n_speaking == sum(isinstance(one, FrameMessage) and one.is_speaking for one in received)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no json", "invalid_request"),
        ("[1]", "invalid_request"),
        ('{"type": "dance"}', "invalid_request"),
        ('{"type": "start", "sample_rate": 5}', "invalid_request"),
        ('{"type": "start", "colour": "red"}', "invalid_request"),
        ('{"type": "flush", "a": "' + "b" * 5000 + '"}', "invalid_request"),
        ("[" * 4000, "invalid_request"),
        (bytes(2 * 16_000 * 125), "overloaded"),
    ],
)
def test_an_invalid_message_gets_an_error_and_the_session_continues(app: LiveApp, message: str | bytes, code: str):
    async def go() -> None:
        async with session(app) as client:
            await client.until("ready")
            await client.connection.send(message)
            error = await client.until("error")
            assert (error["code"], error["generation"]) == (code, 0)
            await client.next_frame()
            await client.send_command("close")
            assert await client.until_closed() == 1000

    asyncio.run(go())


def test_ten_thousand_random_messages_do_not_end_the_session(app: LiveApp):
    rng = random.Random(21)
    messages: list[str | bytes] = [rng.randbytes(rng.randrange(48)) for _ in range(9000)]
    messages += [rng.randbytes(rng.randrange(48)).decode("latin-1") for _ in range(1000)]
    rng.shuffle(messages)

    async def go() -> None:
        async with session(app) as client:
            await client.until("ready")
            sending = asyncio.create_task(send_all(client, messages))
            while sum(event["type"] == "error" for event in client.events) < 1000:
                await client.receive()
            await sending
            await client.send_command("interrupt")
            await client.until("interrupted")
            assert not (await client.next_frame()).is_speaking

    asyncio.run(go())


async def send_all(client: Client, messages: list[str | bytes]) -> None:
    for message in messages:
        await client.connection.send(message)


def test_a_hundred_idle_sessions_take_little_memory(app: LiveApp):
    """Less than a megabyte each, with both ends in this process."""

    async def go() -> int:
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(session(app))
            await first.until("ready")
            before = psutil.Process().memory_info().rss
            clients = [await stack.enter_async_context(session(app)) for _ in range(100)]
            for client in clients:
                await client.until("ready")
                for _ in range(3):
                    await client.next_frame()
            assert app.server.live.n_sessions == 101
            taken = psutil.Process().memory_info().rss - before
            # Concurrently: otherwise each would wait while the others still receive frames.
            await asyncio.gather(*(client.connection.close() for client in clients))
            return taken

    assert asyncio.run(go()) < 100 << 20
    wait_until(lambda: app.server.live.n_sessions == 0)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/avatars/nobody/session", 404),
        ("/v1/avatars/%2e%2e/session", 404),
        (SESSION + "?sample_rate=5", 400),
        (SESSION + "?colour=red", 400),
    ],
)
def test_invalid_requests_fail_the_handshake(app: LiveApp, path: str, status: int):
    async def go() -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with session(app, path):
                pass
        assert caught.value.response.status_code == status

    asyncio.run(go())


def test_a_hostile_length_is_rejected_before_buffering(app: LiveApp):
    one = handshake(app)
    one.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4))  # a binary message of a terabyte
    received = b""
    while chunk := one.recv(1 << 16):
        received += chunk
    assert b"\x03\xf1" in received  # 1009, message too big
    one.close()
    wait_until(lambda: app.server.live.n_sessions == 0)


def test_a_client_that_never_reads_delays_no_other(loaded: Path, tmp_path: Path, speech: np.ndarray):
    server = Server(make_settings(tmp_path, avatars=loaded.parent))
    server.live = AvatarServer(server.settings, stall_timeout_s=0.5)

    async def go(app: LiveApp) -> None:
        async with session(app) as client:
            await client.until("ready")
            stalled = handshake(app, SESSION + "?frames=whole")
            wait_until(lambda: app.server.live.n_sessions == 2)
            before = len(client.frames)
            while app.server.live.n_sessions == 2:
                await client.receive()
            frames = client.frames[before:]
            assert [b.frame - a.frame for a, b in pairwise(frames)] == [1] * (len(frames) - 1)
            stalled.close()

    with live_app(server) as app:
        asyncio.run(go(app))


def test_a_slow_client_loses_frames_but_no_audio(loaded: Path, tmp_path: Path, speech: np.ndarray):
    server = Server(make_settings(tmp_path, avatars=loaded.parent))
    long = np.tile(speech, 10)

    async def go(app: LiveApp) -> Client:
        # A small receive buffer, so that unread bytes soon stay at the server.
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", app.port))
        async with session(app, SESSION + "?frames=whole", sock=narrow, max_queue=1) as client:
            await client.until("ready")
            await client.connection.send(long.tobytes())
            await client.send_command("flush")
            await client.next_frame(is_speaking=True)
            await asyncio.sleep(3)
            await client.until("speech_finished")
            return client

    with live_app(server) as app:
        client = asyncio.run(go(app))
    spoken = [frame for frame in client.frames if frame.is_speaking]
    assert len(spoken) < len(long) // 640 - 10
    returned = b"".join(frame.pcm for frame in client.frames)
    assert strip_silence(returned) == strip_silence(long.tobytes())


def strip_silence(pcm: bytes) -> bytes:
    """Remove the silence at both ends."""
    samples = np.frombuffer(pcm, "<i2")
    (loud,) = np.nonzero(samples)
    return samples[loud[0] : loud[-1] + 1].tobytes()


def test_packages_are_added_and_removed_while_the_server_runs(
    avatar_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(avatars_module, "load_package", LOAD)
    folder = tmp_path / "avatars"
    folder.mkdir()
    server = Server(make_settings(tmp_path, avatars=folder))

    async def speak(app: LiveApp, during: Path | None = None) -> None:
        async with session(app, "/v1/avatars/new/session") as client:
            await client.until("ready")
            if during is not None:
                shutil.rmtree(during)
                wait_until(lambda: server.live.avatars.loaded_names == [])
            for _ in range(3):
                await client.next_frame()

    with live_app(server) as app:
        assert "new" not in [one["name"] for one in httpx.get(app.http("/v1/avatars")).json()]
        with pytest.raises(InvalidStatus):
            asyncio.run(speak(app))
        shutil.copytree(avatar_folder, folder / "new")
        (folder / "broken").mkdir()
        (folder / "broken" / "manifest.json").write_text("{}")
        names = [one["name"] for one in httpx.get(app.http("/v1/avatars")).json()]
        assert "new" in names
        assert "broken" not in names
        asyncio.run(speak(app, during=folder / "new"))
        with pytest.raises(InvalidStatus):
            asyncio.run(speak(app))


def test_a_package_that_cannot_be_loaded_ends_the_session_with_an_error(
    avatar_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(avatars_module, "load_package", LOAD)
    shutil.copytree(avatar_folder, tmp_path / "avatars" / "drawn")
    (tmp_path / "avatars" / "drawn" / "network.safetensors").write_bytes(b"none")

    async def go(app: LiveApp, path: str) -> list[Any]:
        async with session(app, path) as client:
            first = await client.receive()
            return [first, await client.until_closed()]

    with live_app(Server(make_settings(tmp_path, avatars=tmp_path / "avatars"))) as app:
        error, code = asyncio.run(go(app, SESSION))
        assert (error["type"], error["code"], code) == ("error", "invalid_request", 1011)
        assert "4 bytes" in error["message"]
        error, code = asyncio.run(go(app, STREAM + "?avatar=drawn"))
        assert error["ModelStreamError"]["ErrorCode"] == "invalid_request"


def test_every_route_requires_the_token(loaded: Path, tmp_path: Path):
    settings = make_settings(tmp_path, avatars=loaded.parent, token="open sesame")
    packed = base64.urlsafe_b64encode(b"open sesame").decode().rstrip("=")

    async def connect(app: LiveApp, path: str, **options: Any) -> str | None:
        async with session(app, path, **options) as client:
            await client.until("ready")
            return client.connection.subprotocol

    def status_of(app: LiveApp, path: str, **options: Any) -> int:
        with pytest.raises(InvalidStatus) as caught:
            asyncio.run(connect(app, path, **options))
        return caught.value.response.status_code

    with live_app(Server(settings)) as app:
        assert httpx.get(app.http("/v1/avatars")).status_code == 403
        header = {"Authorization": "Bearer open sesame"}
        assert httpx.get(app.http("/v1/avatars"), headers=header).status_code == 200
        background = httpx.get(app.http("/v1/avatars/drawn/background/0"), headers=header)
        assert background.headers["cache-control"].startswith("private")  # not for shared caches
        for path in (SESSION, STREAM + "?avatar=drawn"):
            assert status_of(app, path) == 403
            assert status_of(app, path, additional_headers={"Authorization": "Bearer open"}) == 403
            assert status_of(app, path, subprotocols=["viseme", "bearer.aaaaa"]) == 403
            asyncio.run(connect(app, path, additional_headers=header))
            assert asyncio.run(connect(app, path, subprotocols=["viseme", f"bearer.{packed}"])) == "viseme"


def test_avatars_are_not_listed_before_authentication(loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def list_packages() -> list[Any]:
        raise AssertionError("the avatars were listed, and the starter created")

    async def connect(app: LiveApp) -> None:
        async with session(app, STREAM):
            pass

    server = Server(make_settings(tmp_path, avatars=loaded.parent, token="open sesame"))
    monkeypatch.setattr(server.live.avatars, "list_packages", list_packages)
    with live_app(server) as app:
        with pytest.raises(InvalidStatus) as caught:
            asyncio.run(connect(app))
        assert caught.value.response.status_code == 403


def test_a_page_of_another_site_is_rejected(app: LiveApp):
    async def connect(origin: str) -> None:
        async with session(app, origin=origin) as client:
            await client.until("ready")

    asyncio.run(connect(f"http://127.0.0.1:{app.port + 1}"))
    with pytest.raises(InvalidStatus) as caught:
        asyncio.run(connect("https://evil.example"))
    assert caught.value.response.status_code == 403


def test_sagemaker_streams_have_a_time_limit(loaded: Path, tmp_path: Path):
    server = Server(make_settings(tmp_path, avatars=loaded.parent, on_sagemaker=True))
    server.live = AvatarServer(server.settings, max_stream_s=1.0)

    async def go(app: LiveApp) -> Client:
        async with session(app, STREAM) as client:  # uses the only avatar
            assert await client.until_closed() == 1001
            return client

    with live_app(server) as app:
        client = asyncio.run(go(app))
        assert client.events[0]["type"] == "ready"
        assert client.frames
        assert "limit of 1 s" in client.events[-1]["ModelStreamError"]["Message"]
        for path in ("/v1/avatars", "/v1/avatars/drawn/background/0"):
            assert httpx.get(app.http(path)).status_code == 404
        with pytest.raises(InvalidStatus):
            asyncio.run(open_session(app, SESSION))


async def open_session(app: LiveApp, path: str) -> None:
    async with session(app, path):
        pass


def test_on_sagemaker_realtime_opens_the_other_routes(loaded: Path, tmp_path: Path):
    settings = make_settings(tmp_path, avatars=loaded.parent, on_sagemaker=True, realtime=True)
    with live_app(Server(settings)) as app:
        assert app.server.live.avatars.loaded_names == ["drawn"]  # before the first client
        assert httpx.get(app.http("/v1/avatars")).status_code == 200
        asyncio.run(open_session(app, SESSION))


def test_a_draining_server_lets_sessions_finish_speaking(loaded: Path, tmp_path: Path, speech: np.ndarray):
    server = Server(make_settings(tmp_path, avatars=loaded.parent))

    async def go(app: LiveApp) -> tuple[Client, int]:
        async with session(app) as client:
            await client.connection.send(speech.tobytes())
            await client.send_command("flush")
            await client.next_frame(is_speaking=True)
            app.call(server.drain)
            return client, await client.until_closed()

    with live_app(server) as app:
        client, code = asyncio.run(go(app))
        assert code == 1012
        assert len([frame for frame in client.frames if frame.is_speaking]) == -(-len(speech) // 640)
        with pytest.raises(InvalidStatus):
            asyncio.run(open_session(app, SESSION))


def handshake(app: LiveApp, path: str = SESSION) -> socket.socket:
    """Open a WebSocket on a raw socket, which the test alone reads and writes."""
    one = socket.socket()
    one.settimeout(PATIENCE_S)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", app.port))
    head = [
        f"GET {path} HTTP/1.1",
        "host: localhost",
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-key: " + base64.b64encode(bytes(16)).decode(),
    ]
    one.sendall("\r\n".join([*head, "", ""]).encode())
    assert one.recv(12) == b"HTTP/1.1 101"
    return one


def decode(jpeg: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


def image_of(frame: FrameMessage) -> np.ndarray:
    return decode(frame.jpeg)


def test_pings_disconnect_silent_clients_but_not_sending_ones(
    loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: np.ndarray
):
    """Neither client responses the server's pings; one keeps sending."""
    monkeypatch.setitem(WEBSOCKET_CONFIG, "ws_ping_interval", 0.2)
    monkeypatch.setitem(WEBSOCKET_CONFIG, "ws_ping_timeout", 0.4)
    flush = b"\x81\x90" + bytes(4) + b'{"type":"flush"}'  # masked with zeros

    with live_app(Server(make_settings(tmp_path, avatars=loaded.parent))) as app:
        idle, sending = handshake(app), handshake(app)
        connections = app.server.live.connections
        wait_until(lambda: len(connections) == 2)
        give_up = time.monotonic() + PATIENCE_S
        while len(connections) == 2 and time.monotonic() < give_up:
            sending.sendall(flush)
            sending.recv(1 << 16)
            idle.recv(1 << 16)
        assert len(connections) == 1
        sending.sendall(flush)
        idle.close()
        sending.close()
