"""Measure the page in Chromium while the server is idle, runs a lip-sync job, and is full of readings.

    python -m bench.page [--callers 16] [--rounds 3]

Starts `viseme serve --realtime`. Under each load it opens the page in a new browser without a cache, then clicks on
each tab, on "Refresh" and on "Options", so many rounds. Prints, with the ratio to the idle server:

  first paint  milliseconds from the request of the page to its first contentful paint (CDP, Page.lifecycleEvent)
  bytes        of all responses that had begun by then, and of all until the network is idle, headers included (CDP,
               Network.loadingFinished)
  click        milliseconds from a click to the next frame (Event Timing): median and longest. The browser rounds them
               to 8 ms, and does not report those under 16 ms, which count as 16
  view         longest milliseconds from the first click on a tab until its view is there: its scripts are fetched then

Fails if more than 100 KB precede the first paint, or a click takes more than 100 ms while a job runs. Browser, server
and callers share the cores.
"""

from __future__ import annotations

import argparse
import base64
import io
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from bench.cold_start import prepare_environment, render_video, run_server, wait_until_ready
from bench.ping import post_continuously, request_status
from container.http.static_page import VIEWS

JOB = "lip-sync job"
MAX_BYTES = 100_000
MAX_CLICK_MS = 100.0
UNREPORTED_MS = 16.0  # the least duration that the Event Timing API reports
FLAGS = ("--no-sandbox", "--disable-gpu", "--mute-audio")
PATIENCE_S = 120.0
JOB_AUDIO_S = 60  # enough that the job outlasts the measurement
SAMPLE_RATE = 16_000
READ_S = 600.0  # callers are ended before
CALLERS_START_S = 3.0
SETTLE_MS = 300.0  # until the browser has reported the last click
FULL = 503
RECORD_CLICKS = f"""
window.clicks = {{}};
new PerformanceObserver((list) => {{
  for (const {{ interactionId: id, duration }} of list.getEntries()) {{
    if (id) window.clicks[id] = Math.max(window.clicks[id] ?? 0, duration);
  }}
}}).observe({{ type: "event", durationThreshold: {UNREPORTED_MS:.0f} }});
"""


@dataclass
class Result:
    """What was measured under one load. n_bytes: before the first paint. click_ms, view_ms: of each."""

    n_bytes: int
    n_bytes_in_all: int
    paint_ms: float
    click_ms: list[float]
    view_ms: list[float]


@dataclass
class NetworkLog:
    """What the browser reports while a page loads. Times: seconds of the browser's monotonic clock."""

    began_s: float | None = None
    painted_s: float | None = None
    responded_s: dict[str, float] = field(default_factory=dict)  # by the id of the request
    n_bytes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, page: Page) -> NetworkLog:
        """Return the log of a page that is going to be loaded."""
        log, session = cls(), page.context.new_cdp_session(page)
        session.on("Network.requestWillBeSent", log._begin)
        session.on("Network.responseReceived", log._respond)
        session.on("Network.loadingFinished", log._finish)
        session.on("Page.lifecycleEvent", log._paint)
        session.send("Network.enable")
        session.send("Page.enable")
        session.send("Page.setLifecycleEventsEnabled", {"enabled": True})
        return log

    def _begin(self, event: dict[str, Any]) -> None:
        self.began_s = self.began_s or event["timestamp"]

    def _respond(self, event: dict[str, Any]) -> None:
        self.responded_s[event["requestId"]] = event["timestamp"]

    def _finish(self, event: dict[str, Any]) -> None:
        self.n_bytes[event["requestId"]] = int(event["encodedDataLength"])

    def _paint(self, event: dict[str, Any]) -> None:
        if event["name"] == "firstContentfulPaint":
            self.painted_s = event["timestamp"]

    @property
    def paint_ms(self) -> float:
        assert self.began_s is not None
        assert self.painted_s is not None
        return (self.painted_s - self.began_s) * 1000

    @property
    def bytes_before_paint(self) -> int:
        assert self.painted_s is not None
        return sum(n for one, n in self.n_bytes.items() if self.responded_s.get(one, np.inf) <= self.painted_s)


def main() -> None:
    """Measure under each load, and print the results. Exits with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        work = Path(name)
        video = render_video(work / "video.mp4").read_bytes()
        env = prepare_environment(work) | {"VISEME_REALTIME": "true"}
        viseme = (str(Path(sys.executable).with_name("viseme")),)
        with run_server(viseme, env) as (_, ping):
            wait_until_ready(ping)
            url = httpx.URL(ping.removesuffix("ping"))
            loads: dict[str, Callable[[], AbstractContextManager[None]]] = {
                "idle": nullcontext,
                JOB: lambda: running_job(url, video),
                f"{args.callers} callers read": lambda: reading_callers(url, video, args.callers),
            }
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            measure(browser, str(url), n_rounds=1)  # a new browser is slow
            results = {}
            for load, start in loads.items():
                with start():
                    results[load] = measure(browser, str(url), args.rounds)
                print_result(load, results[load], results["idle"])
            browser.close()
    if max(one.n_bytes for one in results.values()) > MAX_BYTES:
        raise SystemExit(f"more than {MAX_BYTES} bytes before the first paint")
    if max(results[JOB].click_ms) > MAX_CLICK_MS:
        raise SystemExit(f"more than {MAX_CLICK_MS:.0f} ms from a click while a job runs")


@contextmanager
def running_job(url: httpx.URL, video: bytes) -> Iterator[None]:
    """Run a lip-sync job during the block. Raises: SystemExit if it ended before."""
    fields = {"task": "lipsync", "face": encode(video), "audio": encode(make_speech(JOB_AUDIO_S))}
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        job = client.post("v1/jobs", json=fields).raise_for_status().json()["id"]
        wait_for_state(client, job, "processing")
        yield
        found = client.get(f"v1/jobs/{job}").json()
        if found["state"] != "processing":
            raise SystemExit(f"the job should run for longer: {found}")
        client.delete(f"v1/jobs/{job}")
        wait_for_state(client, job, "canceled")


def wait_for_state(client: httpx.Client, job: str, state: str) -> None:
    """Wait until a job has a state. Raises: SystemExit if it does not get there."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := client.get(f"v1/jobs/{job}").json())["state"] != state:
        if time.monotonic() > deadline:
            raise SystemExit(f"the job is not {state}: {found}")
        time.sleep(0.1)


@contextmanager
def reading_callers(url: httpx.URL, video: bytes, n_callers: int) -> Iterator[None]:
    """Post a video again and again during the block. Raises: SystemExit if the server's queue is not full."""
    spawn = multiprocessing.get_context("spawn")
    port = url.port
    assert port is not None
    results: multiprocessing.Queue[dict[int, int]] = spawn.Queue()
    callers = spawn.Process(target=post_continuously, args=(port, video, n_callers, READ_S, results))
    callers.start()
    try:
        time.sleep(CALLERS_START_S)
        yield
        if FULL not in [request_status(port, "POST", "/invocations", video) for _ in range(3)]:
            raise SystemExit("the server still had room: use more callers")
    finally:
        callers.terminate()
        callers.join()


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def make_speech(seconds: int) -> bytes:
    """Return a WAV file of noise whose loudness rises and falls as that of syllables."""
    t = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(1).uniform(-1, 1, len(t)) * np.sin(2 * np.pi * 2 * t) ** 2
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes((8000 * noise).astype("<i2").tobytes())
    return file.getvalue()


def measure(browser: Browser, url: str, n_rounds: int) -> Result:
    """Open the page without a cache, and click."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.add_init_script(RECORD_CLICKS)
    log = NetworkLog.of(page)
    page.goto(url, wait_until="networkidle")
    n_bytes = sum(log.n_bytes.values())
    view_ms = [time_view(page, view) for view in VIEWS[1:]]
    n_clicks = len(view_ms)
    for _ in range(n_rounds):
        n_clicks += click_through(page)
    page.wait_for_timeout(SETTLE_MS)
    reported = [float(one) for one in page.evaluate("Object.values(window.clicks)")]
    page.close()
    click_ms = reported + [UNREPORTED_MS] * (n_clicks - len(reported))
    return Result(log.bytes_before_paint, n_bytes, log.paint_ms, click_ms, view_ms)


def time_view(page: Page, view: str) -> float:
    """Click on a tab for the first time; return the milliseconds until its view is there."""
    started = time.perf_counter()
    page.locator(f"nav [data-view={view}]").click()
    page.locator(f"#view-{view} > .view > *").first.wait_for()
    return (time.perf_counter() - started) * 1000


def click_through(page: Page) -> int:
    """Click on each tab, and on a button in two of the views; return the number of clicks."""
    buttons = {"sync": "[data-testid=options] summary", "jobs": "[data-testid=refresh]"}
    for view in VIEWS:
        page.locator(f"nav [data-view={view}]").click()
        if view in buttons:
            page.locator(f"#view-{view} {buttons[view]}").click()
    return len(VIEWS) + len(buttons)


def print_result(load: str, result: Result, idle: Result) -> None:
    median, longest = statistics.median(result.click_ms), max(result.click_ms)
    paint_ratio = result.paint_ms / idle.paint_ms
    view_ms, view_ratio = max(result.view_ms), max(result.view_ms) / max(idle.view_ms)
    print(f"{load}: first paint {result.paint_ms:.0f} ms ({paint_ratio:.2f})")
    print(f"  {result.n_bytes} bytes before it, {result.n_bytes_in_all} in all")
    print(f"  {len(result.click_ms)} clicks: median {median:.0f} ms, longest {longest:.0f} ms", end="")
    print(f" ({longest / max(idle.click_ms):.2f}); view {view_ms:.0f} ms ({view_ratio:.2f})")


if __name__ == "__main__":
    main()
