"""The client of the project, against the servers of the project."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_app import LiveApp, live_app, make_settings
from rpc_server import Rpc, rpc_server
from tls import make_pair

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


def voice(n_samples: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n_samples) * 5000).astype(np.int16)


def unpack(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def joined(frames: list) -> np.ndarray:
    return np.concatenate([np.frombuffer(frame.pcm, "<i2") for frame in frames])


def listen(client: LiveClient) -> None:
    while True:
        client.receive()


# Sessions


def test_what_is_said_comes_back_with_frames(client: LiveClient):
    assert client.ready.fields["avatar"] == "drawn"
    for n_samples in (5000, 640 * 8):
        pcm = voice(n_samples)
        said = list(client.speak(pcm))
        heard = joined(said)
        assert np.array_equal(heard[:n_samples], pcm)
        assert not heard[n_samples:].any()
        assert len(heard) == -(-n_samples // 640) * 640
        assert [one.generation for one in said] == [0] * len(said)
        assert all(unpack(one.jpeg).shape == (one.h, one.w, 3) for one in said)


def test_whole_frames_at_another_rate(app: LiveApp):
    pcm = voice(24_000 // 5)
    with LiveClient(app.ws("/"), "drawn", token="sesame", frames="whole", sample_rate=24_000) as client:
        said = list(client.speak(pcm))
        assert np.array_equal(joined(said), pcm)
        assert unpack(said[0].jpeg).shape == (client.ready.fields["height"], client.ready.fields["width"], 3)


def test_an_interrupt_ends_what_is_said_and_nothing_after_it(client: LiveClient):
    said = []
    for frame in client.speak(voice(RATE * 60)):
        said.append(frame)
        if len(said) == 3:
            threading.Thread(target=client.interrupt).start()
    assert len(said) < 60 * 25
    client.interrupt()  # into silence
    pcm = voice(3000, seed=2)
    assert np.array_equal(joined(list(client.speak(pcm)))[:3000], pcm)


def test_frames_come_in_silence_too(client: LiveClient):
    while isinstance(frame := client.receive(), SessionEvent):
        pass
    assert not frame.is_speaking
    client.send(voice(4000))
    client.flush()
    assert client.receive_event("speech_started").fields["frame"] > frame.frame
    assert client.receive_event("speech_finished").generation == 0


def test_refusals_carry_the_servers_code(app: LiveApp):
    for avatar, token, code in [("nobody", "sesame", "avatar_not_found"), ("drawn", "x", "access_denied")]:
        with pytest.raises(RequestRejected) as caught:
            LiveClient(app.ws(""), avatar, token=token)
        assert caught.value.code == code
    with pytest.raises(RequestRejected) as caught:
        LiveClient(app.ws(""), "drawn", token="sesame", sample_rate=1)
    assert caught.value.code == "invalid_request"
    assert "sample_rate" in str(caught.value)


def test_an_error_in_the_middle_is_raised_and_the_session_goes_on(client: LiveClient):
    client._send_command("sing")
    with pytest.raises(RequestRejected, match="message of type 'sing'") as caught:
        client.receive_event("speech_started")
    assert caught.value.code == "invalid_request"
    assert len(list(client.speak(voice(640)))) == 1


def test_a_session_that_is_over_says_so(client: LiveClient):
    client._send_command("close")
    with pytest.raises(RequestRejected, match="the session is closed") as caught:
        listen(client)
    assert caught.value.code == "closed"


def test_a_server_that_says_nothing_is_not_waited_for(client: LiveClient):
    client._timeout_s = 0.0
    with pytest.raises(TimeoutError):
        listen(client)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 5}'])
def test_a_proxy_that_refuses_is_told_as_it_is(body: bytes):
    refused = rejection_of(502, body)
    assert (refused.code, str(refused)) == ("refused", f"status 502: {body.decode()}")


# Single frames


def test_frames_by_their_number(frames: FrameClient, rpc: Rpc):
    package = rpc.package("drawn")
    assert frames.avatars() == ["drawn"]
    still = frames.frame("drawn", 7)
    box = package.box(7)
    assert (still.frame_id, still.bounds) == (7, (box.left, box.top, box.right, box.bottom))
    assert unpack(still.jpeg).shape == (box.height, box.width, 3)
    assert [one.frame_id for one in frames.stream("drawn", [7, 3, 7])] == [7, 3, 7]
    with FrameClient(rpc.address, token="sesame") as whole:
        assert unpack(whole.frame("drawn", 7).jpeg).shape == (package.height, package.width, 3)


def test_batches_of_speech_join_without_a_seam(frames: FrameClient, monkeypatch: pytest.MonkeyPatch):
    """What is said in batches is what is said in one."""
    pcm = voice(31 * 640 - 100)
    monkeypatch.setattr("container.client.BATCH_FRAMES", 10)
    said = list(frames.speak("drawn", pcm, first=2))
    assert [one.frame_id for one in said] == list(range(2, 33))
    monkeypatch.setattr("container.client.BATCH_FRAMES", 40)
    assert [one.jpeg for one in frames.speak("drawn", pcm, first=2)] == [one.jpeg for one in said]
    quiet = list(frames.speak("drawn", np.zeros(31 * 640, np.int16), first=2))
    assert all(a.jpeg != b.jpeg for a, b in zip(said, quiet, strict=True))


def test_chunks_hold_the_speech_with_silence_around_it():
    chunks = split_chunks(np.arange(1, 1001, dtype=np.int16), 16_000)
    assert len(chunks) == 8 + 2 + 7 + 6
    whole = np.frombuffer(b"".join(chunks), "<i2")
    assert np.array_equal(np.flatnonzero(whole), np.arange(8 * 640, 8 * 640 + 1000))
    with pytest.raises(ValueError, match="sample rate 11024"):
        split_chunks(np.zeros(5, np.int16), 11_024)


def test_a_frame_that_is_refused(frames: FrameClient, rpc: Rpc):
    for call in (
        lambda: frames.frame("drawn", 75),
        lambda: list(frames.stream("drawn", [75])),
        lambda: list(frames.speak("drawn", voice(640 * 3), first=74)),
    ):
        with pytest.raises(RequestRejected, match="frame 75 of drawn"):
            call()
    with pytest.raises(RequestRejected) as caught, FrameClient(rpc.address, token="x") as stranger:
        stranger.avatars()
    assert caught.value.code == "access_denied"
    with pytest.raises(RequestRejected) as caught, FrameClient(rpc.address, token="x") as stranger:
        list(stranger.stream("drawn", [1]))
    assert caught.value.code == "access_denied"


def test_an_answer_that_takes_too_long(frames: FrameClient, rpc: Rpc, monkeypatch: pytest.MonkeyPatch):
    going_on, package = threading.SessionEvent(), rpc.package("drawn")
    generate = package.generate
    monkeypatch.setattr(package, "generate", lambda *given: (going_on.wait(60), generate(*given))[1])
    frames._timeout_s = 0.2
    with pytest.raises(TimeoutError):
        frames.frame("drawn", 1)
    going_on.set()


def test_nobody_there():
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
            assert len(list(client.speak(voice(640)))) == 1
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            LiveClient(url, "drawn", token="sesame")


def test_a_client_loads_no_engine():
    """It is for other machines, too, which have none."""
    check = "import sys, container.client; print([m for m in ('torch', 'openvino', 'av', 'cv2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
