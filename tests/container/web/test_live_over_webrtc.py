"""The view Live over WebRTC in a real browser: video, audio, speech from a file and a microphone, and the WebSocket."""

from __future__ import annotations

import copy
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import drop_refusals, element, needs_chromium, open_page, wait_for
from support.live_app import LiveApp, live_app, make_settings
from support.waiting import wait_until

from container.app import Server
from container.live import avatar_cache as avatars_module
from container.live.webrtc import resources
from inference.avatar import AvatarPackage
from inference.errors import WebRtcUnavailable

pytestmark = needs_chromium
# Measures the output of the track, beside the page.
LISTEN = """async () => {
  const { live } = await import("/web/views/live.js"), context = new AudioContext(), tap = context.createAnalyser();
  context.createMediaStreamSource(live.player.video.srcObject).connect(tap);
  const samples = new Float32Array(tap.fftSize);
  window.peak = () => { tap.getFloatTimeDomainData(samples); return Math.max(...samples); };
}"""


@pytest.fixture
def app(
    avatar_folder: Path, avatar_package: AvatarPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveApp]:
    shared = copy.copy(avatar_package)
    vars(shared)["close"] = lambda: None
    monkeypatch.setattr(avatars_module, "load_package", lambda _name, _settings: shared)
    with live_app(Server(make_settings(tmp_path, avatars=avatar_folder.parent))) as running:
        yield running


@pytest.fixture
def page(browser: Any, app: LiveApp) -> Iterator[Any]:
    with open_page(browser, app.http("/#live").replace("127.0.0.1", "localhost")) as page:
        wait_for(page, "document.querySelector('[data-testid=avatar]')?.options.length == 1")
        yield page


def wait_for_state(page: Any, state: str) -> None:
    wait_for(page, f"document.querySelector('[data-testid=state]').textContent == '{state}'")


def test_a_file_and_a_microphone_speak_over_webrtc(page: Any, app: LiveApp, tmp_path: Path):
    samples = np.random.default_rng(11).standard_normal(24_000 * 20) * 6000
    with wave.open(str(tmp_path / "noise.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    element(page, "audio-input").set_input_files(tmp_path / "noise.wav")
    element(page, "start").click()
    wait_for_state(page, "speaking")
    assert (app.server.live.webrtc.n_sessions, len(app.server.live.connections)) == (1, 0)
    page.evaluate(LISTEN)
    wait_for(page, "window.peak() > 0.02")
    wait_for(page, "document.querySelector('[data-testid=latency]').textContent.includes('ms')")
    assert page.evaluate("[canvas.width, canvas.height]") == [320, 240]
    element(page, "interrupt").click()
    wait_for_state(page, "connected")
    wait_for(page, "window.peak() < 0.005")
    element(page, "start").click()
    wait_until(lambda: app.server.live.n_sessions == 0)
    element(page, "microphone").check()
    element(page, "start").click()
    wait_for_state(page, "speaking")  # Chromium's microphone beeps


def test_a_server_without_webrtc_is_used_by_a_websocket(page: Any, app: LiveApp, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise WebRtcUnavailable("not installed")

    monkeypatch.setattr(resources, "import_peer", fail)
    element(page, "start").click()
    wait_for_state(page, "connected")
    wait_for(page, "Number(document.querySelector('[data-testid=fps]').textContent) > 0")
    assert (app.server.live.webrtc.n_sessions, len(app.server.live.connections)) == (0, 1)
    drop_refusals(page)
