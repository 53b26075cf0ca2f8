"""The page in a real browser: what moves on it, what is heard, and whether both agree."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_app import PATIENCE_S, LiveApp, live_app, make_settings

from container.app import Server
from container.live import avatar_cache as avatars_module
from container.live.connection import SERVICE_RESTART, CloseReason
from inference.avatar import AvatarPackage

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

RATE = 24_000
MOST_APART_MS = 80
N_ATTEMPTS = 3  # to find the machine free enough
# A recorder beside the page: which sound lies on the canvas, and which one leaves the audio graph.
RECORDER = """
window.seen = [];
const loudness = (samples, scale) => Math.sqrt(samples.reduce((sum, v) => sum + (v / scale) ** 2, 0) / samples.length);
let shown = null, tap = null, tapped = null;
function look() {
  const player = window.live?.player;
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
    window.seen.push({
      at: performance.now(), delay: 1000 * (player?.context.outputLatency || 0), heard: loudness(now, 1),
      frame: shown.frame, said: loudness(shown.samples, 32768), isSpeaking: shown.isSpeaking,
    });
  }
  requestAnimationFrame(look);
}
requestAnimationFrame(look);
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        flags = (
            "--no-sandbox --disable-gpu --mute-audio --autoplay-policy=no-user-gesture-required "
            "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
        )
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, app: LiveApp) -> Iterator[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda err: faults.append(str(err)))
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    page.add_init_script(RECORDER)
    page.goto(app.http("/").replace("127.0.0.1", "localhost"))
    page.wait_for_function("document.querySelector('[data-testid=avatar]').options.length == 1")
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise that comes and goes at times which repeat nowhere."""
    rng = np.random.default_rng(11)
    lengths = [0.3, 0.24, 0.42, 0.3, 0.18, 0.5, 0.36, 0.2, 0.26, 0.44, 0.3, 0.3]
    pieces = [rng.standard_normal(round(seconds * RATE)) * (6000 if i % 2 else 0) for i, seconds in enumerate(lengths)]
    path = tmp_path_factory.mktemp("sound") / "bursts.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.concatenate(pieces).astype("<i2").tobytes())
    return path


def mark(page: Any, name: str) -> Any:
    return page.locator(f"[data-testid={name}]")


def start(page: Any) -> None:
    mark(page, "start").click()
    page.wait_for_function("window.seen.length > 10")


def wait_for_state(page: Any, state: str) -> None:
    page.wait_for_function(f"document.querySelector('[data-testid=state]').textContent == '{state}'")


def test_every_part_of_the_page_is_marked(page: Any):
    for name in ("room-live", "canvas", "start", "interrupt", "audio-input", "fps", "latency", "error"):
        assert mark(page, name).count() == 1
    assert "localhost or over HTTPS" in page.inner_text("#hint")


def test_frames_move(page: Any):
    start(page)
    first = page.evaluate("document.getElementById('canvas').toDataURL()")
    assert page.evaluate("[canvas.width, canvas.height]") == [320, 240]
    page.wait_for_function("(first) => document.getElementById('canvas').toDataURL() != first", arg=first)
    page.wait_for_function("Number(document.querySelector('[data-testid=fps]').textContent) > 0")
    assert mark(page, "error").inner_text() == ""


def test_sound_and_picture_keep_together(page: Any, bursts: Path):
    mark(page, "audio-input").set_input_files(bursts)
    start(page)
    for attempt in range(N_ATTEMPTS):
        wait_for_state(page, "speaking")
        wait_for_state(page, "connected")
        page.wait_for_function("window.seen.at(-1).frame > window.seen.findLast((one) => one.isSpeaking).frame + 5")
        seen = page.evaluate("window.seen.splice(0)")
        if keeps_up(seen):
            break
        if attempt == N_ATTEMPTS - 1:
            pytest.skip("this machine is too busy to speak in real time")
        mark(page, "start").click()
        start(page)
    assert max(one["heard"] for one in seen) > 0.05
    assert abs(apart_ms(seen)) <= MOST_APART_MS
    assert "ms" in mark(page, "latency").inner_text()


def keeps_up(seen: list[dict[str, float]]) -> bool:
    """Whether the server made its 25 frames a second, and the page showed most of them."""
    spoken = [one for one in seen if one["isSpeaking"]]
    took_s = (spoken[-1]["at"] - spoken[0]["at"]) / 1000
    n_shown = len({one["frame"] for one in spoken})
    return (spoken[-1]["frame"] - spoken[0]["frame"]) / took_s > 23 and n_shown / took_s > 18


def apart_ms(seen: list[dict[str, float]]) -> float:
    """By how much the sound is behind the picture, from how loud each of them is over time."""
    step_ms = 5.0
    at = np.array([one["at"] for one in seen])
    grid = np.arange(at[0], at[-1], step_ms)
    said = np.array([one["said"] for one in seen])[np.searchsorted(at, grid, side="right") - 1]
    heard = np.interp(grid, at + [one["delay"] for one in seen], [one["heard"] for one in seen])
    said, heard = said - said.mean(), heard - heard.mean()
    lags = np.arange(-80, 81)
    likeness = [float((np.roll(heard, -lag) * said).sum()) for lag in lags]
    best = int(np.argmax(likeness))
    assert likeness[best] / np.sqrt((said**2).sum() * (heard**2).sum()) > 0.7
    return float(lags[best] * step_ms)


def test_an_interrupt_is_silent_at_once(page: Any, bursts: Path):
    mark(page, "audio-input").set_input_files(bursts)
    start(page)
    page.wait_for_function("window.seen.at(-1).isSpeaking && window.seen.at(-1).heard > 0.01")
    mark(page, "interrupt").click()
    page.wait_for_function("!window.seen.at(-1).isSpeaking && window.seen.at(-1).heard == 0")
    n = page.evaluate("window.seen.length")
    page.wait_for_function(f"window.seen.length > {n + 20}")
    seen = page.evaluate("window.seen")
    assert not any(one["isSpeaking"] or one["heard"] for one in seen[n:])


def test_a_lost_connection_comes_back(page: Any, app: LiveApp):
    start(page)
    wait_for_state(page, "connected")
    (connection,) = list(app.server.live.connections)
    app.call(lambda: connection.request_close(CloseReason(SERVICE_RESTART)))
    wait_for_state(page, "connecting again")
    wait_for_state(page, "connected")
    page.wait_for_function("window.seen.at(-1).frame < 50")  # a new session counts from 0
    first = page.evaluate("window.seen.at(-1).frame")
    page.wait_for_function(f"window.seen.at(-1).frame > {first + 3}")
    mark(page, "start").click()
    wait_for_state(page, "not connected")


def test_the_microphone_speaks(page: Any):
    mark(page, "microphone").check()
    start(page)
    wait_for_state(page, "speaking")
    page.wait_for_function("window.seen.at(-1).isSpeaking && window.seen.at(-1).said > 0")


def test_behind_a_token_the_page_asks_for_it(
    browser: Any, avatar_folder: Path, avatar_package: AvatarPackage, tmp_path: Path
):
    settings = make_settings(tmp_path, avatars=avatar_folder.parent, token="öffne dich")
    with live_app(Server(settings)) as app:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(app.http("/"))
        page.wait_for_function("document.querySelector('[data-testid=error]').textContent.includes('Bearer')")
        assert mark(page, "avatar").locator("option").count() == 0
        mark(page, "token").fill("öffne dich")
        mark(page, "token").blur()
        page.wait_for_function("document.querySelector('[data-testid=avatar]').options.length == 1")
        page.close()


def test_files_come_with_what_browsers_want_to_know(app: LiveApp):
    for path, media_type in (("/", "text/html"), ("/live.js", "text/javascript")):
        answer = httpx.get(app.http(path))
        assert answer.headers["content-type"].startswith(media_type)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
