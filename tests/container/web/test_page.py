"""The frame of the page in a real browser: addresses, accessibility, keys, phones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from support import browser as browser_module
from support.browser import PHONE, needs_chromium, open_page, wait_for
from support.job_server import JobServer, running_job_server
from support.waiting import wait_until

from container.http.static_page import VIEWS
from container.live import avatar_cache as avatars_module
from container.live.legacy.routes import PROTOCOLS
from container.live.legacy.server import PROXY
from inference.avatar.catalogue import list_user_avatars
from inference.settings import Settings

pytestmark = needs_chromium
# axe-core 4.14.1 (MPL-2.0), unmodified: https://github.com/dequelabs/axe-core
AXE = Path(browser_module.__file__).parent / "axe" / "axe.min.js"
NARROWEST = 320  # px: WCAG 2.2, 1.4.10
# Texts and controls that reach beyond the right edge: of an element that hides what overflows, nothing scrolls.
CUT_OFF = """() => {
  const kinds = "main :is(button, input, select, p, h2, h3, label, legend, summary, dd, dt), header *";
  const isCutOff = (node) => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 0.5;
  return [...document.querySelectorAll(kinds)].filter(isCutOff).map((node) => node.outerHTML.slice(0, 80));
}"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    """Return a server without the starter avatar, which it would first create."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avatars_module, "find_packages", list_user_avatars)
        with running_job_server(Settings(data_dir=tmp_path_factory.mktemp("page"))) as server:
            yield server


@pytest.fixture
def page(browser: Any, server: JobServer) -> Iterator[Any]:
    with open_page(browser, address_of(server)) as page:
        yield page


def address_of(server: JobServer, view: str = "") -> str:
    return f"{str(server.client.base_url).rstrip('/')}/{view and '#'}{view}"


def show(page: Any, view: str) -> None:
    page.evaluate("(view) => { location.hash = view; }", view)
    page.locator(f"#view-{view} > .view > *").first.wait_for()


def test_each_view_has_an_address(page: Any):
    page.locator("#view-read > .view > *").first.wait_for()
    assert page.title() == "Read lips · Viseme"
    for view in reversed(VIEWS):
        page.locator(f"nav [data-view={view}]").click()
        page.locator(f"#view-{view} > .view > *").first.wait_for()
        assert page.url.endswith(f"/#{view}")
        assert page.locator("[aria-current=page]").get_attribute("data-view") == view
        assert page.evaluate("document.activeElement.id") == f"title-{view}"
        assert page.locator("main > section:visible").count() == 1
        ids = page.locator("[data-testid]").evaluate_all("(nodes) => nodes.map((node) => node.dataset.testid)")
        assert len(set(ids)) == len(ids)
    page.go_back()
    wait_for(page, "document.querySelector('[aria-current=page]').dataset.view == value", VIEWS[1])


def test_every_view_is_accessible(browser: Any, server: JobServer):
    server.wait_for(server.submit(b"fail").json()["id"])
    with open_page(browser, address_of(server), reduced_motion="reduce") as page:
        page.evaluate(AXE.read_text())
        for view in VIEWS:
            show(page, view)
            page.locator(f"#view-{view} details").evaluate_all(
                "(nodes) => { for (const one of nodes) one.open = true; }"
            )
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                found = page.evaluate("(rules) => axe.run(document, { runOnly: rules })", RULES)
                faults = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
                assert (view, scheme, faults) == (view, scheme, [])
                assert found["passes"]


@pytest.mark.parametrize("width", [PHONE["width"], NARROWEST])
def test_a_phone_needs_no_horizontal_scrolling(browser: Any, server: JobServer, width: int):
    with open_page(browser, address_of(server), viewport=PHONE | {"width": width}) as page:
        for view in VIEWS:
            show(page, view)
            assert (view, page.evaluate("document.documentElement.scrollWidth")) == (view, width)
            page.locator(f"#view-{view} details").evaluate_all("(all) => { for (const one of all) one.open = true; }")
            assert (view, page.evaluate("document.documentElement.scrollWidth")) == (view, width)
            assert page.evaluate(CUT_OFF) == []


def test_keys_reach_the_content_and_the_views(page: Any):
    page.locator("#view-read > .view > *").first.wait_for()
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("[data-view=read]").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#view-live > .view > *").first.wait_for()


def test_an_unknown_address_shows_the_first_view(browser: Any, server: JobServer):
    with open_page(browser, address_of(server, "nothing")) as page:
        page.locator("#view-read > .view > *").first.wait_for()


def test_a_port_of_older_clients_shows_live_alone(browser: Any, server: JobServer):
    app = server.server.live.legacy_app(PROTOCOLS.index(PROXY))
    http = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=http.run)
    thread.start()
    wait_until(lambda: http.started)
    try:
        port = http.servers[0].sockets[0].getsockname()[1]
        with open_page(browser, f"http://127.0.0.1:{port}/") as page:
            page.locator("#view-live > .view > *").first.wait_for()
            assert page.locator("nav a:visible").all_inner_texts() == ["Live"]
    finally:
        http.should_exit = True
        thread.join()
