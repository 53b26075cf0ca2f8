from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from container.http.pacing import BURST, MAX_WAIT_S, RATE, Pacer, PacingMiddleware
from inference.errors import Overloaded


class Clock:
    """A clock that stands still, and records how long each request would wait."""

    def __init__(self) -> None:
        self.time, self.waits = 0.0, list[float]()

    async def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)

    def pacer(self) -> Pacer:
        return Pacer(lambda: self.time, self.sleep)


def test_a_burst_is_answered_at_once_and_what_follows_at_the_rate():
    async def go() -> None:
        clock = Clock()
        pacer = clock.pacer()
        for _ in range(BURST):
            await pacer.wait("a")
        assert clock.waits == []
        for _ in range(3):
            await pacer.wait("a")
        assert clock.waits == pytest.approx([1 / RATE, 2 / RATE, 3 / RATE])
        await pacer.wait("b")
        assert len(clock.waits) == 3
        clock.time += 13 / RATE
        for _ in range(10):
            await pacer.wait("a")
        assert len(clock.waits) == 3
        await pacer.wait("a")
        assert clock.waits[3:] == pytest.approx([1 / RATE])

    asyncio.run(go())


def test_a_request_that_would_wait_too_long_is_rejected():
    async def go() -> None:
        clock = Clock()
        pacer = clock.pacer()
        for _ in range(BURST + round(MAX_WAIT_S * RATE)):
            await pacer.wait("a")
        assert max(clock.waits) == MAX_WAIT_S
        with pytest.raises(Overloaded, match="over 256 requests a second"):
            await pacer.wait("a")
        clock.time += 1 / RATE
        await pacer.wait("a")

    asyncio.run(go())


def test_an_answer_that_is_due_anyway_is_delayed_and_never_rejected():
    async def go() -> None:
        clock = Clock()
        pacer = clock.pacer()
        for _ in range(BURST + round(MAX_WAIT_S * RATE)):
            await pacer.delay("a")
        assert len(clock.waits) == round(MAX_WAIT_S * RATE)
        for _ in range(10):
            await pacer.delay("a")
        assert clock.waits[-10:] == [MAX_WAIT_S] * 10

    asyncio.run(go())


class RecordingPacer(Pacer):
    """Records the clients, and rejects the fourth request."""

    def __init__(self) -> None:
        super().__init__(sleep=self.sleep)
        self.paced: list[str] = []
        self.slept: list[float] = []

    async def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)

    async def wait(self, client: str) -> None:
        self.paced.append(client)
        if len(self.paced) > 3:
            raise Overloaded("too many")


def paced_client(pacer: Pacer, unpaced: frozenset[str] = frozenset()) -> TestClient:
    """Return a client of routes that answer with the status in their query, or 200."""

    def answer(request: Request) -> Response:
        return Response("fine", int(request.query_params.get("status", "200")))

    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    middleware = [Middleware(PacingMiddleware, pacer=pacer, n_proxies=1, unpaced=unpaced)]
    return TestClient(Starlette(routes=routes, middleware=middleware), headers={"x-forwarded-for": "192.0.2.1"})


@pytest.mark.parametrize("status", [403, 404, 503])
def test_posts_that_fail_are_paced(status: int):
    """Also those that would wait for too long: they are answered as late as any."""
    pacer = RecordingPacer()
    client = paced_client(pacer)
    for _ in range(5):
        assert client.post(f"/invocations?status={status}").status_code == status
    assert pacer.paced == ["192.0.2.1"] * 5
    assert pacer.slept == [MAX_WAIT_S] * 2


def test_posts_of_sagemakers_platform_are_not_paced():
    pacer = RecordingPacer()
    client = paced_client(pacer, frozenset({"/invocations"}))
    assert client.post("/invocations?status=503").status_code == 503
    assert pacer.paced == []
    assert client.post("/other?status=404").status_code == 404
    assert pacer.paced == ["192.0.2.1"]


def test_posts_that_succeed_are_not_paced_and_pings_have_their_own_pace():
    pacer = RecordingPacer()
    client, paced = paced_client(pacer), pacer.paced
    for path in ("/metrics", "/ping", "/v1/avatars"):
        assert client.get(path).text == "fine"
    assert paced == ["192.0.2.1", "192.0.2.1 /ping", "192.0.2.1"]
    assert client.post("/invocations").text == "fine"
    assert len(paced) == 3
    rejected = client.get("/metrics")
    assert rejected.status_code == 503
    assert json.loads(rejected.content)["error"]["code"] == "overloaded"
    assert rejected.headers["retry-after"]
