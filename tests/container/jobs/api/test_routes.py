"""Who may see jobs, and where their routes are."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import pytest
from starlette.requests import HTTPConnection
from support.job_server import JobServer, running_job_server
from support.waiting import PATIENCE_S, wait_until

from container.app import Server, make_app
from container.jobs.api.callers import Caller
from inference.errors import InvalidRequest
from inference.settings import Settings

TOKEN = {"authorization": "Bearer secret"}


def connect(host: str, **headers: str) -> HTTPConnection:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "client": (host, 1), "headers": raw})


def test_owners_are_addresses(settings: Settings):
    assert Caller.of(connect("192.0.2.1"), settings) == Caller("192.0.2.1", "192.0.2.1", "192.0.2.1")
    assert Caller.of(connect("127.0.0.1"), settings) == Caller("127.0.0.1", "local", None)
    assert Caller.of(connect("::1"), settings).owner == "local"


def test_holders_of_the_token_are_one_owner(settings: Settings):
    guarded = settings.model_copy(update={"token": "secret"})
    assert Caller.of(connect("192.0.2.1"), guarded) == Caller("192.0.2.1", "token", "192.0.2.1")
    assert Caller.of(connect("192.0.2.2"), guarded).owner == "token"


def test_behind_a_proxy_owners_are_those_whom_it_names(settings: Settings):
    behind = settings.model_copy(update={"trusted_proxies": 1})
    assert Caller.of(connect("127.0.0.1", x_forwarded_for="203.0.113.9"), behind).owner == "203.0.113.9"


@dataclass
class TwoClients:
    """A server behind a proxy, called by two of its clients."""

    jobs: JobServer
    mine: dict[str, str] = field(default_factory=lambda: {"x-forwarded-for": "203.0.113.1"})
    other: dict[str, str] = field(default_factory=lambda: {"x-forwarded-for": "203.0.113.2"})


@pytest.mark.parametrize("path", ["", "/events", "/outputs/wav2lip+gan.mp4", "/logs/1"])
def test_another_clients_job_is_a_404(settings: Settings, path: str):
    with running_job_server(settings.model_copy(update={"trusted_proxies": 1})) as jobs:
        two = TwoClients(jobs)
        mine = jobs.submit(**two.mine).json()
        url = f"{mine['urls']['job']}{path}"
        foreign = jobs.client.get(url, headers=two.other)
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "job_not_found")
        missing = jobs.client.get(url.replace(mine["id"], "0" * 32), headers=two.other)
        assert missing.json() == foreign.json()


def test_another_clients_job_is_neither_canceled_nor_listed_nor_repeated(settings: Settings):
    with running_job_server(settings.model_copy(update={"trusted_proxies": 1, "job_workers": 0})) as jobs:
        two = TwoClients(jobs)
        mine = jobs.submit(idempotency_key="k", **two.mine).json()
        assert jobs.client.delete(mine["urls"]["job"], headers=two.other).status_code == 404
        assert jobs.client.get("/v1/jobs", headers=two.other).json()["jobs"] == []
        theirs = jobs.submit(idempotency_key="k", **two.other)
        assert theirs.status_code == 202
        assert theirs.json()["id"] != mine["id"]
        (listed,) = jobs.client.get("/v1/jobs", headers=two.mine).json()["jobs"]
        assert (listed["id"], listed["state"]) == (mine["id"], "queued")


def test_a_job_is_canceled_once(jobs: JobServer):
    job = jobs.wait_for(jobs.submit(b"wait").json()["id"], "processing")
    canceled = jobs.client.delete(job["urls"]["job"])
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert jobs.client.delete(job["urls"]["job"]).json() == canceled.json()
    done = jobs.wait_for(jobs.submit().json()["id"])
    assert jobs.client.delete(done["urls"]["job"]).json() == done


def test_every_route_needs_the_token(settings: Settings):
    with running_job_server(settings.model_copy(update={"token": "secret"})) as jobs:
        for method, path in (
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs"),
            ("GET", "/v1/jobs/1"),
            ("DELETE", "/v1/jobs/1"),
            ("GET", "/v1/jobs/1/events"),
            ("GET", "/v1/jobs/1/outputs/a.mp4"),
            ("GET", "/v1/jobs/1/logs/1"),
        ):
            denied = jobs.client.request(method, path, content=b"x" if method == "POST" else None)
            assert (denied.status_code, denied.json()["error"]["code"]) == (403, "access_denied"), path
        assert jobs.client.get("/v1/jobs/1", headers=TOKEN).status_code == 404
        assert jobs.submit(**TOKEN).status_code == 202


def test_pages_of_other_sites_submit_nothing(jobs: JobServer):
    assert jobs.submit(origin="https://elsewhere.example").status_code == 403
    assert jobs.submit(host="elsewhere.example").status_code == 403
    assert jobs.client.get("/v1/jobs", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_a_client_that_starts_work_too_often_is_told_when_to_return(settings: Settings):
    with running_job_server(settings.model_copy(update={"rate_limit": "2/hour", "job_workers": 0})) as jobs:
        assert [jobs.submit().status_code for _ in range(3)] == [202, 202, 429]
        limited = jobs.submit()
        assert limited.json()["error"]["code"] == "rate_limited"
        assert 3500 < int(limited.headers["retry-after"]) <= 3600
        assert jobs.client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("rate_limit", "often", "VISEME_RATE_LIMIT='often'"), ("webhook_secret", "whsec_AAAA", "VISEME_WEBHOOK_SECRET")],
)
def test_a_wrong_setting_stops_the_start(settings: Settings, name: str, value: str, words: str):
    with pytest.raises(InvalidRequest, match=words):
        make_app(Server(settings.model_copy(update={name: value})))


def test_on_sagemaker_the_routes_are_off_unless_they_can_be_reached(settings: Settings):
    def has_jobs(**fields: bool) -> bool:
        server = Server(settings.model_copy(update={"on_sagemaker": True} | fields))
        return any(getattr(route, "path", "").startswith("/v1/jobs") for route in server.routes())

    assert not has_jobs()
    assert has_jobs(realtime=True)


def test_slow_bodies_of_jobs_leave_places_for_other_bodies(settings: Settings):
    """They may take an hour, so a few callers could occupy every place of bodies that arrive within seconds."""
    with running_job_server(settings.model_copy(update={"max_uploads": 1})) as jobs:
        port = jobs.client.base_url.port
        with socket.create_connection(("127.0.0.1", port or 0), timeout=PATIENCE_S) as slow:
            slow.sendall(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\na few bytes")
            wait_until(lambda: jobs.server._job_routes.n_submitting == 1)
            full = jobs.submit()
            assert (full.status_code, full.json()["error"]["code"]) == (503, "overloaded")
            with jobs.server._bodies.arriving("192.0.2.1"):
                assert jobs.server._bodies.n_arriving == 1
