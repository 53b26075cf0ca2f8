"""Containers of user input, and playback of the output in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest
from support.audio_files import encode_audio, make_tone
from support.quiet_http import QuietServer
from support.synthetic_frames import talk
from support.video_files import make_image, make_video

from inference.lip_sync import LipSyncer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FACE_S, VOICE_S, FPS = 3, 10.0, 25
PLAY = """async () => {
  const video = document.querySelector('video');
  await video.play();
  const start = video.currentTime;
  await new Promise(done => setTimeout(done, 1000));
  const later = video.currentTime;
  video.pause();
  video.currentTime = 9.5;
  await new Promise(done => video.onseeked = done);
  return {start, later, sought: video.currentTime, width: video.videoWidth, height: video.videoHeight,
          duration: video.duration, error: video.error && video.error.message,
          audioBytes: video.webkitAudioDecodedByteCount, frames: video.webkitDecodedFrameCount};
}"""


@pytest.fixture(scope="module")
def spoken(syncer: LipSyncer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of ten seconds of stereo audio over three seconds of face."""
    out = tmp_path_factory.mktemp("spoken") / "a video.mp4"
    voice = encode_audio(make_tone(VOICE_S, 44100, n_channels=2), 44100)
    result = syncer.sync(make_video(talk(FACE_S * FPS)), voice, output=out)
    assert (result.num_frames, result.fps, result.duration_s) == (250, 25, 10.0)
    return out


def test_ten_seconds_of_audio_make_250_frames(spoken: Path):
    with av.open(str(spoken)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    with av.open(str(spoken)) as container:
        stream = container.streams.audio[0]
        n_samples = sum(frame.samples for frame in container.decode(stream))
        audio_s = float(stream.duration * stream.time_base)
        assert (stream.rate, stream.layout.name, stream.codec_context.name) == (44100, "stereo", "aac")
        assert container.streams.video[0].codec_context.name == "h264"
    assert len(times) == 250
    assert np.allclose(np.diff(times), 0.04, atol=1e-3)
    video_s = times[-1] + 0.04 - times[0]
    assert abs(video_s - audio_s) <= 0.04
    assert abs(audio_s - VOICE_S) <= 0.04
    assert n_samples / 44100 == pytest.approx(VOICE_S, abs=0.05)


def test_the_index_precedes_the_frames(spoken: Path):
    """The video then plays while it is still downloading."""
    contents = spoken.read_bytes()
    assert 0 < contents.index(b"moov") < contents.index(b"mdat")


@pytest.fixture(scope="module")
def address(spoken: Path) -> Iterator[str]:
    (spoken.parent / "page.html").write_text('<video src="a%20video.mp4" muted></video>')
    server = QuietServer(("127.0.0.1", 0), partial(Ranged, directory=str(spoken.parent)))
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/page.html"
    server.shutdown()
    server.server_close()


class Ranged(SimpleHTTPRequestHandler):
    """Serves byte ranges, which browsers seek with."""

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        requested_range = self.headers.get("Range")
        if requested_range is None:
            super().do_GET()
            return
        contents = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = requested_range.removeprefix("bytes=").partition("-")
        part = contents[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(contents)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_plays_and_seeks(address: str):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            page.goto(address)
            found = page.evaluate(PLAY)
        finally:
            browser.close()
    assert found["error"] is None
    assert (found["width"], found["height"]) == (360, 288)
    assert found["duration"] == pytest.approx(VOICE_S, abs=0.05)
    assert found["later"] > found["start"]
    assert found["sought"] == pytest.approx(9.5, abs=0.05)
    assert found["frames"] > 0
    assert found["audioBytes"] > 0


@pytest.mark.parametrize("container", ["mp4", "webm", "mov", "mpeg"])
def test_faces_in_every_usual_container(syncer: LipSyncer, container: str):
    assert syncer.sync(make_video(talk(4), container=container), encode_audio(make_tone(0.2))).num_frames == 5


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_a_still_image(syncer: LipSyncer, codec: str):
    assert syncer.sync(make_image(talk(1)[0], codec), encode_audio(make_tone(0.2))).num_frames == 5


@pytest.mark.parametrize("container", ["wav", "mp3", "ipod", "ogg"])
def test_audio_in_every_usual_container(syncer: LipSyncer, container: str):
    result = syncer.sync(make_video(talk(2)), encode_audio(make_tone(0.4), container=container))
    assert result.num_frames == pytest.approx(10, abs=2)  # a lossy codec's first and last frames
