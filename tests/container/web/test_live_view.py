"""The view Live in a real browser: video, audio, and their synchronisation."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import drop_refusals, element, needs_chromium, open_page, wait_for
from support.fake_espeak import write_fake_espeak
from support.live_app import LiveApp, live_app, make_settings
from support.waiting import wait_until

from container.app import Server
from container.live import avatar_cache as avatars_module
from container.live.connection import SERVICE_RESTART, CloseReason
from container.speech.synthesizer import SpeechSynthesizer
from inference.avatar import AvatarPackage

pytestmark = needs_chromium

RATE = 24_000
MAX_OFFSET_MS = 80
BURSTS_S = (0.3, 0.24, 0.42, 0.3, 0.18, 0.5, 0.36, 0.2, 0.26, 0.44, 0.3, 0.3)  # silence and noise in turn
LOUD_S = sum(BURSTS_S[1::2])
# Injected into the page. It records the loudness of the frame on the canvas, and of the output of the audio graph; and
# when each frame is drawn, and when the browser plays its 40 ms of audio, both by the audio's clock. `key`: the first
# samples that are not zero, by which a frame's audio is recognised.
RECORDER = """
delete window.RTCPeerConnection; // so that the session is a WebSocket: test_live_over_webrtc.py has the other
window.recorded = [], window.played = [], window.drawn = [];
const keyOf = (samples, scale) => Array.from(samples.filter((v) => v !== 0).slice(0, 32), (v) => v * scale).join();
const play = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  const begins = Math.max(when, this.context.currentTime) - offset, { duration } = this.buffer;
  const key = keyOf(this.buffer.getChannelData(0), 32768);
  window.played.push({ key, at: begins + duration - 0.04, seconds: duration - offset });
  play.call(this, when, offset);
};
document.addEventListener("shown", ({ detail }) => {
  if (!live?.player || !detail.isSpeaking) return;
  const { currentTime, outputLatency } = live.player.context;
  window.drawn.push({ key: keyOf(detail.samples, 1), at: currentTime - (outputLatency || 0) });
}, true);
let live = null;
import("/web/views/live.js").then((module) => { live = module.live; });
const loudness = (samples, scale) => Math.sqrt(samples.reduce((sum, v) => sum + (v / scale) ** 2, 0) / samples.length);
let shown = null, tap = null, tapped = null;
function record() {
  const player = live?.player;
  if (player && tapped !== player) {
    tapped = player;
    tap = player.context.createAnalyser();
    tap.fftSize = 1024;
    player.output.connect(tap);
    document.getElementById("canvas").addEventListener("shown", (event) => { shown = event.detail; });
  }
  if (tap && shown) {
    const now = new Float32Array(tap.fftSize);
    tap.getFloatTimeDomainData(now);
    window.recorded.push({
      outputLoudness: loudness(now, 1), frame: shown.frame,
      frameLoudness: loudness(shown.samples, 32768), isSpeaking: shown.isSpeaking,
    });
  }
  requestAnimationFrame(record);
}
requestAnimationFrame(record);
"""


@pytest.fixture(scope="module")
def app(
    avatar_folder: Path, avatar_package: AvatarPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveApp]:
    avatar_package_close, avatar_package.close = avatar_package.close, lambda: None  # type: ignore[method-assign]
    settings = make_settings(tmp_path_factory.mktemp("page"), avatars=avatar_folder.parent)
    with pytest.MonkeyPatch.context() as patch, live_app(Server(settings)) as running:
        patch.setattr(avatars_module, "load_package", lambda _name, _settings: avatar_package)
        yield running
    avatar_package.close = avatar_package_close  # type: ignore[method-assign]


@pytest.fixture
def page(browser: Any, app: LiveApp) -> Iterator[Any]:
    address = app.http("/#live").replace("127.0.0.1", "localhost")
    with open_page(browser, address, RECORDER) as page:
        wait_for(page, "document.querySelector('[data-testid=avatar]')?.options.length == 1")
        yield page


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of noise bursts whose rhythm does not repeat."""
    rng = np.random.default_rng(11)
    pieces = [rng.standard_normal(round(seconds * RATE)) * (6000 if i % 2 else 0) for i, seconds in enumerate(BURSTS_S)]
    path = tmp_path_factory.mktemp("audio") / "bursts.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.concatenate(pieces).astype("<i2").tobytes())
    return path


def start(page: Any) -> None:
    element(page, "start").click()
    wait_for(page, "window.recorded.length > 10")


def wait_for_state(page: Any, state: str) -> None:
    wait_for(page, f"document.querySelector('[data-testid=state]').textContent == '{state}'")


def test_every_part_of_the_page_has_a_test_id(page: Any):
    for name in ("room-live", "canvas", "start", "interrupt", "audio-input", "fps", "latency", "lost", "error"):
        assert element(page, name).count() == 1
    assert "localhost or over HTTPS" in page.inner_text("#hint")


def test_frames_move(page: Any):
    start(page)
    first = page.evaluate("document.getElementById('canvas').toDataURL()")
    assert page.evaluate("[canvas.width, canvas.height]") == [320, 240]
    wait_for(page, "document.getElementById('canvas').toDataURL() != value", first)
    wait_for(page, "Number(document.querySelector('[data-testid=fps]').textContent) > 0")
    assert element(page, "error").inner_text() == ""


def test_audio_and_video_are_in_step(page: Any, bursts: Path):
    """Both times are of the audio's clock, so that a busy machine delays both."""
    element(page, "audio-input").set_input_files(bursts)
    start(page)
    wait_for_state(page, "speaking")
    wait_for_state(page, "connected")
    wait_for(page, "window.recorded.at(-1).frame > window.recorded.findLast((one) => one.isSpeaking).frame + 5")
    played, drawn = page.evaluate("[window.played, window.drawn]")
    assert sum(one["seconds"] for one in played) > 0.9 * LOUD_S  # a frame that came late is cut
    played_at = {one["key"]: one["at"] for one in played}
    offsets_ms = [1000 * (one["at"] - played_at[one["key"]]) for one in drawn if one["key"]]
    assert len(offsets_ms) > 10
    assert np.percentile(np.abs(offsets_ms), 90) <= MAX_OFFSET_MS
    assert max(one["outputLoudness"] for one in page.evaluate("window.recorded")) > 0.05
    assert "ms" in element(page, "latency").inner_text()


def test_a_text_is_spoken_by_the_servers_synthesiser(page: Any, app: LiveApp, tmp_path: Path):
    app.server.speech = SpeechSynthesizer(str(write_fake_espeak(tmp_path)))
    page.reload()
    element(page, "say-text").fill("Hello <b>you</b>")
    assert element(page, "say").is_disabled()
    start(page)
    wait_for_state(page, "connected")
    element(page, "say-language").select_option("en-us")
    element(page, "say").click()
    wait_for_state(page, "speaking")
    wait_for(page, "window.recorded.some((one) => one.isSpeaking && one.frameLoudness > 0)")
    assert element(page, "error").inner_text() == ""


def test_an_interrupt_silences_the_page_at_once(page: Any, bursts: Path):
    element(page, "audio-input").set_input_files(bursts)
    start(page)
    wait_for(page, "window.recorded.at(-1).isSpeaking && window.recorded.at(-1).outputLoudness > 0.01")
    element(page, "interrupt").click()
    wait_for(page, "!window.recorded.at(-1).isSpeaking && window.recorded.at(-1).outputLoudness == 0")
    n = page.evaluate("window.recorded.length")
    wait_for(page, f"window.recorded.length > {n + 20}")
    seen = page.evaluate("window.recorded")
    assert not any(one["isSpeaking"] or one["outputLoudness"] for one in seen[n:])


def test_a_lost_connection_is_reopened(page: Any, app: LiveApp):
    start(page)
    wait_for_state(page, "connected")
    (connection,) = list(app.server.live.connections)
    app.call(lambda: connection.request_close(CloseReason(SERVICE_RESTART)))
    wait_for_state(page, "reconnecting")
    wait_for_state(page, "connected")
    wait_for(page, "window.recorded.at(-1).frame < 50")  # a new session counts from 0
    first = page.evaluate("window.recorded.at(-1).frame")
    wait_for(page, f"window.recorded.at(-1).frame > {first + 3}")
    element(page, "start").click()
    wait_for_state(page, "not connected")


def test_a_server_that_opens_no_session_is_explained_at_once(
    browser: Any, app: LiveApp, avatar_folder: Path, tmp_path: Path
):
    settings = make_settings(tmp_path, avatars=avatar_folder.parent)
    with live_app(Server(settings)) as draining, open_page(browser, draining.http("/#live")) as page:
        wait_for(page, "document.querySelector('[data-testid=avatar]')?.options.length == 1")
        wait_for(page, "canvas.width == 320")  # the avatar's first frame is shown before a session draws
        draining.call(draining.server.drain)
        element(page, "start").click()
        element(page, "error").filter(has_text="The server opened no session").wait_for()
        assert element(page, "start").inner_text() == "Start"
        page.faults = [one for one in page.faults if "503" not in one]  # Chromium logs a refused handshake


def test_the_microphone_speaks(page: Any):
    element(page, "microphone").check()
    start(page)
    wait_for_state(page, "speaking")
    wait_for(page, "window.recorded.at(-1).isSpeaking && window.recorded.at(-1).frameLoudness > 0")


def test_the_page_requests_the_token(browser: Any, avatar_folder: Path, tmp_path: Path):
    settings = make_settings(tmp_path, avatars=avatar_folder.parent, token="öffne dich")
    with live_app(Server(settings)) as app, open_page(browser, app.http("/#live")) as page:
        wait_for(page, "document.querySelector('[data-testid=error]')?.textContent.includes('Bearer')")
        assert element(page, "avatar").locator("option").count() == 0
        element(page, "token").fill("öffne dich")
        element(page, "token").blur()
        wait_for(page, "document.querySelector('[data-testid=avatar]').options.length == 1")
        assert not element(page, "error").is_visible()
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        drop_refusals(page)


def test_a_file_without_audio_is_named(page: Any, tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("<b>no audio</b>")
    element(page, "audio-input").set_input_files(file)
    element(page, "start").click()
    wait_for(page, "document.querySelector('[data-testid=error]').textContent.includes('notes.txt')")
    assert element(page, "start").inner_text() == "Start"


def test_a_view_that_is_left_ends_its_session(page: Any, app: LiveApp):
    start(page)
    page.locator("[data-view=read]").click()
    wait_until(lambda: not app.server.live.connections)
    assert element(page, "canvas").count() == 0
