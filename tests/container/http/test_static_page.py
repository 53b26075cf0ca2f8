"""The files of the pages over HTTP: types, policy, caching, and what is not served."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from container.http.static_page import DOCS_FILES, FOLDER, LEGACY_VIEWS, PAGE_FILES, docs_routes, page_routes


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=[*page_routes(), *docs_routes()]))


@pytest.mark.parametrize("path", [*PAGE_FILES, *DOCS_FILES])
def test_each_file_has_its_type_and_is_guarded(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 200
    kind = {"js": "text/javascript", "css": "text/css"}.get(path.rpartition(".")[2], "text/html")
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_nothing_is_inline(client: TestClient, path: str):
    assert "unsafe" not in client.get(path).headers["content-security-policy"]
    assert re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=", client.get(path).text) is None


def test_a_file_is_sent_again_only_if_it_changed(client: TestClient):
    first = client.get("/web/app.js")
    assert first.headers["cache-control"] == "no-cache"
    for condition in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = client.get("/web/app.js", headers={"if-none-match": condition})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert client.get("/web/app.js", headers={"if-none-match": '"other"'}).content == first.content
    assert client.get("/web/api.js").headers["etag"] != first.headers["etag"]


def test_head_describes_a_file_without_sending_it(client: TestClient):
    full, head = client.get("/web/app.js"), client.head("/web/app.js")
    assert head.content == b""
    assert head.headers["content-length"] == str(len(full.content))


@pytest.mark.parametrize(
    "path",
    ["/web/", "/web/docs.html", "/web/views/", "/web/views/app.js", "/web/..%2Fcli.py", "/web/views/..%2Fapp.js"],
)
def test_nothing_else_is_served(client: TestClient, path: str):
    assert client.get(path).status_code == 404


def test_ports_of_older_clients_offer_the_view_that_they_serve(client: TestClient):
    legacy = TestClient(Starlette(routes=page_routes(LEGACY_VIEWS))).get("/")
    assert 'data-views="live"' in legacy.text
    assert 'data-views="read sync live jobs"' in client.get("/").text
    assert legacy.headers["etag"] != client.get("/").headers["etag"]


def test_files_of_jobs_may_come_from_one_more_origin(client: TestClient):
    async def find_origin() -> str:
        return "https://lips.s3.eu-west-1.amazonaws.com"

    answer = TestClient(Starlette(routes=page_routes(find_origin=find_origin))).get("/")
    rules = dict(one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; "))
    with_origin = {name for name, sources in rules.items() if "https://lips.s3.eu-west-1.amazonaws.com" in sources}
    assert with_origin == {"connect-src", "img-src", "media-src"}
    assert answer.headers["etag"] != client.get("/").headers["etag"]  # a browser must not keep the old policy


def test_every_file_is_listed():
    listed = {*PAGE_FILES.values(), *DOCS_FILES.values()}
    assert listed == {str(one.relative_to(FOLDER)) for one in FOLDER.rglob("*") if one.is_file()}
