"""The rate at which a client may start work."""

from __future__ import annotations

import pytest
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from container.http.rate_limit import RateLimitMiddleware, parse_rate
from inference.errors import InvalidRequest


def make_client(token: str | None = None, n_proxies: int = 0, exempt: tuple[str, ...] = ()) -> TestClient:
    async def answer(_request: Request) -> Response:
        return Response("done")

    routes = [Route(path, answer, methods=["GET", "POST"]) for path in ("/work", "/invocations")]
    limited = RateLimitMiddleware(Starlette(routes=routes), parse_rate("3/hour"), token, n_proxies, frozenset(exempt))
    return TestClient(limited)


def statuses(client: TestClient, n: int, path: str = "/work", **headers: str) -> list[int]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return [client.post(path, headers=sent).status_code for _ in range(n)]


def test_a_client_over_its_rate_is_sent_when_to_come_back() -> None:
    client = make_client()
    assert statuses(client, 3) == [200, 200, 200]
    response = client.post("/work", content=b"x" * 1000)
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "rate_limited"
    assert 3500 <= int(response.headers["retry-after"]) <= 3600


def test_reading_is_not_limited() -> None:
    client = make_client()
    statuses(client, 4)
    assert client.get("/work").status_code == 200


def test_clients_have_rates_of_their_own() -> None:
    client = make_client(n_proxies=1)
    assert statuses(client, 4, x_forwarded_for="1.2.3.4") == [200, 200, 200, 429]
    assert statuses(client, 1, x_forwarded_for="1.2.3.5") == [200]


def test_the_token_counts_and_not_the_address_of_its_holder() -> None:
    client = make_client(token="secret", n_proxies=1)
    for i in range(3):
        assert statuses(client, 1, authorization="Bearer secret", x_forwarded_for=f"1.2.3.{i}") == [200]
    assert statuses(client, 1, authorization="Bearer secret", x_forwarded_for="1.2.3.9") == [429]


@pytest.mark.parametrize("token", [None, "secret"])
def test_wrong_tokens_do_not_multiply_the_rate(token: str | None) -> None:
    client = make_client(token=token)
    found = [statuses(client, 1, authorization=f"Bearer guess-{i}")[0] for i in range(4)]
    assert found == [200, 200, 200, 429]


def test_the_platforms_route_is_not_limited() -> None:
    client = make_client(exempt=("/invocations",))
    assert statuses(client, 5, "/invocations") == [200] * 5


def test_rates_are_parsed() -> None:
    assert parse_rate("60/min") == parse_rate("60/minute") == RateLimitItemPerMinute(60)
    assert parse_rate("5/h") == RateLimitItemPerHour(5)
    for wrong in ("", "60", "0/min", "-1/min", "60/week", "60 / min", "60/min "):
        with pytest.raises(InvalidRequest, match="expected a number and a unit"):
            parse_rate(wrong)
