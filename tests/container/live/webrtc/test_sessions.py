"""Sessions over WebRTC: aiortc's client against the real server, over loopback."""

from __future__ import annotations

import asyncio
import copy
import gc
import sys
from collections.abc import Coroutine, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import pytest
from aiortc.mediastreams import MediaStreamTrack
from support.live_app import LiveApp, live_app, make_settings
from support.waiting import PATIENCE_S, wait_until
from support.whep_client import SDP, WhepClient, whep_session

from container import stream as stream_module
from container.app import Server
from container.live import avatar_cache as avatars_module
from inference.avatar import AvatarPackage

WHEP = "/v1/avatars/drawn/whep"
FRAGMENT = "application/trickle-ice-sdpfrag"
RATE, OPUS_RATE = 16_000, 48_000
QUIET = 200  # of 32768: what Opus makes of silence after speech


@pytest.fixture(scope="module")
def package(avatar_package: AvatarPackage) -> AvatarPackage:
    """Return the loaded package, which no server closes."""
    package = copy.copy(avatar_package)
    vars(package)["close"] = lambda: None
    return package


@pytest.fixture(scope="module")
def app(avatar_folder: Path, package: AvatarPackage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    settings = make_settings(tmp_path_factory.mktemp("data"), avatars=avatar_folder.parent)
    with pytest.MonkeyPatch.context() as patch, live_app(Server(settings)) as running:
        patch.setattr(avatars_module, "load_package", lambda _name, _settings: package)
        yield running


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    return (np.random.default_rng(4).standard_normal(round(seconds * rate)) * 6000).astype("<i2")


def loudness(frames: list[Any]) -> list[int]:
    """Return the peak of each packet of audio."""
    return [int(np.abs(frame.to_ndarray().astype(int)).max()) for frame in frames]


def has_spoken(peaks: list[int]) -> bool:
    return max(peaks, default=0) > 1000 and peaks[-1] <= QUIET


def played_ms(client: WhepClient, kind: str) -> int:
    """Return for how long a track has run, by its timestamps."""
    frames = client.frames[kind]
    return round(float((frames[-1].pts - frames[0].pts) * frames[0].time_base) * 1000)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def call(method: str, address: str, body: str = "", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        return await http.request(method, address, content=body, headers=headers)


def test_both_tracks_run_from_the_first_moment_on_one_clock(app: LiveApp):
    async def go() -> None:
        async with whep_session(app.http(WHEP)) as client:
            await client.until(lambda: len(client.frames["video"]) > 20)
            video, audio = client.frames["video"][:], client.frames["audio"][:]
            times_ms = [(frame.pts - video[0].pts) * 1000 // 90_000 for frame in video]
            assert all(time_ms % 40 == 0 for time_ms in times_ms)  # a busy machine drops frames, but moves none
            assert times_ms == sorted(set(times_ms))
            ticks = [frame.pts - audio[0].pts for frame in audio]
            assert all(tick % 960 == 0 for tick in ticks)
            assert ticks == sorted(set(ticks))
            await client.until(lambda: abs(played_ms(client, "audio") - played_ms(client, "video")) < 400)
            assert (video[0].width, video[0].height) == (320, 240)
            assert max(loudness(audio)) == 0
            assert client.events[0]["type"] == "ready"
            assert client.events[0]["frames"] == "whole"
            client.connection.createDataChannel("another")  # the server takes one only
            await client.until(lambda: not app.server.live.webrtc.peers)

    run(go())


def test_speech_by_the_data_channel_is_played_and_deleting_leaves_nothing(app: LiveApp):
    process = psutil.Process()

    def n_sockets() -> int:
        gc.collect()
        return len([one for one in process.net_connections("udp") if one.laddr])

    async def go() -> None:
        async with whep_session(f"{app.http(WHEP)}?sample_rate=24000") as client:
            await client.until_event("ready")
            client.channel.send(noise(0.8, 24_000).tobytes())
            client.send_command("flush")
            started = await client.until_event("speech_started")
            finished = await client.until_event("speech_finished")
            assert finished["frame"] - started["frame"] >= 20
            await client.until(lambda: has_spoken(loudness(client.frames["audio"])))
            loud = [one for one in loudness(client.frames["audio"]) if one > 1000]
            assert abs(len(loud) - 40) <= 4  # 0.8 s in packets of 20 ms
            assert client.opened is not None
            location = app.http(client.opened.headers["location"])
            assert (await call("DELETE", location.replace("drawn", "other"))).status_code == 404
            assert (await call("DELETE", location)).status_code == 200
            assert not app.server.live.webrtc.peers
            gone = await call("DELETE", location)
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "session_not_found")

    before = n_sockets()
    run(go())
    wait_until(lambda: n_sockets() <= before)
    assert app.server.live._admitted.total == 0


def test_visemes_come_by_the_data_channel(app: LiveApp):
    async def go() -> None:
        async with whep_session(f"{app.http(WHEP)}?visemes=1") as client:
            await client.until_event("ready")
            client.channel.send(noise(0.4, 16_000).tobytes())
            client.send_command("flush")
            finished = await client.until_event("speech_finished")
            await client.until(lambda: any(one.get("viseme") == "sil" for one in client.events))
            found = [one for one in client.events if one["type"] == "visemes"]
            assert [one["pts_ms"] for one in found] == [one["frame"] * 40 for one in found]
            assert [one["frame"] for one in found] == list(range(finished["frame"] - 10, finished["frame"] + 1))
            assert found[-1]["viseme"] == "sil"

    run(go())


def test_an_interrupt_ends_the_speech_of_both_tracks(app: LiveApp):
    async def go() -> None:
        async with whep_session(app.http(WHEP)) as client:
            await client.until_event("ready")
            client.channel.send(noise(2.0).tobytes())
            await client.until(lambda: max(loudness(client.frames["audio"][-3:]), default=0) > 1000)
            client.send_command("interrupt")
            assert (await client.until_event("interrupted"))["generation"] == 1
            n_before = len(client.frames["audio"])
            await client.until(lambda: len(client.frames["audio"]) > n_before + 40)
            assert max(loudness(client.frames["audio"][n_before + 20 :])) <= QUIET
            client.channel.send('{"type":"shout"}')
            assert "shout" in (await client.until_event("error"))["message"]
            for _ in range(200):
                client.channel.send('{"type":"shout"}')
            await client.until(lambda: sum(one["type"] == "error" for one in client.events) > 200)
            with pytest.raises(ValueError, match="65536"):  # as the answer says
                client.channel.send(bytes(65_537))
            client.channel.transport._remote_max_message_size = 0
            client.channel.send(bytes(65_537))
            await client.until(lambda: "65537 bytes" in client.events[-1].get("message", ""))
            client.send_command("close")
            await client.until(lambda: not app.server.live.webrtc.peers)

    run(go())


class NoiseTrack(MediaStreamTrack):
    """A microphone that records noise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._samples, self._n_sent = noise(0.5, OPUS_RATE), 0

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(0.02)
        start = self._n_sent % (len(self._samples) - 960)
        frame = av.AudioFrame.from_ndarray(self._samples[None, start : start + 960], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = OPUS_RATE, self._n_sent, Fraction(1, OPUS_RATE)
        self._n_sent += 960
        return frame


def test_a_microphone_speaks_and_the_client_may_request_h264(app: LiveApp):
    async def go() -> None:
        async with whep_session(app.http(WHEP), microphone=NoiseTrack(), codec="video/H264") as client:
            assert client.opened is not None
            assert "H264/90000" in client.opened.text
            await client.until_event("speech_started")
            await client.until(lambda: client.frames["video"] and max(loudness(client.frames["audio"][-3:])) > 1000)
            client.channel.send(noise(0.1).tobytes())
            assert "track" in (await client.until_event("error"))["message"]
        wait_until(lambda: not app.server.live.webrtc.peers)  # the client left without DELETE

    run(go())


def test_candidates_may_follow(app: LiveApp):
    async def go() -> None:
        client = WhepClient()
        offer = await client.make_offer()
        found = await call("POST", app.http(WHEP), offer, **{"content-type": SDP})
        location, etag = app.http(found.headers["location"]), found.headers["etag"]
        line = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
        headers = {"content-type": FRAGMENT, "if-match": etag}
        assert (await call("PATCH", location, f"a=mid:0\r\n{line}", **headers)).status_code == 204
        for body, changed, status, code in (
            (line * 64, {}, 400, "invalid_request"),
            ("a=candidate:1 1", {}, 400, "invalid_request"),
            ("a=ice-ufrag:other\r\n", {}, 400, "invalid_request"),
            (line, {"if-match": '"other"'}, 412, "precondition_failed"),
            (line, {"content-type": SDP}, 415, "unsupported_content_type"),
        ):
            found = await call("PATCH", location, body, **headers | changed)
            assert (found.status_code, found.json()["error"]["code"]) == (status, code)
        (opened,) = app.server.live.webrtc.peers.values()
        app.call(lambda: opened.peer.request_close("as after SIGTERM"))
        await client.until(lambda: not app.server.live.webrtc.peers)
        await client.close()

    run(go())


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code"),
    [
        (WHEP, {"content-type": "application/json"}, "{}", 415, "unsupported_content_type"),
        (WHEP, {}, "v=0\r\nm=", 400, "invalid_request"),
        (WHEP, {}, "v=0\r\n" + "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" * 65, 400, "invalid_request"),
        (WHEP, {}, "v=0\r\n" + "x" * (64 << 10), 413, "media_too_large"),
        (WHEP, {"origin": "https://other.example"}, "v=0\r\n", 403, "access_denied"),
        (WHEP, {"host": "other.example"}, "v=0\r\n", 403, "access_denied"),
        (f"{WHEP}?frames=patch", {}, None, 400, "invalid_request"),
        (f"{WHEP}?sample_rate=1", {}, None, 400, "invalid_request"),
        ("/v1/avatars/missing/whep", {}, None, 404, "avatar_not_found"),
    ],
)
def test_what_is_refused(app: LiveApp, path: str, headers: dict[str, str], body: str | None, status: int, code: str):
    async def go() -> None:
        client = WhepClient()
        offer = body if body is not None else await client.make_offer()
        found = await call("POST", app.http(path), offer, **{"content-type": SDP} | headers)
        assert (found.status_code, found.json()["error"]["code"]) == (status, code)
        await client.close()

    run(go())
    assert not app.server.live.webrtc.peers
    assert app.server.live._admitted.total == 0


def test_a_busy_server_and_one_without_the_package(app: LiveApp, monkeypatch: pytest.MonkeyPatch):
    def post() -> tuple[int, str]:
        found = httpx.post(app.http(WHEP), content="v=0\r\n", headers={"content-type": SDP})
        return found.status_code, found.json()["error"]["code"]

    with monkeypatch.context() as patch:
        patch.setattr(stream_module, "MAX_SESSIONS", 0)
        assert post() == (503, "overloaded")
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "container.live.webrtc.peer", raising=False)
        patch.delattr("container.live.webrtc.peer", raising=False)
        patch.setitem(sys.modules, "aiortc", None)
        assert post() == (501, "webrtc_unavailable")
    assert post() == (400, "invalid_request")


def test_the_token_the_ice_servers_and_a_client_that_never_connects(
    avatar_folder: Path, package: AvatarPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(avatars_module, "load_package", lambda _name, _settings: package)
    servers = "stun:stun.example.com:3478,turn:me:se%22cret@turn.example.com"
    settings = make_settings(tmp_path, avatars=avatar_folder.parent, token="key", ice_servers=servers)
    server = Server(settings)
    server.live.webrtc._setup_timeout_s = 0.2

    async def go() -> None:
        client = WhepClient()
        offer = await client.make_offer()
        with live_app(server) as app:
            denied = await call("POST", app.http(WHEP), offer, **{"content-type": SDP})
            assert denied.status_code == 403
            headers = {"content-type": SDP, "authorization": "Bearer key"}
            found = await call("POST", app.http(WHEP), offer, **headers)
            assert found.status_code == 201
            assert found.headers.get_list("link") == [
                '<stun:stun.example.com:3478>; rel="ice-server"',
                '<turn:turn.example.com>; rel="ice-server"; username="me"; credential="se\\"cret"; '
                'credential-type="password"',
            ]
            assert (await call("DELETE", app.http(found.headers["location"]))).status_code == 403
            await client.until(lambda: not server.live.webrtc.peers)
        await client.close()

    run(go())


def test_a_draining_server_ends_silent_sessions(
    avatar_folder: Path, package: AvatarPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(avatars_module, "load_package", lambda _name, _settings: package)
    server = Server(make_settings(tmp_path, avatars=avatar_folder.parent))

    async def go() -> None:
        with live_app(server) as app:
            async with whep_session(app.http(WHEP)) as client:
                await client.until_event("ready")
                assert server.live.n_sessions == 1
                app.call(server.drain)
                await client.until(lambda: server.live.n_sessions == 0)
                found = await call("POST", app.http(WHEP), "v=0\r\n", **{"content-type": SDP})
                assert (found.status_code, found.json()["error"]["code"]) == (503, "not_ready")

    run(go())
