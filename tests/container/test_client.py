"""The Python client, connected to real servers."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.certificates import make_pair
from support.live_app import LiveApp, live_app, make_settings
from support.rpc_server import Rpc, rpc_server

from container.app import Server
from container.client import FrameClient, LiveClient, RequestRejected, SessionEvent, rejection_of, split_chunks
from inference.settings import Settings

RATE = 16_000


@pytest.fixture(scope="module")
def guarded(avatar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(tmp_path_factory.mktemp("data"), avatars=avatar_folder.parent, token="sesame")


@pytest.fixture(scope="module")
def app(guarded: Settings) -> Iterator[LiveApp]:
    with live_app(Server(guarded)) as running:
        yield running


@pytest.fixture(scope="module")
def rpc(guarded: Settings) -> Iterator[Rpc]:
    with rpc_server(guarded) as running:
        yield running


@pytest.fixture
def client(app: LiveApp) -> Iterator[LiveClient]:
    with LiveClient(app.ws(""), "drawn", token="sesame") as opened:
        yield opened


@pytest.fixture
def frames(rpc: Rpc) -> Iterator[FrameClient]:
    with FrameClient(rpc.address, token="sesame", frames="patch") as opened:
        yield opened


def noise(n_samples: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n_samples) * 5000).astype(np.int16)


def decode_jpeg(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def join_pcm(frames: list) -> np.ndarray:
    return np.concatenate([np.frombuffer(frame.pcm, "<i2") for frame in frames])


def receive_forever(client: LiveClient) -> None:
    while True:
        client.receive()


# Sessions


def test_spoken_audio_is_returned_with_frames(client: LiveClient):
    assert client.ready.fields["avatar"] == "drawn"
    for n_samples in (5000, 640 * 8):
        pcm = noise(n_samples)
        spoken = list(client.speak(pcm))
        returned = join_pcm(spoken)
        assert np.array_equal(returned[:n_samples], pcm)
        assert not returned[n_samples:].any()
        assert len(returned) == -(-n_samples // 640) * 640
        assert [one.generation for one in spoken] == [0] * len(spoken)
        assert all(decode_jpeg(one.jpeg).shape == (one.h, one.w, 3) for one in spoken)


def test_whole_frames_at_another_rate(app: LiveApp):
    pcm = noise(24_000 // 5)
    with LiveClient(app.ws("/"), "drawn", token="sesame", frames="whole", sample_rate=24_000) as client:
        spoken = list(client.speak(pcm))
        assert np.array_equal(join_pcm(spoken), pcm)
        assert decode_jpeg(spoken[0].jpeg).shape == (client.ready.fields["height"], client.ready.fields["width"], 3)


def test_an_interrupt_ends_the_current_speech_only(client: LiveClient):
    spoken = []
    for frame in client.speak(noise(RATE * 60)):
        spoken.append(frame)
        if len(spoken) == 3:
            threading.Thread(target=client.interrupt).start()
    assert len(spoken) < 60 * 25
    client.interrupt()  # during silence
    pcm = noise(3000, seed=2)
    assert np.array_equal(join_pcm(list(client.speak(pcm)))[:3000], pcm)


def test_idle_frames_are_received_too(client: LiveClient):
    while isinstance(frame := client.receive(), SessionEvent):
        pass
    assert not frame.is_speaking
    client.send(noise(4000))
    client.flush()
    assert client.receive_event("speech_started").fields["frame"] > frame.frame
    assert client.receive_event("speech_finished").generation == 0


def test_rejections_carry_the_servers_code(app: LiveApp):
    for avatar, token, code in [("nobody", "sesame", "avatar_not_found"), ("drawn", "x", "access_denied")]:
        with pytest.raises(RequestRejected) as caught:
            LiveClient(app.ws(""), avatar, token=token)
        assert caught.value.code == code
    with pytest.raises(RequestRejected) as caught:
        LiveClient(app.ws(""), "drawn", token="sesame", sample_rate=1)
    assert caught.value.code == "invalid_request"
    assert "sample_rate" in str(caught.value)


def test_an_error_event_is_raised_and_the_session_continues(client: LiveClient):
    client._send_command("sing")
    with pytest.raises(RequestRejected, match="message of type 'sing'") as caught:
        client.receive_event("speech_started")
    assert caught.value.code == "invalid_request"
    assert len(list(client.speak(noise(640)))) == 1


def test_a_closed_session_raises(client: LiveClient):
    client._send_command("close")
    with pytest.raises(RequestRejected, match="the session is closed") as caught:
        receive_forever(client)
    assert caught.value.code == "closed"


def test_a_silent_server_times_out(client: LiveClient):
    client._timeout_s = 0.0
    with pytest.raises(TimeoutError):
        receive_forever(client)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 5}'])
def test_a_proxys_rejection_is_quoted(body: bytes):
    rejected = rejection_of(502, body)
    assert (rejected.code, str(rejected)) == ("refused", f"status 502: {body.decode()}")


# Single frames


def test_frames_by_number(frames: FrameClient, rpc: Rpc):
    package = rpc.package("drawn")
    assert frames.avatars() == ["drawn"]
    frame = frames.frame("drawn", 7)
    box = package.box(7)
    assert (frame.frame_id, frame.bounds) == (7, (box.left, box.top, box.right, box.bottom))
    assert decode_jpeg(frame.jpeg).shape == (box.height, box.width, 3)
    assert [one.frame_id for one in frames.stream("drawn", [7, 3, 7])] == [7, 3, 7]
    with FrameClient(rpc.address, token="sesame") as whole:
        assert decode_jpeg(whole.frame("drawn", 7).jpeg).shape == (package.height, package.width, 3)


@pytest.mark.parametrize("look_ahead", [6, 1, -1])
def test_batches_of_speech_join_without_a_seam(
    frames: FrameClient, rpc: Rpc, monkeypatch: pytest.MonkeyPatch, look_ahead: int
):
    """Batches give the same frames as a single request, however far the avatar's frames look ahead."""
    package = rpc.package("drawn")
    manifest = package._manifest.model_copy(update={"look_ahead_windows": look_ahead})
    monkeypatch.setattr(package, "_manifest", manifest)
    pcm = noise(31 * 640 - 100)
    monkeypatch.setattr("container.client.BATCH_FRAMES", 10)
    spoken = list(frames.speak("drawn", pcm, first=2))
    assert [one.frame_id for one in spoken] == list(range(2, 33))
    monkeypatch.setattr("container.client.BATCH_FRAMES", 40)
    assert [one.jpeg for one in frames.speak("drawn", pcm, first=2)] == [one.jpeg for one in spoken]
    quiet = list(frames.speak("drawn", np.zeros(31 * 640, np.int16), first=2))
    assert all(a.jpeg != b.jpeg for a, b in zip(spoken, quiet, strict=True))


def test_chunks_contain_the_speech_between_silence():
    chunks = split_chunks(np.arange(1, 1001, dtype=np.int16), 16_000)
    assert len(chunks) == 8 + 2 + 7 + 6
    whole = np.frombuffer(b"".join(chunks), "<i2")
    assert np.array_equal(np.flatnonzero(whole), np.arange(8 * 640, 8 * 640 + 1000))
    with pytest.raises(ValueError, match="sample rate 11024"):
        split_chunks(np.zeros(5, np.int16), 11_024)


def test_a_rejected_frame_raises(frames: FrameClient, rpc: Rpc):
    for call in (
        lambda: frames.frame("drawn", 75),
        lambda: list(frames.stream("drawn", [75])),
        lambda: list(frames.speak("drawn", noise(640 * 3), first=74)),
    ):
        with pytest.raises(RequestRejected, match="frame 75 of drawn"):
            call()
    with pytest.raises(RequestRejected) as caught, FrameClient(rpc.address, token="x") as stranger:
        stranger.avatars()
    assert caught.value.code == "access_denied"
    with pytest.raises(RequestRejected) as caught, FrameClient(rpc.address, token="x") as stranger:
        list(stranger.stream("drawn", [1]))
    assert caught.value.code == "access_denied"


def test_a_slow_response_times_out(frames: FrameClient, rpc: Rpc, monkeypatch: pytest.MonkeyPatch):
    resume, package = threading.Event(), rpc.package("drawn")
    generate = package.generate
    monkeypatch.setattr(package, "generate", lambda *given: (resume.wait(60), generate(*given))[1])
    frames._timeout_s = 0.2
    with pytest.raises(TimeoutError):
        frames.frame("drawn", 1)
    resume.set()


def test_an_unreachable_server():
    with FrameClient("127.0.0.1:1") as client, pytest.raises(RequestRejected) as caught:
        client.avatars()
    assert caught.value.code == "unavailable"
    with pytest.raises(OSError, match=r"refused|Connect"):
        LiveClient("ws://127.0.0.1:1")


def test_frames_over_tls(guarded: Settings, tmp_path: Path):
    pair = make_pair(tmp_path)
    with (
        rpc_server(guarded.model_copy(update={"tls_cert": pair.cert, "tls_key": pair.key})) as own,
        FrameClient(own.address, token="sesame", ca_file=pair.cert) as client,
    ):
        assert client.frame("drawn", 1).frame_id == 1


def test_a_session_over_tls(guarded: Settings, tmp_path: Path):
    pair = make_pair(tmp_path)
    with live_app(Server(guarded.model_copy(update={"tls_cert": pair.cert, "tls_key": pair.key}))) as own:
        url = f"wss://127.0.0.1:{own.port}"
        with LiveClient(url, "drawn", token="sesame", ca_file=pair.cert) as client:
            assert len(list(client.speak(noise(640)))) == 1
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            LiveClient(url, "drawn", token="sesame")


def test_a_client_loads_no_engine():
    """It must run on machines without one."""
    check = "import sys, container.client; print([m for m in ('torch', 'openvino', 'av', 'cv2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
