"""The address by which a caller reaches the server."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from container.jobs.generations.base_urls import base_url_of


def base_url(n_proxies: int = 0, *, server: str = "10.0.0.5", **headers: str) -> str:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "scheme": "http", "server": (server, 8080), "path": "/v2/models", "headers": raw}
    return base_url_of(HTTPConnection(scope), n_proxies)


@pytest.mark.parametrize("host", ["lips.example.com", "localhost:8080", "[::1]:8080", "10.0.0.5"])
def test_it_is_the_host_that_the_request_names(host: str):
    assert base_url(host=host) == f"http://{host}"


@pytest.mark.parametrize("host", ['a"b', "a b", "user@a", "a/b", "a:b"])
def test_what_is_no_host_is_replaced_by_the_servers_address(host: str):
    assert base_url(host=host) == "http://10.0.0.5:8080"
    assert base_url(host=host, server="fd00::5") == "http://[fd00::5]:8080"


def test_a_trusted_proxy_says_how_it_was_reached():
    named = {"host": "inner", "x_forwarded_proto": "http, https", "x_forwarded_host": "evil, lips.example.com"}
    assert base_url(1, **named) == "https://lips.example.com"
    assert base_url(0, **named) == "http://inner"


def test_a_proxy_that_says_nothing_of_use_changes_nothing():
    assert base_url(1, host="inner", x_forwarded_proto="ftp", x_forwarded_host="a b") == "http://inner"
    assert base_url(1, host="inner") == "http://inner"
