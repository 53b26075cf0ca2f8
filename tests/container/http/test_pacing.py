from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
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


def test_only_posts_are_not_paced_and_pings_have_their_own_pace():
    paced: list[str] = []

    class RecordingPacer(Pacer):
        async def wait(self, client: str) -> None:
            paced.append(client)
            if len(paced) > 3:
                raise Overloaded("too many")

    routes = [Route("/{path:path}", lambda _request: Response("fine"), methods=["GET", "POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(PacingMiddleware, pacer=RecordingPacer(), n_proxies=1)])
    client = TestClient(app, headers={"x-forwarded-for": "192.0.2.1"})
    for path in ("/metrics", "/ping", "/v1/avatars"):
        assert client.get(path).text == "fine"
    assert paced == ["192.0.2.1", "192.0.2.1 /ping", "192.0.2.1"]
    assert client.post("/invocations").text == "fine"
    assert len(paced) == 3
    rejected = client.get("/metrics")
    assert rejected.status_code == 503
    assert json.loads(rejected.content)["error"]["code"] == "overloaded"
    assert rejected.headers["retry-after"]
