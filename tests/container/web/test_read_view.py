"""The view Read in a real browser, with the bundled weights on a clip of the synthetic speaker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import browser as browser_module
from support.browser import PHONE, drop_refusals, element, needs_chromium, open_page, wait_for
from support.engine_pool import EnginePool
from support.live_app import LiveApp, live_app, make_settings

from container.app import Server
from container.jobs.service import JobService
from inference.engines import Engines
from inference.lip_reading import LipReader, Transcript
from inference.lip_reading.captions import format_captions

pytestmark = needs_chromium
AXE = Path(browser_module.__file__).parent / "axe" / "axe.min.js"  # axe-core: see test_page.py
MAX_FIRST_BYTES = 100_000  # transferred before the first paint
ANSWER: dict[str, Any] = {
    "status": "success",
    "text": "<img src=x onerror=alert(1)>",
    "num_frames": 75,
    "fps": 25.0,
    "duration_s": 3.0,
    "confidence": 0.21,
    "words": [{"word": "<img src=x onerror=alert(1)>", "start": 0.5, "end": 1.0, "confidence": 0.21}],
    "alternatives": [{"text": "<b>A</b>", "confidence": 0.21}, {"text": "<b>B</b>", "confidence": 0.2}],
    "frames_without_face": 30,
    "model": {"name": "LipCoordNet", "weights": "starter", "sha256": "0" * 64},
    "timings_ms": {"total": 158.0},
    "warnings": ["<i>the server's own</i>"],
}


@dataclass
class Clip:
    """A video, and what the engine reads in it."""

    path: Path
    transcript: Transcript


@pytest.fixture(scope="module")
def clip(talking_film: bytes, reader: LipReader, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("clip") / "speaker.mp4"
    path.write_bytes(talking_film)
    return Clip(path, reader.read(path))


@pytest.fixture(scope="module")
def app(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    settings = make_settings(tmp_path_factory.mktemp("page"))
    server = Server(settings, EnginePool(engines), JobService(settings, lambda: EnginePool(engines)))  # type: ignore[arg-type]
    with live_app(server) as running:
        yield running


@pytest.fixture
def page(browser: Any, app: LiveApp) -> Iterator[Any]:
    with open_page(browser, app.http("/#read").replace("127.0.0.1", "localhost")) as page:
        yield page


def read(page: Any, video: Path) -> None:
    element(page, "file-input").set_input_files(video)
    element(page, "start").click()


def wait_for_words(page: Any) -> None:
    element(page, "download-json").wait_for()


def wait_for_error(page: Any, text: str) -> None:
    element(page, "error").filter(has_text=text).wait_for()


def downloaded(page: Any, name: str) -> str:
    with page.expect_download() as download:
        element(page, f"download-{name}").click()
    assert download.value.suggested_filename == f"speaker.{name}"
    return Path(download.value.path()).read_text()


def lit_words(page: Any) -> list[str]:
    return page.locator(".word[aria-current] .word-text").all_inner_texts()


def test_the_first_paint_needs_little(page: Any):
    element(page, "file-input").wait_for(state="attached")
    sizes = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map((one) => one.transferSize)"
    )
    assert len(sizes) >= 5
    assert min(sizes) > 0
    assert sum(sizes) <= MAX_FIRST_BYTES


def test_a_video_is_read_and_its_words_follow_it(page: Any, clip: Clip):
    read(page, clip.path)
    wait_for_words(page)
    words = clip.transcript.words
    assert element(page, "transcript").inner_text() == clip.transcript.text
    assert page.locator(".word-text").all_inner_texts() == [one.word for one in words]
    assert page.locator(".word-confidence").all_inner_texts() == [f"{round(one.confidence * 100)} %" for one in words]
    for word in (words[3], words[1]):
        page.locator(".word", has_text=word.word).first.click()
        wait_for(page, "document.querySelector('.word[aria-current]')")
        assert lit_words(page) == [word.word]
        assert word.start <= page.evaluate("document.querySelector('[data-testid=video]').currentTime") < word.end
    page.evaluate("document.querySelector('[data-testid=video]').play()")
    wait_for(page, "document.querySelector('.word[aria-current]')?.textContent.includes(value)", words[2].word)
    page.evaluate("document.querySelector('[data-testid=video]').pause()")


def test_the_mouths_are_shown_in_time_under_their_words(page: Any, clip: Clip):
    read(page, clip.path)
    wait_for_words(page)
    strip, word = element(page, "mouths"), clip.transcript.words[2]
    assert strip.get_attribute("aria-valuemax") == str(clip.transcript.num_frames - 1)
    wait_for(page, "document.querySelector('.strip img').naturalWidth == value", clip.transcript.num_frames * 96)
    at = round((word.start + word.end) / 2 * 25)
    bar, box = page.locator(".strip-words > span").nth(2).bounding_box(), strip.bounding_box()
    assert bar["x"] - box["x"] == pytest.approx(box["width"] * word.start / clip.transcript.duration_s, abs=2)
    assert bar["width"] == pytest.approx(box["width"] * (word.end - word.start) / clip.transcript.duration_s, abs=2)
    strip.click(position={"x": box["width"] * (at + 0.5) / clip.transcript.num_frames, "y": 40})
    wait_for(page, "document.querySelector('.word[aria-current]')")
    assert page.evaluate("document.querySelector('[data-testid=video]').currentTime") == pytest.approx(
        at / 25, abs=0.02
    )
    assert strip.get_attribute("aria-valuetext") == f"{at / 25:.2f} s, {word.word}"
    strip.press("ArrowRight")
    wait_for(page, "document.querySelector('[data-testid=mouths]').ariaValueNow == value", str(at + 1))
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document)")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_what_is_downloaded_is_what_the_engine_writes(page: Any, clip: Clip):
    read(page, clip.path)
    wait_for_words(page)
    assert downloaded(page, "txt") == f"{clip.transcript.text}\n"
    assert downloaded(page, "srt").strip() == format_captions(clip.transcript.words, "srt").strip()
    assert downloaded(page, "vtt").strip() == format_captions(clip.transcript.words, "vtt").strip()
    written = json.loads(downloaded(page, "json"))
    assert written["words"] == [vars(one) for one in clip.transcript.words]
    assert "mouths" not in written
    texts = page.locator(".alternatives li").all_text_contents()
    assert [text.rpartition(" ")[0].rpartition(" ")[0] for text in texts] == [
        one.text for one in clip.transcript.alternatives[1:]
    ]


def test_a_job_reads_the_same(page: Any, clip: Clip):
    page.get_by_text("Options").click()
    element(page, "as-job").check()
    read(page, clip.path)
    wait_for_words(page)
    assert element(page, "transcript").inner_text() == clip.transcript.text
    assert element(page, "mouths").is_visible()


def test_a_bad_file_is_explained(page: Any, tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("not a video")
    read(page, file)
    wait_for_error(page, "video")
    assert element(page, "start").is_enabled()
    assert page.get_by_text("This browser cannot play the file").is_visible()
    drop_refusals(page)


def test_a_recording_is_read(page: Any):
    """Chromium's camera is a test pattern without a face that could be read."""
    element(page, "record").click()
    page.get_by_text("Stop ·").click()
    page.locator(".dropzone-name", has_text="recording.").wait_for()
    wait_for(page, "document.querySelector('[data-testid=video]').duration < 30")
    element(page, "start").click()
    wait_for_error(page, "face")
    drop_refusals(page)


def test_texts_of_the_server_are_shown_as_text_and_doubts_are_named(page: Any, clip: Clip):
    page.route("**/invocations", lambda route: route.fulfill(json=ANSWER))
    read(page, clip.path)
    wait_for_words(page)
    assert element(page, "transcript").inner_text() == ANSWER["text"]
    notes = page.locator(".notice.warning").all_inner_texts()
    assert "Low confidence (21 %)" in notes[0]
    assert "GRID" in notes[0]
    assert "30 of 75 frames" in notes[1]
    assert "<i>the server's own</i>" in notes[2]
    assert page.locator("[data-testid=room-read] :is(img, b, i)").count() == 0
    assert "unsure" in page.locator(".word").get_attribute("title")


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (503, {"code": "overloaded", "message": "2 requests are in progress"}, "in progress Try again in 5 s."),
        (400, {"code": "invalid_request", "message": "<img src=x onerror=alert(1)>"}, "<img src=x"),
        (502, None, "The server answered 502"),
        (0, None, "cannot be reached"),
    ],
)
def test_refusals_are_shown(page: Any, clip: Clip, status: int, error: dict[str, str] | None, expected: str):
    def refuse(route: Any) -> None:
        if not status:
            route.abort("connectionreset")
        elif error is None:
            route.fulfill(status=status, body="<h1>Bad gateway</h1>", content_type="text/html")
        else:
            route.fulfill(status=status, json={"status": "error", "error": error}, headers={"retry-after": "5"})

    page.route("**/invocations", refuse)
    read(page, clip.path)
    wait_for_error(page, expected)
    assert page.locator("[data-testid=room-read] img").count() == 0
    page.unroute("**/invocations")
    page.route("**/invocations", lambda route: route.fulfill(json=ANSWER))
    element(page, "start").click()
    wait_for_words(page)
    assert not element(page, "error").is_visible()
    drop_refusals(page)


def test_keys_alone_suffice(page: Any, clip: Clip):
    element(page, "file-input").set_input_files(clip.path)
    focus_by_keys(page, "document.activeElement.dataset.testid == 'start'")
    page.keyboard.press("Enter")
    wait_for_words(page)
    focus_by_keys(page, "document.activeElement.classList.contains('word')")
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('.word[aria-current]')")
    assert lit_words(page) == [clip.transcript.words[0].word]


def focus_by_keys(page: Any, condition: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(condition):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
    raise AssertionError(f"no element by Tab: {condition}")


def test_a_phone_needs_no_horizontal_scrolling(browser: Any, app: LiveApp, clip: Clip):
    with open_page(browser, app.http("/#read"), viewport=PHONE, color_scheme="dark") as page:
        read(page, clip.path)
        wait_for_words(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert element(page, "video").bounding_box()["width"] > PHONE["width"] * 0.75
