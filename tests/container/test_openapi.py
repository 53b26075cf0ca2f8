"""The OpenAPI document: valid, and of exactly the routes that there are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route
from support.job_server import JobServer, running_job_server

from container.app import Server
from container.openapi import STATUSES, make_document
from inference.error_responses import INTERNAL
from inference.error_responses import STATUSES as ERROR_STATUSES
from inference.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NOT_SENT = {499}  # the caller has disconnected
GENERATION = {
    "model": "wav2lip",
    "input": [
        {"type": "video", "url": "https://media.example/face.mp4"},
        {"type": "audio", "url": "https://media.example/voice.wav"},
    ],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def jobs(settings: Settings) -> Iterator[JobServer]:
    with running_job_server(settings) as server:
        yield server


def test_the_document_is_valid():
    assert list(OpenAPIV31SpecValidator(make_document()).iter_errors()) == []


def test_the_document_describes_the_routes_of_the_server_and_no_others(settings: Settings):
    routes = [one for one in Server(settings).routes(with_aws_routes=True) if isinstance(one, Route)]
    served = {(one.path, method.lower()) for one in routes for method in one.methods or () if method != "HEAD"}
    paths = make_document()["paths"]
    described = {(path, name) for path, item in paths.items() for name in item if name != "parameters"}
    assert described == served


def operations() -> list[dict[str, Any]]:
    paths = make_document()["paths"].values()
    return [one for item in paths for name, one in item.items() if name != "parameters"]


def test_operations_have_ids_of_their_own_and_tags_that_are_described():
    ids = [one["operationId"] for one in operations()]
    assert len(set(ids)) == len(ids)
    assert {tag for one in operations() for tag in one["tags"]} == {tag["name"] for tag in make_document()["tags"]}


def test_every_status_of_an_error_is_described():
    sent = {status for _, status, _ in ERROR_STATUSES} | {INTERNAL[0]}
    assert sent - NOT_SENT <= set(STATUSES)


def schema_of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": make_document()["components"]}


def test_jobs_are_as_they_are_described(jobs: JobServer):
    done = jobs.wait_for(jobs.submit().json()["id"])
    failed = jobs.wait_for(jobs.submit(b"fail").json()["id"])
    waiting = jobs.wait_for(jobs.submit(b"wait").json()["id"], "processing")
    for job in (done, failed, waiting):
        jsonschema.validate(job, schema_of("Job"))
        assert set(job) == set(make_document()["components"]["schemas"]["Job"]["properties"])
    page = jobs.client.get("/v1/jobs?limit=2").json()
    jsonschema.validate(page, schema_of("JobPage"))
    assert set(page["jobs"][0]) == set(make_document()["components"]["schemas"]["JobSummary"]["properties"])
    jsonschema.validate(jobs.client.get("/v1/jobs/1").json(), schema_of("Error"))


def test_generations_are_as_they_are_described(settings: Settings):
    with running_job_server(settings.model_copy(update={"job_workers": 0})) as jobs:
        jobs.server.pool.health = {"sync_models": ["wav2lip"]}
        created = jobs.client.post("/v2/generate", json=GENERATION)
        jsonschema.validate(created.json(), schema_of("Generation"))
        assert set(created.json()) == set(make_document()["components"]["schemas"]["Generation"]["properties"])
        (model,) = jobs.client.get("/v2/models").json()
        jsonschema.validate(model, schema_of("GenerationModel"))
        jsonschema.validate(jobs.client.get("/v2/generate/1").json(), schema_of("GenerationError"))


@pytest.mark.parametrize(
    ("name", "body", "is_valid"),
    [
        ("ReadRequest", {"s3_bucket": "clips", "s3_video_key": "a.mp4", "nbest": 3}, True),
        ("ReadRequest", {"video": "AAAA", "mouths": True}, True),
        ("ReadRequest", {"video": "AAAA", "mouths": 9}, False),
        ("ReadRequest", {"video_url": "https://a.example/a.mp4"}, False),
        ("ReadJobRequest", {"video_url": "https://a.example/a.mp4", "webhook_url": "https://b.example/"}, True),
        ("ReadJobRequest", {"video": "AAAA", "webhook_events": ["job.started"]}, False),
        ("SyncRequest", {"task": "lipsync", "face": "AAAA", "audio": "AAAA", "pads": [0, 10, 0, 0]}, True),
        ("SyncRequest", {"task": "lipsync", "face_url": "https://a.example/", "audio": "AAAA"}, False),
        ("SyncJobRequest", {"task": "lipsync", "face_url": "https://a.example/", "audio": "AAAA"}, True),
        ("GenerateRequest", {"image": "AAAA"}, False),
        ("SpeechRequest", {"text": "Good morning.", "language": "en-us", "rate": 160}, True),
        ("SpeechRequest", {"text": "Good morning.", "rate": 1000}, False),
        ("GenerationRequest", GENERATION, True),
        ("GenerationRequest", GENERATION | {"options": {"sync_mode": "loop"}}, True),
        ("GenerationRequest", GENERATION | {"options": {"prompt": "happy"}}, False),
        ("GenerationRequest", {"model": "wav2lip", "input": []}, False),
    ],
)
def test_requests_are_as_they_are_described(name: str, body: dict[str, Any], *, is_valid: bool):
    validator = jsonschema.Draft202012Validator(schema_of(name))
    assert validator.is_valid(body) == is_valid


def test_the_document_and_its_page_need_no_token(settings: Settings):
    with running_job_server(settings.model_copy(update={"token": "secret"})) as jobs:
        found = jobs.client.get("/openapi.json", headers={"sec-fetch-site": "cross-site"})
        assert found.json() == make_document()
        page = jobs.client.get("/docs")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "http:" not in page.text.replace("HTTP", "")
        assert "https:" not in page.text


def test_on_sagemaker_there_is_neither_unless_it_can_be_reached(settings: Settings):
    def paths(**fields: bool) -> set[str]:
        server = Server(settings.model_copy(update={"on_sagemaker": True} | fields))
        return {getattr(route, "path", "") for route in server.routes()}

    assert not {"/docs", "/openapi.json"} & paths()
    assert {"/docs", "/openapi.json"} <= paths(realtime=True)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_shows_every_operation_and_calls_nobody_else(jobs: JobServer):
    sync_api = pytest.importorskip("playwright.sync_api")
    requested: list[str] = []
    faults: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda err: faults.append(str(err)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(f"{jobs.client.base_url}/docs")
        page.wait_for_selector("#invoke")
        shown = page.eval_on_selector_all("#operations > details[id]", "nodes => nodes.map((node) => node.id)")
        text = page.text_content("#submitJob")
        browser.close()
    assert faults == []
    assert sorted(shown) == sorted(one["operationId"] for one in operations())
    assert "Idempotency-Key" in text
    assert "ReadJobRequest | SyncJobRequest" in text
    origin = str(jobs.client.base_url).rstrip("/")
    assert {url for url in requested if not url.startswith("data:")} == {
        f"{origin}/{name}" for name in ("docs", "docs.js", "openapi.json", "web/style.css")
    }
