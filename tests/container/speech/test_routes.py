"""`/v1/speech` over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.fake_espeak import write_fake_espeak
from support.job_server import JobServer, running_job_server

from container.speech.synthesizer import SpeechSynthesizer
from inference.settings import Settings

URL = "/v1/speech"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    with running_job_server(settings.model_copy(update={"token": "secret"}), Authorization="Bearer secret") as running:
        running.server.speech = SpeechSynthesizer(str(write_fake_espeak(tmp_path_factory.mktemp("program"))))
        yield running


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_text_becomes_audio(server: JobServer):
    response = server.client.post(URL, json={"text": "Hello, you."})
    assert (response.status_code, response.headers["content-type"]) == (200, "audio/wav")
    assert response.content[:4] == b"RIFF"
    assert json.loads(response.content[44:])["text"] == "Hello, you."
    assert response.headers["x-request-id"]


def test_the_options_are_listed(server: JobServer):
    found = server.client.get(URL).json()
    assert found["available"] is True
    assert {"en", "en-us", "de"} <= set(found["languages"])
    assert found["rate"] == {"min": 80, "default": 175, "max": 450}
    assert found["max_characters"] == 2000


def test_errors_have_their_codes(server: JobServer):
    assert code_of(server.client.post(URL, json={"text": "a", "rate": 1})) == (400, "invalid_request")
    assert code_of(server.client.post(URL, content=b"a")) == (415, "unsupported_content_type")
    assert code_of(server.client.post(URL, content=b" " * 70_000)) == (413, "media_too_large")
    assert code_of(server.client.post(URL, json={"text": "crash"})) == (500, "worker_died")


def test_the_token_is_needed(server: JobServer):
    for response in (
        httpx.post(f"{server.client.base_url}{URL}", json={"text": "a"}),
        httpx.get(f"{server.client.base_url}{URL}"),
    ):
        assert code_of(response) == (403, "access_denied")


def test_without_espeak_the_answer_is_501(settings: Settings, tmp_path: Path):
    with running_job_server(settings.model_copy(update={"rate_limit": "2/min"})) as server:
        server.server.speech = SpeechSynthesizer(str(tmp_path / "missing"))
        assert server.client.get(URL).json()["available"] is False
        assert code_of(server.client.post(URL, json={"text": "a"})) == (501, "speech_unavailable")
        server.server.drain()
        assert code_of(server.client.post(URL, json={"text": "a"})) == (503, "not_ready")
        assert code_of(server.client.post(URL, json={"text": "a"})) == (429, "rate_limited")
