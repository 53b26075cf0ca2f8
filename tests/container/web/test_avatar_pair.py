"""Two live avatars that take turns, in a real browser."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import browser as browser_module
from support.browser import PHONE, element, needs_chromium, open_page, wait_for
from support.live_app import LiveApp, live_app, make_settings
from support.waiting import wait_until

from container.app import Server
from container.live import avatar_cache as avatars_module
from container.live.connection import SERVICE_RESTART, CloseReason
from inference.avatar import AvatarPackage

pytestmark = needs_chromium
AXE = Path(browser_module.__file__).parent / "axe" / "axe.min.js"  # axe-core: see test_page.py
RATE, TURN_S = 24_000, 0.8
MAX_OFFSET_S = 0.08
LOUD = 0.01  # loudness of a frame that speaks, as a share of full scale
# Records each frame that is drawn: where its audio ends in the file, how loud it is, and when it is played.
RECORDER = """
window.drawn = { left: [], right: [] };
import("/web/avatar_pair.js").then(({ pair }) => {
  document.addEventListener("shown", ({ target, detail }) => {
    const side = target.dataset.testid.split("-")[0], player = pair.players[side === "left" ? 0 : 1];
    const loudness = Math.sqrt(detail.samples.reduce((sum, v) => sum + (v / 32768) ** 2, 0) / detail.samples.length);
    window.drawn[side].push({
      isSpeaking: detail.isSpeaking, end: detail.end ?? null, loudness, at: player.context.currentTime });
  }, true);
});
"""


@pytest.fixture(scope="module")
def patched_package(avatar_package: AvatarPackage) -> Iterator[None]:
    """Make servers use a package that is loaded already, and leave it open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatar_package, "close", lambda: None)
        patch.setattr(avatars_module, "load_package", lambda _name, _settings: avatar_package)
        yield


@pytest.fixture(scope="module")
def app(patched_package: None, avatar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    settings = make_settings(tmp_path_factory.mktemp("page"), avatars=avatar_folder.parent)
    with live_app(Server(settings)) as running:
        yield running


@pytest.fixture
def page(browser: Any, app: LiveApp) -> Iterator[Any]:
    with open_page(browser, app.http("/#live"), RECORDER) as page:
        show_pair(page)
        yield page


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with turn.wav, one turn of noise, and stereo.wav: a turn on the left, then one on the right."""
    folder = tmp_path_factory.mktemp("audio")
    turn = (np.random.default_rng(5).standard_normal(round(TURN_S * RATE)) * 6000).astype("<i2")
    silence = np.zeros_like(turn)
    stereo = np.concatenate([np.stack([turn, silence], axis=1), np.stack([silence, turn], axis=1)])
    for name, samples in (("turn.wav", turn[:, None]), ("stereo.wav", stereo)):
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((samples.shape[1], 2, RATE, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
    return folder


def show_pair(page: Any) -> None:
    element(page, "live-mode-two").check()
    wait_for(page, "document.querySelector('[data-testid=left-avatar]').options.length == 1")


def choose_stereo(page: Any, file: Path) -> None:
    element(page, "pair-files-together").check()
    element(page, "both-audio").set_input_files(file)


def choose_two(page: Any, file: Path) -> None:
    for side in ("left", "right"):
        element(page, f"{side}-audio").set_input_files(file)
    element(page, "in-turn").check()


def wait_for_error(page: Any, text: str) -> None:
    element(page, "pair-error").filter(has_text=text).wait_for()
    assert element(page, "pair-start").inner_text() == "Start both"
    assert element(page, "left-state").inner_text() == "Not connected"


@pytest.mark.parametrize("kind", ["stereo", "two files"])
def test_two_avatars_take_turns_in_step(page: Any, app: LiveApp, media: Path, kind: str):
    if kind == "stereo":
        choose_stereo(page, media / "stereo.wav")
    else:
        choose_two(page, media / "turn.wav")
    element(page, "pair-start").click()
    for speaking, listening in (("left", "right"), ("right", "left")):
        wait_for(page, f"document.querySelector('[data-testid={speaking}-state]').textContent == 'Speaking'")
        wait_for(page, f"document.querySelector('[data-testid={listening}-state]').textContent == 'Listening'")
    # A busy machine may skip the last frames of speech, so the end is an idle frame after most of it.
    ended = f"one.some(({{ end }}) => end > {1.5 * TURN_S}) && !one.at(-1).isSpeaking"
    wait_for(page, f"Object.values(window.drawn).every((one) => {ended})")
    drawn = page.evaluate("window.drawn")
    check_turn(drawn["left"], 0)
    check_turn(drawn["right"], TURN_S)
    at = [{round(one["end"], 3): one["at"] for one in spoken(drawn[side])} for side in ("left", "right")]
    offsets = [at[0][end] - at[1][end] for end in at[0].keys() & at[1].keys()]  # of the same moment of the audio
    assert offsets
    assert abs(np.median(offsets)) <= MAX_OFFSET_S
    for side in ("left", "right"):
        assert "ms" in element(page, f"{side}-latency").inner_text()
    element(page, "pair-start").click()
    wait_until(lambda: not app.server.live.connections)


def spoken(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in frames if one["isSpeaking"]]


def check_turn(frames: list[dict[str, Any]], starts_s: float) -> None:
    """Check that an avatar is loud in its turn alone, and drawn in both."""
    loud = [one["end"] for one in spoken(frames) if one["loudness"] > LOUD]
    quiet = [one["end"] for one in spoken(frames) if one["loudness"] <= LOUD]
    assert loud
    assert quiet
    assert starts_s < min(loud) <= max(loud) <= starts_s + TURN_S + 0.05  # a frame has 0.04 s


def test_files_that_do_not_fit_are_explained(page: Any, media: Path):
    element(page, "pair-start").click()
    wait_for_error(page, "Choose an audio file for each avatar")
    choose_stereo(page, media / "turn.wav")
    element(page, "pair-start").click()
    wait_for_error(page, "turn.wav: found 1 channel; expected two")
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document)")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_lost_connection_stops_both(page: Any, app: LiveApp, media: Path):
    choose_stereo(page, media / "stereo.wav")
    element(page, "pair-start").click()
    wait_until(lambda: len(app.server.live.connections) == 2)
    wait_for(page, "window.drawn.left.length > 0 && window.drawn.right.length > 0")
    connection = next(iter(app.server.live.connections))
    app.call(lambda: connection.request_close(CloseReason(SERVICE_RESTART, "it restarts")))
    wait_for_error(page, "avatar was lost (it restarts). Both were stopped.")
    wait_until(lambda: not app.server.live.connections)


def test_a_server_with_one_session_is_explained(
    browser: Any, patched_package: None, avatar_folder: Path, media: Path, tmp_path: Path
):
    settings = make_settings(tmp_path, avatars=avatar_folder.parent, max_sessions_per_client=1)
    with live_app(Server(settings)) as app, open_page(browser, app.http("/#live")) as page:
        show_pair(page)
        choose_stereo(page, media / "stereo.wav")
        element(page, "pair-start").click()
        wait_for_error(page, "VISEME_MAX_SESSIONS_PER_CLIENT")
        wait_until(lambda: not app.server.live.connections)
        page.faults = [one for one in page.faults if "503" not in one]  # Chromium logs a refused handshake


def test_a_view_that_is_left_ends_both_sessions(page: Any, app: LiveApp, media: Path):
    choose_stereo(page, media / "stereo.wav")
    element(page, "pair-start").click()
    wait_until(lambda: len(app.server.live.connections) == 2)
    page.locator("[data-view=read]").click()
    wait_until(lambda: not app.server.live.connections)
