"""The hostile files are what they claim to be, in small sizes; the verdicts; and the cheap attacks on this server."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from support.live_app import LiveApp, live_app, make_settings

from bench import attack_callers, attack_files
from bench.attack import (
    ATTACKS,
    Outcome,
    Target,
    judge_bomb,
    judge_honest,
    judge_refused,
    line_of,
    run_attack,
)
from bench.attack_callers import Reply, ask, seconds_until_closed, unread_answers, websocket_status
from bench.attack_server import (
    AttackedServer,
    CountingStorage,
    DecoderWatch,
    checkout_env,
    command_of,
    cpu_seconds_of,
    descendants_of,
    peak_bytes_of,
)
from container.app import Server

BLOCK = attack_files.BLOCK_BYTES
MIB = 1 << 20


class OneServer:
    """What an attack takes of an `AttackedServer`."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log


class InProcessTarget(Target):
    """A target whose server runs in this process, without models."""

    def __init__(self, port: int, folder: Path, storage: CountingStorage) -> None:
        super().__init__(folder, folder, storage, seconds=0.5)
        (folder / "log").touch()
        self._one = OneServer(port, folder / "log")
        self.video = b"text"  # a command of the worker without models

    @property
    def server(self) -> AttackedServer:
        return self._one  # type: ignore[return-value]

    def settle(self) -> None:
        pass


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    with live_app(Server(make_settings(tmp_path_factory.mktemp("app")))) as running:
        yield running


@pytest.fixture
def target(app: LiveApp, tmp_path: Path) -> Iterator[Target]:
    with CountingStorage().running() as storage:
        yield InProcessTarget(app.port, tmp_path, storage)


def test_repeated_bytes_are_small_until_they_are_decompressed():
    stream = attack_files.compress_repeated(b"A", 3 * BLOCK - 5, prefix=b"xy")
    assert zlib.decompress(stream) == b"xy" + b"A" * 3 * BLOCK
    assert len(stream) < 3 * BLOCK / 900


def test_a_png_with_a_profile_has_one():
    png = attack_files.png_with_profile(BLOCK)
    with av.open(io.BytesIO(png)) as container:
        (frame,) = container.decode(video=0)
    assert (frame.width, frame.height) == (64, 64)
    at = png.index(b"iCCP")
    assert len(zlib.decompress(png[at + 4 + len(b"profile\0\0") : png.index(b"IDAT") - 8])) == BLOCK


def test_a_png_with_text_has_it():
    with av.open(io.BytesIO(attack_files.png_with_text(BLOCK))) as container:
        (frame,) = container.decode(video=0)
    assert frame.width == 64
    assert len(attack_files.png_with_text(BLOCK)) < BLOCK / 500


def test_an_mp3_with_a_tag_has_a_long_title():
    mp3 = attack_files.mp3_with_tag(BLOCK + 1)
    with av.open(io.BytesIO(mp3)) as container:
        assert container.metadata["title"] == "é" * BLOCK
        assert container.streams.audio
    assert len(mp3) < BLOCK / 100


def test_the_title_of_an_mp3_fits_its_length():
    assert attack_files.synchsafe(0x0FFFFFFF) == b"\x7f\x7f\x7f\x7f"
    assert attack_files.synchsafe(130) == b"\0\0\x01\x02"


def test_an_mp4_declares_samples_that_it_lacks():
    mp4 = attack_files.mp4_of_many_samples(1000)
    with av.open(io.BytesIO(mp4)) as container:
        assert container.streams.video[0].frames == 1000
    assert len(mp4) < 5000


def test_silence_in_opus_is_as_long_as_asked():
    ogg = attack_files.opus_of_silence(30)
    with av.open(io.BytesIO(ogg)) as container:
        n_samples = sum(frame.samples for frame in container.decode(audio=0))
    assert n_samples / 48000 == pytest.approx(30, abs=0.1)
    assert len(ogg) < 15_000


def test_an_encoded_video_has_its_frames():
    mp4 = attack_files.encode_video(128, 64, 5)
    with av.open(io.BytesIO(mp4)) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(128, 64)] * 5


def test_a_wav_has_its_length():
    with av.open(io.BytesIO(attack_files.make_wav(0.5))) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 8000


def test_weights_with_code_create_a_file_when_they_are_unpickled(tmp_path: Path):
    weights = attack_files.weights_with_code(tmp_path / "marker")
    assert not (tmp_path / "marker").exists()
    pickle.loads(weights)
    assert (tmp_path / "marker").exists()


def test_a_bomb_is_judged_by_its_time_and_memory():
    assert judge_bomb(Reply(400, b"", 4.9), 512 * MIB, 4.0, 1000).held
    assert not judge_bomb(Reply(400, b"", 5.1), 100 * MIB, 4.0, 1000).held
    assert not judge_bomb(Reply(400, b"", 0.1), 513 * MIB, 4.0, 1000).held
    assert not judge_bomb(Reply(0, b"", 0.1), 100 * MIB, 4.0, 1000).held
    assert (
        judge_bomb(Reply(413, b"", 0.5), MIB, 0.1, 2000).figure == "2 kB: 413 after 0.5 s; decoder 0.1 s of CPU, 1 MiB"
    )


def test_an_honest_caller_is_judged_by_the_slowest():
    assert judge_honest([0.5, 2.9]).held
    assert not judge_honest([0.5, 3.1]).held
    assert not judge_honest([0.5, None]).held


def test_a_refusal_is_403_everywhere_and_reaches_no_storage():
    assert judge_refused([403, 403]).held
    assert not judge_refused([403, 200]).held
    assert not judge_refused([403, 403], n_storage_requests=1).held


def test_a_line_has_name_verdict_figure_and_limit():
    assert line_of("rebinding", Outcome("status 403", "403", held=True)) == (
        "rebinding          held          status 403 (limit: 403)"
    )
    assert "did not hold" in line_of("rebinding", Outcome("status 200", "403", held=False))


def test_an_attack_that_breaks_is_not_held(target: Target, monkeypatch: pytest.MonkeyPatch):
    def fail(_target: Target) -> Outcome:
        raise OSError("no port")

    monkeypatch.setitem(ATTACKS, "rebinding", fail)
    outcome = run_attack("rebinding", target)
    assert not outcome.held
    assert "OSError: no port" in outcome.figure


def test_every_attack_says_what_it_does():
    assert all(attack.__doc__ for attack in ATTACKS.values())


def test_a_checkout_gets_no_settings_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VISEME_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "viseme" / "weights" / "mediapipe").mkdir(parents=True)
    env = checkout_env(tmp_path, tmp_path)
    assert "secret" not in env.values()
    assert env["TMPDIR"] == str(tmp_path / "tmp")
    assert (tmp_path / "data" / "weights" / "mediapipe").is_dir()


def test_a_watch_sees_the_memory_of_a_child():
    code = "import sys; block = b'x' * (64 << 20); sys.stdin.read()"
    command = [sys.executable, "-c", code, "inference.media"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.pid in descendants_of(os.getpid())
        while peak_bytes_of(child.pid) < 64 * MIB:
            assert child.poll() is None
        assert "inference.media" in command_of(child.pid)
        assert cpu_seconds_of(child.pid) >= 0
        with DecoderWatch(os.getpid()).running() as watch:
            pass
        assert child.stdin is not None
        child.stdin.close()
    assert watch.peak_bytes >= 64 * MIB
    assert peak_bytes_of(child.pid) == 0
    assert command_of(child.pid) == ""


def test_the_storage_counts_what_reaches_it():
    with CountingStorage().running() as storage:
        assert ask(storage.server_address[1], "GET", "/private/a.mp4").status == 404
        assert storage.requests == ["GET /private/a.mp4"]


def test_a_caller_that_gets_no_answer_has_status_0():
    with attack_callers.socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert ask(unused.getsockname()[1], "GET", "/ping").status == 0
        assert websocket_status(unused.getsockname()[1], "/") == 0


def test_headers_that_never_end_are_timed(app: LiveApp):
    assert seconds_until_closed(app.port, 0.0) is None


def test_answers_are_left_unread(app: LiveApp):
    with unread_answers(app.port, 2, b"video\n"):
        assert ask(app.port, "GET", "/ping").status == 200


@pytest.mark.parametrize("name", ["rebinding", "cross-site-form", "cross-site-socket", "long-index"])
def test_the_server_holds(name: str, target: Target):
    outcome = run_attack(name, target)
    assert outcome.held, line_of(name, outcome)


def test_noise_around_a_face_does_not_compress():
    face = attack_files.noisy_face(640, 360)
    with av.open(io.BytesIO(face)) as container:
        (frame,) = container.decode(video=0)
    pixels = frame.to_ndarray(format="bgr24").astype(np.float32)
    assert pixels.shape == (360, 640, 3)
    roughness = np.abs(np.diff(pixels, axis=0)).mean(axis=(0, 2))  # of each column
    assert roughness[:150].mean() > 5 * roughness[170:470].mean()
