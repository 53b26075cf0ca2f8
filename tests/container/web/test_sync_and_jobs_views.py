"""The views Sync and Jobs in a real browser, with the bundled weights on the synthetic speaker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from support import browser as browser_module
from support.browser import PHONE, drop_refusals, element, needs_chromium, open_page
from support.engine_pool import EnginePool
from support.fake_espeak import write_fake_espeak
from support.job_server import JobServer, running_job_server
from support.live_app import LiveApp, live_app, make_settings
from support.small_wav2lip import voice
from support.synthetic_frames import talk
from support.video_files import make_video

from container.app import Server
from container.jobs.service import JobService
from container.speech.synthesizer import SpeechSynthesizer
from inference.engines import Engines
from inference.settings import Settings

pytestmark = needs_chromium
AXE = Path(browser_module.__file__).parent / "axe" / "axe.min.js"  # axe-core: see test_page.py
N_FRAMES = 20  # of the result: 0.8 s of audio
FACE_FRAMES = 10  # so that the face plays backwards after them
LOCALHOST = "localhost"  # a secure context, as the microphone needs
MAX_OFFSET_S = 0.08
# Keeps the body of the last submission; Playwright does not report bodies that are Blobs.
KEEP_BODY = """const send = window.fetch;
window.fetch = (address, options) => {
  if (options?.body instanceof Blob) window.submitted = options.body;
  return send(address, options);
};"""
# Records by how much the video before is ahead of the one after, while both play forwards.
WATCH_STEP = """() => {
  const video = (name) => document.querySelector(`[data-testid=${name}]`);
  const after = video("result-video"), before = video("before-video");
  window.offsets = [];
  const sample = () => {
    const isForwards = !after.paused && after.currentTime > 0.1 && after.currentTime < 0.35;
    if (isForwards) window.offsets.push(before.currentTime - after.currentTime);
    if (!after.ended) requestAnimationFrame(sample);
  };
  sample();
}"""


@pytest.fixture(scope="module")
def app(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    settings = make_settings(tmp_path_factory.mktemp("page"))
    server = Server(settings, EnginePool(engines), JobService(settings, lambda: EnginePool(engines)))  # type: ignore[arg-type, return-value]
    with live_app(server) as running:
        yield running


@pytest.fixture
def page(browser: Any, app: LiveApp) -> Iterator[Any]:
    with open_page(browser, app.http("/#sync").replace("127.0.0.1", LOCALHOST), KEEP_BODY) as page:
        yield page


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with face.mp4, speech.wav and broken.mp4."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "face.mp4").write_bytes(make_video(talk(FACE_FRAMES)))
    (folder / "speech.wav").write_bytes(voice(N_FRAMES / 25))
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    return folder


def choose(page: Any, media: Path, face: str = "face.mp4", audio: str = "speech.wav") -> None:
    element(page, "face-input").set_input_files(media / face)
    element(page, "audio-input").set_input_files(media / audio)


def job_with_state(page: Any, text: str) -> Any:
    """Return the card of the first job, once it has this state."""
    card = element(page, "job").first
    card.locator("[data-testid=job-state]", has_text=text).wait_for()
    return card


def decode(path: Path) -> tuple[np.ndarray, float]:
    """Return the frames of a video, (T, H, W, 3) uint8 BGR, and the seconds of its audio."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return frames, float(sum(frame.samples for frame in container.decode(stream)) / stream.rate)


def test_a_face_speaks_and_the_job_is_listed(page: Any, media: Path, tmp_path: Path):
    choose(page, media)
    element(page, "start").click()
    element(page, "play").wait_for()
    page.wait_for_function("() => document.querySelector('[data-testid=result-video]')?.readyState >= 2")
    with page.expect_download() as download:
        element(page, "download").click()
    download.value.save_as(tmp_path / "out.mp4")
    check_video(tmp_path / "out.mp4")
    check_sheet(page, tmp_path / "sheet.png")
    check_step(page)
    assert_accessible(page, element(page, "play"))
    assert element(page, "error").is_hidden()

    page.locator("nav a[href='#jobs']").click()
    card = job_with_state(page, "Done")
    assert "Lip sync: face.mp4, speech.wav" in card.inner_text()
    card.locator("summary").click()
    with page.expect_download() as download:
        card.locator("[data-testid=download]").first.click()
    download.value.save_as(tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes()


def check_video(path: Path) -> None:
    """Check the length of frames and audio, and that the mouth has changed and the forehead has not."""
    frames, audio_s = decode(path)
    assert len(frames) == N_FRAMES
    assert audio_s == pytest.approx(N_FRAMES / 25, abs=0.05)
    before = np.stack(talk(FACE_FRAMES)).astype(np.float32)
    change = np.abs(frames[:FACE_FRAMES].astype(np.float32) - before).mean(axis=(0, 3))
    height = change.shape[0]
    assert change[height // 2 :].max() > 5 * max(change[: height // 6].max(), 1)


def check_sheet(page: Any, path: Path) -> None:
    """Check that the contact sheet has eight different moments, and below each the same one after lip sync."""
    element(page, "sheet").locator("summary").click()
    with page.expect_download() as download:
        element(page, "sheet-download").click()
    download.value.save_as(path)
    sheet = cv2.imread(str(path)).astype(np.float32)
    height, width = talk(1)[0].shape[:2]
    cell, gap, title = round(240 * height / width), 8, 24
    row = 2 * (title + cell) + 2 * gap
    assert sheet.shape == (2 * row, 4 * (240 + gap) + gap, 3)
    for top in (title, row + title):
        for left in range(gap, 4 * (240 + gap), 240 + gap):
            before, after = (sheet[y : y + cell, left : left + 240] for y in (top, top + title + cell))
            change = np.abs(before - after).mean(axis=2)
            assert before.std() > 20
            assert change[cell // 2 :].max() > 5 * max(change[: cell // 6].max(), 1)
    assert "0.05 s" in element(page, "sheet-image").get_attribute("alt")


def check_step(page: Any) -> None:
    """Seek in both videos, forwards and where the first one plays backwards; then play both."""
    for sought, expected in ((0.2, 0.2), (0.6, 0.2)):
        element(page, "seek").evaluate(
            "(node, to) => { node.value = to; node.dispatchEvent(new Event('input', { bubbles: true })); }", sought
        )
        page.wait_for_function(
            "([name, at]) => Math.abs(document.querySelector(`[data-testid=${name}]`).currentTime - at) < 0.02",
            arg=["before-video", expected],
        )
    element(page, "seek").evaluate("(n) => { n.value = 0; n.dispatchEvent(new Event('input', { bubbles: true })); }")
    page.evaluate(WATCH_STEP)
    element(page, "play").click()
    page.wait_for_function("() => document.querySelector('[data-testid=result-video]')?.ended")
    offsets = page.evaluate("window.offsets")
    assert offsets
    assert abs(float(np.median(offsets))) <= MAX_OFFSET_S


def test_the_microphone_and_options_make_a_job_despite_a_lost_connection(page: Any, media: Path):
    page.route("**/events", lambda route: route.abort("connectionreset"), times=1)
    element(page, "face-input").set_input_files(media / "face.mp4")
    element(page, "audio-microphone").check()
    element(page, "record").click()
    page.locator("text=Recording:").wait_for()  # shown after a quarter of a second
    element(page, "record").click()
    element(page, "audio-preview").wait_for()
    element(page, "options").locator("summary").click()
    element(page, "sync_mode").select_option("cut_off")
    element(page, "pad-bottom").fill("6")
    element(page, "fps").fill("20")
    element(page, "start").click()
    page.wait_for_function("() => window.submitted")
    fields = json.loads(page.evaluate("() => window.submitted.text()"))
    kept = {name: value for name, value in fields.items() if name not in ("face", "audio")}
    assert kept == {"task": "lipsync", "sync_mode": "cut_off", "fps": 20, "pads": [0, 6, 0, 0]}
    element(page, "play").wait_for()  # the server decodes what MediaRecorder writes
    drop_refusals(page)
    assert "20" in element(page, "result").inner_text()


def test_a_bad_file_and_missing_ones_are_explained(page: Any, media: Path):
    element(page, "start").click()
    assert "Choose a face" in element(page, "error").inner_text()
    element(page, "face-input").set_input_files(media / "face.mp4")
    element(page, "start").click()
    page.wait_for_function(
        "() => document.querySelector('[data-testid=error]').textContent.includes('Choose an audio file')"
    )
    choose(page, media, face="broken.mp4")
    assert "cannot show broken.mp4" in element(page, "face-undecodable").inner_text()
    assert not page.locator("video.preview").is_visible()
    element(page, "start").click()
    page.wait_for_function("() => document.querySelector('[data-testid=error]')?.textContent.includes('can be used')")
    assert element(page, "start").is_enabled()
    assert element(page, "result").is_hidden()
    element(page, "audio-input").set_input_files(media / "broken.mp4")
    element(page, "audio-undecodable").filter(has_text="cannot play broken.mp4").wait_for()
    choose(page, media)
    assert element(page, "face-undecodable").is_hidden()
    assert element(page, "audio-undecodable").is_hidden()
    page.locator("nav a[href='#jobs']").click()
    card = job_with_state(page, "Failed")
    assert "A file is not a video" in card.locator("[data-testid=error]").inner_text()


@pytest.fixture
def waiting(tmp_path: Path, browser: Any) -> Iterator[tuple[Any, JobServer]]:
    """Yield a page of a phone, and a server with a token whose espeak-ng is a fake and whose jobs do not end."""
    settings = Settings(data_dir=tmp_path / "data", token="secret", job_workers=0)
    with running_job_server(settings, Authorization="Bearer secret") as server:
        server.server.speech = SpeechSynthesizer(str(write_fake_espeak(tmp_path)))
        with open_page(browser, f"{server.client.base_url}/#sync".replace("//#", "/#"), viewport=PHONE) as page:
            yield page, server


def give_token(page: Any) -> None:
    page.evaluate("() => { document.getElementById('token-menu').open = true; }")
    element(page, "token").fill("secret")
    element(page, "token").press("Enter")


def test_a_text_is_spoken_and_its_job_canceled_on_a_phone(waiting: tuple[Any, JobServer], media: Path):
    page, server = waiting
    element(page, "face-input").set_input_files(media / "face.mp4")
    element(page, "audio-text").check()
    element(page, "start").click()
    page.wait_for_function("() => document.querySelector('[data-testid=error]')?.textContent.includes('Bearer')")
    drop_refusals(page)
    give_token(page)
    page.wait_for_function("() => document.querySelectorAll('[data-testid=speech-language] option').length > 20")
    element(page, "speech-text").fill("Hello <b>you</b>")
    element(page, "start").click()
    page.locator("[data-testid=stages] [aria-current]", has_text="Wait").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    element(page, "cancel").click()
    page.wait_for_function("() => document.querySelector('[data-testid=error]')?.textContent.includes('canceled')")
    (job,) = server.client.get("/v1/jobs").json()["jobs"]
    assert job["state"] == "canceled"

    page.locator("nav a[href='#jobs']").click()
    job_with_state(page, "Canceled")
    second = server.submit(b"another").json()["id"]
    card = element(page, "job").first
    page.wait_for_selector(f"[data-job-id='{second}']")
    card = page.locator(f"[data-job-id='{second}']")
    card.locator("[data-testid=cancel]").click()
    card.locator("[data-testid=job-state]", has_text="Canceled").wait_for()
    assert server.job(second)["state"] == "canceled"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_jobs_run_fail_and_are_downloaded_with_the_token(browser: Any, tmp_path: Path):
    settings = Settings(data_dir=tmp_path / "data", token="secret")
    with running_job_server(settings, Authorization="Bearer secret") as server:
        server.wait_for(server.submit(b"a video").json()["id"])
        server.wait_for(server.submit(b"fail").json()["id"])
        server.wait_for(server.submit(b"wait").json()["id"], "processing")
        with open_page(browser, str(server.client.base_url)) as page:
            give_token(page)
            page.locator("nav a[href='#jobs']").click()
            element(page, "progress").locator("text=reading: 50 %").wait_for()
            drop_refusals(page)
            running, failed, done = (element(page, "job").nth(i) for i in range(3))
            found = failed.locator("[data-testid=error]").inner_text()
            assert found == "No face was found. no face in any frame"
            done.locator("summary").click()
            assert_accessible(page, done.locator("[data-testid=download]"))
            with page.expect_download() as download:
                done.locator("[data-testid=download]").click()
            download.value.save_as(tmp_path / "video.mp4")
            assert (tmp_path / "video.mp4").read_bytes() == b"a video"
            server.pool.release.set()
            running.locator("[data-testid=job-state]", has_text="Done").wait_for()  # without any click: it is polled


def assert_accessible(page: Any, visible: Any) -> None:
    """Run axe-core on the page once an element is visible."""
    visible.wait_for()
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document)")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
    assert found["passes"]


def test_many_jobs_have_pages_and_a_filter(waiting: tuple[Any, JobServer]):
    page, server = waiting
    ids = [server.submit(b"%d" % i).json()["id"] for i in range(22)]
    server.client.delete(f"/v1/jobs/{ids[0]}")
    give_token(page)
    drop_refusals(page)
    page.locator("nav a[href='#jobs']").click()
    page.wait_for_function("() => document.querySelectorAll('[data-testid=job]').length === 20")
    element(page, "more").click()
    page.wait_for_function("() => document.querySelectorAll('[data-testid=job]').length === 22")
    assert element(page, "more").is_hidden()
    element(page, "state-filter").select_option("canceled")
    page.wait_for_function("() => document.querySelectorAll('[data-testid=job]').length === 1")
    element(page, "state-filter").select_option("failed")
    element(page, "no-jobs").wait_for()


@pytest.mark.parametrize("view", ["sync", "jobs"])
def test_a_server_that_answers_503_is_reported(page: Any, media: Path, view: str):
    failure = {"status": "error", "error": {"code": "overloaded", "message": "the queue is <b>full</b>"}}
    page.route(
        re.compile("/v1/jobs"),
        lambda route: route.fulfill(
            status=503, headers={"Retry-After": "5", "Content-Type": "application/json"}, body=json.dumps(failure)
        ),
    )
    if view == "sync":
        choose(page, media)
        element(page, "start").click()
    else:
        page.locator("nav a[href='#jobs']").click()
    page.wait_for_function("() => document.querySelector('[data-testid=error]')?.textContent.includes('full')")
    assert element(page, "error").first.inner_text().endswith("the queue is <b>full</b> Try again in 5 s.")
    drop_refusals(page)


def test_the_face_before_follows_the_modes_of_lip_sync(page: Any):
    """The times are those of docs/lip-sync.md: 2 s of video, 5 s of audio."""
    found = page.evaluate(
        """async () => {
          const { sourceTime } = await import("/web/paired_videos.js");
          const lengths = { before_s: 2, after_s: 5 };
          const at = (options) => [1.5, 2.5, 4.5].map((time) => sourceTime(time, { ...lengths, ...options }).at);
          return [{}, { mode: "bounce" }, { loop: "restart" }, { mode: "loop" }, { mode: "remap" }].map(at);
        }"""
    )
    there_and_back, again = [1.5, 1.5, 0.5], [1.5, 0.5, 0.5]
    expected = [there_and_back, there_and_back, again, again, [0.6, 1.0, 1.8]]
    assert np.allclose(found, expected)


def test_parts_that_speak_are_parsed_or_explained(page: Any):
    found = page.evaluate(
        """async () => {
          const { parseSegments } = await import("/web/sync_request.js");
          let message = null;
          try { parseSegments("2-5, five"); } catch (error) { message = error.message; }
          return [parseSegments(" 2-5, 7.5 - "), parseSegments(""), message];
        }"""
    )
    assert found[:2] == [[{"start_s": 2, "end_s": 5}, {"start_s": 7.5}], []]
    assert "found “five”; expected seconds such as 2-5" in found[2]
