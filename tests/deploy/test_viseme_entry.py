"""The archive's entry file as a hosting toolkit calls it, without the toolkit."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from inference.engines import Engines
from inference.errors import DeviceUnavailable, InvalidRequest, StorageError

ENTRY = Path(__file__).parents[2] / "deploy" / "artifact" / "viseme_entry.py"


class RequestProcessor:
    """Source: `mms/context.py` of multi-model-server 1.1.11."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.request_headers = headers
        self.response_headers: dict[str, str] = {}
        self.status = 200

    def get_request_properties(self) -> dict[str, str]:
        return self.request_headers

    def add_response_property(self, key: str, value: str) -> None:
        self.response_headers[key] = value

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self.status = code


class ServerContext:
    """Source: `mms/context.py` of multi-model-server 1.1.11."""

    def __init__(self, **headers: str) -> None:
        self.first = RequestProcessor(headers)
        self.request_processor: list[Any] = [self.first]

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.request_processor[idx].add_response_property("content-type", value)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, reason_phrase=phrase)


@pytest.fixture(scope="module")
def entry() -> ModuleType:
    spec = importlib.util.spec_from_file_location("viseme_entry", ENTRY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(entry: ModuleType, model: Engines, body: Any, content_type: str, context: ServerContext) -> bytes:
    """Call the functions in the order of both toolkits, which then set the content type to what is accepted."""
    accept = context.first.request_headers.get("Accept", "application/json")
    request = entry.input_fn(body, content_type, context)
    answer: bytes = entry.output_fn(entry.predict_fn(request, model, context), accept, context)
    context.set_response_content_type(0, accept)
    return answer


def code_of(body: bytes) -> str:
    found: str = json.loads(body)["error"]["code"]
    return found


def test_an_answer_has_the_media_type_that_was_chosen(entry: ModuleType, engines: Engines, talking_film: bytes):
    context = ServerContext(Accept="text/vtt, application/json;q=0.5")
    body = call(entry, engines, bytearray(talking_film), "video/mp4", context)
    assert body.startswith(b"WEBVTT")
    assert (context.first.status, context.first.response_headers) == (200, {"content-type": "text/vtt"})


def test_a_wrong_request_gets_the_status_and_body_of_our_own_server(entry: ModuleType, engines: Engines):
    context = ServerContext(Accept="video/mp4")
    body = call(entry, engines, {"face": 1}, "application/json", context)  # JSON that the server has parsed
    assert (context.first.status, code_of(body)) == (400, "invalid_request")
    assert context.first.response_headers == {"content-type": "application/json"}
    assert code_of(call(entry, engines, b"x", "text/html", context)) == "unsupported_content_type"
    assert context.first.status == 415


@pytest.mark.parametrize(
    ("err", "status", "code"),
    [
        (StorageError("S3 was interrupted"), 502, "storage_unavailable"),
        (MemoryError(), 507, "out_of_memory"),
        (DeviceUnavailable("/secret"), 500, "internal_error"),
        (ZeroDivisionError("/secret"), 500, "internal_error"),
    ],
)
def test_faults_of_the_server_are_logged(
    entry: ModuleType,
    engines: Engines,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    err: Exception,
    status: int,
    code: str,
):
    def fail(*_: Any) -> None:
        raise err

    monkeypatch.setattr(entry.handler, "predict_fn", fail)
    context = ServerContext()
    body = call(entry, engines, b"video", "video/mp4", context)
    assert (context.first.status, code_of(body)) == (status, code)
    assert b"secret" not in body
    log = capsys.readouterr().err
    assert type(err).__name__ in log
    assert log.endswith(f"viseme: request failed: {code}\n")


def test_an_answer_that_the_server_cannot_take_is_an_error(
    entry: ModuleType, engines: Engines, talking_film: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(entry, "MAX_ANSWER_BYTES", 100)
    context = ServerContext()
    body = call(entry, engines, talking_film, "video/mp4", context)
    assert (context.first.status, code_of(body)) == (413, "media_too_large")
    assert "expected at most 100" in json.loads(body)["error"]["message"]


def test_without_a_context_errors_are_raised(entry: ModuleType):
    with pytest.raises(InvalidRequest):
        entry.input_fn(b"{", "application/json")
