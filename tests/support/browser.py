"""Pages in the machine's own Chromium, by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.waiting import PATIENCE_S

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
PHONE = {"width": 390, "height": 844}  # px


@contextmanager
def running_browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: Any, address: str, script: str = "", others: tuple[str, ...] = (), **options: Any
) -> Iterator[Any]:
    """Open a page for the block; afterwards check that it had no fault and requested nothing from other hosts.

    A violation of the Content-Security-Policy is a fault: Chromium logs it as an error. An answer with an error status
    is one only if its message is not expected: tests clear `page.faults`. script: run before the page's own. others:
    origins that it may also request from.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.faults, requested = [], []
    page.on("pageerror", lambda err: page.faults.append(str(err)))
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requested.append(request.url))
    if script:
        page.add_init_script(script)
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
    assert page.faults == []
    origin = address.split("#", maxsplit=1)[0].rstrip("/")
    assert [one for one in requested if not one.startswith((origin, "blob:", "data:", *others))] == []


def element(page: Any, name: str) -> Any:
    return page.locator(f"[data-testid={name}]")


def drop_refusals(page: Any) -> None:
    """Forget that Chromium logged answers with an error status; a test that expects them checks what the page shows."""
    page.faults = [one for one in page.faults if "Failed to load resource" not in one]


def wait_for(page: Any, expression: str, value: Any = None) -> None:
    """Wait until an expression over `value` is true in a page. As a function: the policy forbids to evaluate text."""
    page.wait_for_function(f"(value) => {expression}", arg=value)
