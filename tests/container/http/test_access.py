"""Denied requests over a real socket, on every route and port; rules alone where SageMaker is concerned."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from starlette.requests import HTTPConnection
from support.live_app import LiveApp, live_app, make_settings
from websockets.exceptions import InvalidStatus

from container.app import Server
from container.http.access import AccessMiddleware, AccessRules
from container.http.log_throttle import MAX_LINES
from inference.errors import AccessDenied
from inference.settings import Settings

POSTS = ("/invocations", "/v1/audio/transcriptions", "/api/generate", "/endpoints/viseme/invocations")
STATUS = ("/ping", "/health", "/metrics")
PAGE = ("/", "/web/app.js")
LIVE = ("/v1/avatars", "/v1/avatars/drawn/background/0")
SOCKETS = ("/v1/avatars/drawn/session", "/invocations-bidirectional-stream", "/ws", "/")
EVIL = "https://evil.example"
FORM = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nbytes\r\n--x--\r\n'
FORM_TYPE = {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    """Run a server whose routes fail the test if a denied request reaches them."""

    def fail(*_arguments: object, **_options: object) -> Any:
        raise AssertionError("a denied request reached its route")

    server = Server(make_settings(tmp_path_factory.mktemp("access")))
    server.serve = server.live.check_access = fail  # type: ignore[method-assign]
    with live_app(server) as running:
        yield running


def assert_denied(answer: httpx.Response, message: str) -> None:
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert (body["status"], body["error"]["code"]) == ("error", "access_denied")
    assert message in body["error"]["message"]


def denied_handshake(address: str, **options: Any) -> int:
    async def go() -> None:
        async with websockets.connect(address, proxy=None, **options):
            pass

    with pytest.raises(InvalidStatus) as caught:
        asyncio.run(go())
    assert b"access_denied" in caught.value.response.body
    return caught.value.response.status_code


@pytest.mark.parametrize("path", [*STATUS, *PAGE, *LIVE, "/nothing"])
def test_a_page_of_a_rebound_name_reads_no_route(app: LiveApp, path: str):
    assert_denied(httpx.get(app.http(path), headers={"host": f"evil.example:{app.port}"}), "Host 'evil.example")


@pytest.mark.parametrize("path", POSTS)
def test_a_page_of_a_rebound_name_calls_no_route(app: LiveApp, path: str):
    """Its Origin is then that of the server."""
    headers = {"host": f"evil.example:{app.port}", "origin": f"http://evil.example:{app.port}"}
    answer = httpx.post(app.http(path), content=b"{}", headers=headers | {"x-request-id": "mine"})
    assert_denied(answer, "Host 'evil.example")
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("path", SOCKETS)
def test_a_page_of_a_rebound_name_opens_no_socket(app: LiveApp, path: str):
    with socket.create_connection(("127.0.0.1", app.port)) as one:
        assert denied_handshake(f"ws://evil.example:{app.port}{path}", sock=one) == 403


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "referer": EVIL + "/page"},
    ],
)
def test_a_form_of_another_site_calls_no_route(app: LiveApp, path: str, headers: dict[str, str]):
    answer = httpx.post(app.http(path), content=FORM, headers=FORM_TYPE | headers)
    assert_denied(answer, "is not allowed; add it to VISEME_ALLOWED_ORIGINS")
    assert app.server.pool.n_in_flight == 0


@pytest.mark.parametrize("path", SOCKETS)
def test_a_page_of_another_site_opens_no_socket(app: LiveApp, path: str):
    assert denied_handshake(app.ws(path), origin=EVIL) == 403


@pytest.mark.parametrize("path", LIVE)
def test_an_image_of_another_site_costs_nothing(app: LiveApp, path: str):
    assert_denied(httpx.get(app.http(path), headers={"sec-fetch-site": "cross-site"}), "origin of another site")


@pytest.mark.parametrize("path", [*PAGE, *STATUS])
def test_links_on_other_sites_lead_to_the_page_and_the_status(app: LiveApp, path: str):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "referer": EVIL}
    assert httpx.get(app.http(path), headers=headers).status_code == 200


def test_a_form_of_another_site_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[object] = []
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *given, **_options: made.append(given))
    with live_app(Server(make_settings(tmp_path))) as app:
        answer = httpx.post(app.http("/v1/audio/transcriptions"), content=FORM, headers=FORM_TYPE | {"origin": EVIL})
        assert_denied(answer, "origin https://evil.example")
    assert made == []


def test_a_flood_of_denials_writes_few_lines(app: LiveApp, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"), httpx.Client(headers={"origin": EVIL}) as client:
        for _ in range(3 * MAX_LINES):
            assert client.post(app.http("/invocations"), content=b"x").status_code == 403
    lines = [record for record in caplog.records if record.message == "a request was denied"]
    assert len(lines) <= 2 * MAX_LINES  # of two intervals at most


def test_a_denial_precedes_the_body():
    """The response is complete, but for its end, before the first byte of the body is awaited."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        assert b"access_denied" in b"".join(message.get("body", b"") for message in sent)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def route(*_arguments: object) -> None:
        raise AssertionError("a denied request reached its route")

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"host", b"evil.example")]}
    asyncio.run(AccessMiddleware(route, AccessRules())(scope, receive, send))
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("index", range(3))
def test_the_ports_of_older_clients_have_the_same_rules(tmp_path: Path, index: int):
    server = Server(make_settings(tmp_path, token="open sesame"))

    def query(port: int) -> list[int]:
        address = f"127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)) as one:
            statuses = [denied_handshake(f"ws://evil.example:{port}/ws", sock=one)]
        return statuses + [httpx.get(f"http://{address}/health", headers=headers).status_code for headers in known]

    rebound, bearer = {"host": "evil.example"}, {"authorization": "Bearer open sesame"}
    known = (rebound, rebound | bearer, {}, bearer)
    found = serve_briefly(server.live.legacy_app(index), query)
    assert found == [403, 403, 403, 403, 200 if index == 2 else 404]


def serve_briefly(app: Any, query: Callable[[int], list[int]]) -> list[int]:
    """Serve an application for the time of one call. query: takes its port."""

    async def go() -> list[int]:
        http = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
        serving = asyncio.create_task(http.serve())
        while not http.started:
            await asyncio.sleep(0.01)
        found = await asyncio.to_thread(query, http.servers[0].sockets[0].getsockname()[1])
        http.should_exit = True
        await serving
        return found

    return asyncio.run(go())


def test_the_status_needs_the_token_and_ping_does_not(tmp_path: Path):
    with live_app(Server(make_settings(tmp_path, token="öffne dich €"))) as app:
        assert httpx.get(app.http("/ping")).status_code == 200
        for path in ("/health", "/metrics"):
            assert_denied(httpx.get(app.http(path)), "Authorization: Bearer")
            for wrong in (b"Bearer open", b"Bearer \xff\xfe", b"Bearer \xf6ffne dich", b"Basic xyz"):
                assert_denied(httpx.get(app.http(path), headers={"authorization": wrong}), "Authorization: Bearer")
            given = {"authorization": "Bearer öffne dich €".encode()}
            assert httpx.get(app.http(path), headers=given).status_code == 200
            # The token makes up for a foreign Origin, and not for a foreign Host.
            assert httpx.get(app.http(path), headers=given | {"origin": EVIL}).status_code == 200
            assert_denied(httpx.get(app.http(path), headers=given | {"host": "evil.example"}), "Host")


def test_behind_a_proxy_the_names_of_the_server_are_configured(tmp_path: Path):
    settings = make_settings(tmp_path, allowed_hosts="lips.example.com", allowed_origins="https://app.example.com")
    with live_app(Server(settings)) as app:

        def status(host: str, **headers: str) -> int:
            own = {"host": host, "content-type": "video/mp4"}
            return httpx.post(app.http("/invocations"), content=b"x", headers=own | headers).status_code

        assert status("lips.example.com") == 200
        assert status("lips.example.com", origin="https://lips.example.com") == 200
        assert status("lips.example.com", origin="https://app.example.com") == 200
        assert status("lips.example.com", origin=EVIL) == 403
        assert status("other.example.com") == 403
        assert status("localhost") == 200


def is_allowed(rules: AccessRules, path: str, method: str = "POST", **headers: str) -> bool:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    try:
        rules.check(HTTPConnection(scope))
    except AccessDenied:
        return False
    return True


def rules_of(**env: str) -> AccessRules:
    return AccessRules.of(Settings.from_env({f"VISEME_{name}": value for name, value in env.items()}))


def test_a_server_that_others_reach_checks_its_names_only_if_they_are_set():
    image = rules_of(HOST="0.0.0.0")
    assert is_allowed(image, "/invocations", host="10.0.0.7:8080")
    assert not is_allowed(image, "/invocations", host="10.0.0.7:8080", origin=EVIL)
    named = rules_of(HOST="0.0.0.0", ALLOWED_HOSTS="lips.example.com")
    assert is_allowed(named, "/invocations", host="lips.example.com")
    assert not is_allowed(named, "/invocations", host="10.0.0.7:8080")
    assert is_allowed(named, "/ping", "GET", host="10.0.0.7:8080")  # of a load balancer
    assert is_allowed(rules_of(ALLOWED_HOSTS="*"), "/invocations", host="anything.example")


def test_sagemaker_calls_its_routes_by_any_name():
    rules = rules_of(HOST="0.0.0.0", ALLOWED_HOSTS="lips.example.com", ON_SAGEMAKER="true", TOKEN="secret")
    for path, method in (("/ping", "GET"), ("/invocations", "POST"), ("/invocations-bidirectional-stream", "GET")):
        assert is_allowed(rules, path, method, host="169.254.255.131:8080", origin=EVIL)
        assert is_allowed(rules, path, method)
    for path in ("/v1/audio/transcriptions", "/api/generate"):
        assert not is_allowed(rules, path, host="169.254.255.131:8080")
        assert not is_allowed(replace(rules, token=None), path, host="lips.example.com", origin=EVIL)
    for path in ("/health", "/metrics"):
        assert not is_allowed(rules, path, "GET", host="lips.example.com")


@pytest.mark.parametrize("variable", ["SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MODEL_SERVER_WORKERS"])
def test_a_loopback_server_is_not_on_sagemaker_whatever_the_variables(variable: str):
    """They are also how one's own server is configured, and the platform cannot reach it."""
    settings = Settings.from_env({variable: "1"})
    assert settings.on_sagemaker
    assert not is_allowed(AccessRules.of(settings), "/invocations", host="evil.example")
    assert not is_allowed(AccessRules.of(settings), "/invocations", host="localhost", origin=EVIL)
