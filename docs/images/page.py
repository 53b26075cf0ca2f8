"""Take pictures of the page's views: page_read.png, page_sync.png, page_live.png, page_jobs.png and page_phone.png.

    python docs/images/page.py [--all FOLDER]

Starts `viseme serve --realtime` with the starter avatar and an empty data folder, and drives Chromium by Playwright.
With --all, writes each view when it is empty, busy, done and failed, 1280 and 390 px wide, light and dark, to FOLDER,
to look at; else the five of the documentation, with few colours, beside this file.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image  # installed with matplotlib
from playwright.sync_api import Locator, Page, sync_playwright

from bench.cold_start import prepare_environment, run_server, wait_until_ready
from inference.audio import SAMPLE_RATE
from inference.media.audio import read_audio
from inference.settings import Settings
from inference.speaker import SyntheticClip

HERE = Path(__file__).parent
VISEME = (str(Path(sys.executable).with_name("viseme")),)
WIDE = {"width": 1280, "height": 1060}  # px
PHONE = {"width": 390, "height": 844}  # px
SCHEMES = ("light", "dark")
FLAGS = ("--no-sandbox", "--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required")
PATIENCE_MS = 180_000.0
WORD = 2  # index of the word that is lit
SEEK_S = 1.2  # in the videos before and after lip sync
SPEAK_MS = 1500  # of speech before the picture: the frames of a second are counted
N_COLOURS = 256  # of a picture in the documentation


@dataclass(frozen=True)
class Inputs:
    """The files that the page is given."""

    spoken: Path
    face: Path
    speech: Path
    broken: Path

    @classmethod
    def make(cls, folder: Path) -> Inputs:
        """Render two people, and write the audio of the first."""
        found = cls(folder / "speaker.mp4", folder / "face.mp4", folder / "speech.wav", folder / "notes.mp4")
        SyntheticClip("BIN BLUE AT F TWO NOW", seed=3).write(found.spoken)
        SyntheticClip("LAY GREEN WITH A ZERO PLEASE", seed=12).write(found.face)
        samples = read_audio(found.spoken, SAMPLE_RATE, Settings.from_env().media_limits)
        with wave.open(str(found.speech), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        found.broken.write_bytes(b"no video\n" * 100)
        return found


Shoot = Callable[[Page, str], None]  # takes the pictures of a view in one state, such as "read-done"


def main() -> None:
    """Take the pictures, and name each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="write all states, widths and colour schemes there")
    folder: Path | None = parser.parse_args().all
    shoot = shoot_documented if folder is None else shoot_all(folder)
    with tempfile.TemporaryDirectory() as work, open_page(Path(work)) as page:
        inputs = Inputs.make(Path(work))
        for show in (show_no_jobs, show_reading, show_sync, show_live, show_pair, show_jobs):
            show(page, inputs, shoot)


@contextmanager
def open_page(work: Path) -> Iterator[Page]:
    """Run a server and a browser for the block."""
    env = prepare_environment(work) | {"VISEME_REALTIME": "true"}
    with run_server(VISEME, env) as (_, ping), sync_playwright() as playwright:
        wait_until_ready(ping)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport=WIDE, reduced_motion="reduce", color_scheme="light")  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE_MS)
        page.goto(ping.removesuffix("ping"))
        yield page
        browser.close()


def named(page: Page, name: str) -> Locator:
    return page.get_by_test_id(name)


def go(page: Page, view: str) -> None:
    page.locator(f"nav [data-view={view}]").click()
    page.locator(f"#view-{view} > .view > *").first.wait_for()


def show_no_jobs(page: Page, inputs: Inputs, shoot: Shoot) -> None:  # noqa: ARG001
    """Open the list before there is a job."""
    go(page, "jobs")
    named(page, "no-jobs").wait_for()
    shoot(page, "jobs-empty")
    go(page, "read")


def show_reading(page: Page, inputs: Inputs, shoot: Shoot) -> None:
    """Read a file, whether or not it is a video."""
    page.locator("#view-read > .view > *").first.wait_for()
    shoot(page, "read-empty")
    named(page, "file-input").set_input_files(inputs.broken)
    named(page, "start").click()
    page.locator("#view-read [role=alert]:visible").wait_for()
    shoot(page, "read-failed")
    named(page, "file-input").set_input_files(inputs.spoken)
    named(page, "start").click()
    shoot(page, "read-busy")
    named(page, "download-json").wait_for()
    page.locator(".word").nth(WORD).click()
    page.locator(".word[aria-current]").wait_for()
    shoot(page, "read-done")


def show_sync(page: Page, inputs: Inputs, shoot: Shoot) -> None:
    """Move the lips of a face, or try a file without a face."""
    go(page, "sync")
    shoot(page, "sync-empty")
    named(page, "audio-input").set_input_files(inputs.speech)
    named(page, "face-input").set_input_files(inputs.broken)
    named(page, "start").click()
    page.locator("#view-sync [role=alert]:visible").wait_for()
    shoot(page, "sync-failed")
    named(page, "face-input").set_input_files(inputs.face)
    named(page, "start").click()
    page.locator("[data-testid=stages] [aria-current]", has_text="Move lips").wait_for()
    shoot(page, "sync-busy")
    named(page, "play").wait_for()
    page.wait_for_function("() => document.querySelector('[data-testid=result-video]').readyState >= 2")
    named(page, "seek").evaluate(
        "(node, to) => { node.value = to; node.dispatchEvent(new Event('input', { bubbles: true })); }", SEEK_S
    )
    page.wait_for_function(
        "() => [...document.querySelectorAll('.pair video')].every((one) => !one.seeking && one.currentTime > 1)"
    )
    named(page, "result").scroll_into_view_if_needed()
    shoot(page, "sync-done")


def show_live(page: Page, inputs: Inputs, shoot: Shoot) -> None:
    """Let the starter avatar speak, or try a file without audio and a server that is gone."""
    go(page, "live")
    page.wait_for_function("() => document.querySelector('[data-testid=avatar]')?.options.length")
    shoot(page, "live-empty")
    named(page, "audio-input").set_input_files(inputs.broken)
    named(page, "start").click()
    page.locator("#view-live [role=alert]:visible").wait_for()
    shoot(page, "live-failed")
    is_silent = True
    page.route_web_socket("**/session*", lambda socket: None if is_silent else socket.connect_to_server())
    named(page, "audio-input").set_input_files(inputs.speech)
    named(page, "start").click()
    shoot(page, "live-busy")
    named(page, "start").click()
    is_silent = False
    named(page, "start").click()
    named(page, "state").filter(has_text="speaking").wait_for()
    page.wait_for_timeout(SPEAK_MS)
    shoot(page, "live-done")
    named(page, "start").click()


def show_pair(page: Page, inputs: Inputs, shoot: Shoot) -> None:
    """Let two avatars take turns, or try it without files."""
    go(page, "live")
    named(page, "live-mode-two").check()
    shoot(page, "pair-empty")
    named(page, "pair-start").click()
    named(page, "pair-error").filter(has_text="Choose").wait_for()
    shoot(page, "pair-failed")
    for side in ("left", "right"):
        named(page, f"{side}-audio").set_input_files(inputs.speech)
    named(page, "in-turn").check()
    named(page, "pair-start").click()
    shoot(page, "pair-busy")
    named(page, "right-state").filter(has_text="Speaking").wait_for()
    page.wait_for_timeout(SPEAK_MS)
    shoot(page, "pair-done")
    named(page, "pair-start").click()
    named(page, "live-mode-one").check()


def show_jobs(page: Page, inputs: Inputs, shoot: Shoot) -> None:
    """List the jobs of the views before, and one that runs."""
    go(page, "sync")
    named(page, "face-input").set_input_files(inputs.face)
    named(page, "start").click()
    page.locator("[data-testid=stages] [aria-current]", has_text="Move lips").wait_for()
    go(page, "jobs")
    done = named(page, "job").filter(has_text="Done").first
    done.locator("summary").click()
    done.locator("[data-testid=download]").first.wait_for()
    shoot(page, "jobs-done")
    page.route("**/v1/jobs*", lambda route: route.abort("connectionrefused"))
    named(page, "refresh").click()
    page.locator("#view-jobs > .view [role=alert]:visible").first.wait_for()
    shoot(page, "jobs-failed")
    page.unroute_all()


def shoot_all(folder: Path) -> Shoot:
    """Return what takes four pictures of a state, as high as the page is."""
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(page: Page, state: str) -> None:
        for width, viewport in (("1280", WIDE), ("390", PHONE)):
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.evaluate("scrollTo(0, 0)")  # else the bar is in the middle
                page.screenshot(path=folder / f"{state}-{width}-{scheme}.png", full_page=True)
        page.set_viewport_size(WIDE)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light")

    return shoot


def shoot_documented(page: Page, state: str) -> None:
    """Take the picture of a view that is done; of Read also on a phone."""
    view, _, is_done = state.partition("-")
    if is_done != "done":
        return
    write(page.screenshot(), f"page_{view}.png")
    if view == "read":
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        named(page, "video").evaluate("(node) => node.scrollIntoView()")
        write(page.screenshot(), "page_phone.png")
        page.set_viewport_size(WIDE)  # type: ignore[arg-type]


def write(png: bytes, name: str) -> None:
    """Write a picture beside this file, with few colours: a third of the bytes."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(N_COLOURS, kmeans=1)
    image.save(HERE / name, optimize=True)
    print(HERE / name)  # noqa: T201


if __name__ == "__main__":
    main()
