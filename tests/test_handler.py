from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path

import pytest

from inference import handler
from inference.engines import Engines
from inference.errors import DeadlineExceeded, InvalidRequest, NoFaceFound, UnsupportedContentType, WeightsError
from inference.weights.registry import STARTER


@pytest.fixture(scope="module")
def model(weights_cache: Path, tmp_path_factory: pytest.TempPathFactory):
    engines = handler.model_fn(str(tmp_path_factory.mktemp("model")))
    yield engines
    engines.close()


class ToolkitContext:
    """A hosting toolkit's context, as far as it carries headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def get_all_request_header(self, index: int) -> dict[str, str]:
        assert index == 0
        return self._headers


def test_it_has_exactly_the_four_functions():
    ours = {n: f for n, f in vars(handler).items() if inspect.isfunction(f) and f.__module__ == handler.__name__}
    assert {n: list(inspect.signature(f).parameters) for n, f in ours.items()} == {
        "model_fn": ["model_dir", "context"],
        "input_fn": ["body", "content_type", "context"],
        "predict_fn": ["data", "model", "context"],
        "output_fn": ["prediction", "accept", "context"],
    }


def run(model: Engines, body: bytes, content_type: str, accept: str | None, context=None) -> tuple[bytes, str]:
    request = handler.input_fn(body, content_type, context)
    return handler.output_fn(handler.predict_fn(request, model, context), accept, context)


def test_json_in_json_out(model: Engines, talking_film: bytes):
    body = json.dumps({"video": base64.b64encode(talking_film).decode()}).encode()
    answer, content_type = run(model, body, "application/json", "application/json")
    assert content_type == "application/json"
    found = json.loads(answer)
    assert found["status"] == "success"
    assert found["num_frames"] == 75
    assert {
        "text",
        "words",
        "confidence",
        "alternatives",
        "frames_without_face",
        "model",
        "timings_ms",
        "fps",
        "duration_s",
    } <= set(found)


@pytest.mark.parametrize(
    ("accept", "start"), [("text/plain", b""), ("text/vtt", b"WEBVTT"), ("application/x-subrip", b"1\n")]
)
def test_other_media_types_out(model: Engines, talking_film: bytes, accept: str, start: bytes):
    answer, content_type = run(model, talking_film, "video/mp4", accept)
    assert content_type == accept
    assert answer.startswith(start)
    assert answer.endswith(b"\n")


def test_options_come_from_the_context(model: Engines, talking_film: bytes):
    context = ToolkitContext({"X-Amzn-SageMaker-Custom-Attributes": '{"face": 3}'})
    with pytest.raises(NoFaceFound, match="face 3 was asked for"):
        run(model, talking_film, "video/mp4", None, context)


def test_on_sagemaker_a_request_ends_when_its_caller_waits_no_longer(
    model: Engines, talking_film: bytes, monkeypatch: pytest.MonkeyPatch
):
    settings = model.settings.model_copy(update={"on_sagemaker": True, "deadline_s": 1e-6})
    monkeypatch.setattr(model, "settings", settings)
    with pytest.raises(DeadlineExceeded, match="longer than 1e-06 s"):
        run(model, talking_film, "video/mp4", None, ToolkitContext({}))
    asynchronous = ToolkitContext({"X-Amzn-SageMaker-Inference-Id": "11111111-2222-3333-4444-555555555555"})
    assert run(model, talking_film, "video/mp4", None, asynchronous)[0]  # an hour


def test_elsewhere_a_request_may_take_any_time(model: Engines, talking_film: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "settings", model.settings.model_copy(update={"deadline_s": 1e-6}))
    assert run(model, talking_film, "video/mp4", None)[0]


def test_errors_are_typed(model: Engines):
    with pytest.raises(InvalidRequest):
        handler.input_fn(b"{", "application/json")
    with pytest.raises(UnsupportedContentType):
        handler.input_fn(b"x", "text/html")
    with pytest.raises(UnsupportedContentType, match="accept image/png: expected one of"):
        handler.input_fn(b"{}", "application/json", ToolkitContext({"Accept": "image/png"}))


def test_a_model_directory_with_the_wrong_weights_raises(tmp_path: Path, weights_cache: Path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="HTML"):
        handler.model_fn(str(tmp_path))


def test_weights_in_the_model_directory_are_used(tmp_path: Path, weights_cache: Path):
    name = STARTER.files[0].name
    (tmp_path / name).write_bytes((STARTER.shipped_in / name).read_bytes())
    engines = handler.model_fn(str(tmp_path))
    assert engines.reader.model.info.weights == name
    engines.close()


def test_it_runs_under_sagemakers_own_toolkit(
    talking_film: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_cache
):
    transformer_module = pytest.importorskip("sagemaker_inference.transformer")
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "inference.handler")
    monkeypatch.setenv("SAGEMAKER_SUBMIT_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    context = FakeServerContext({"Content-Type": "video/mp4", "Accept": "application/json"}, tmp_path)
    transformer = transformer_module.Transformer()
    (answer,) = transformer.transform([{"body": talking_film}], context)
    assert context.status is None, answer
    assert json.loads(answer)["num_frames"] == 75
    assert context.content_type == "application/json"
    transformer._model.close()


class FakeServerContext:
    """The context that multi-model-server passes to its toolkit."""

    def __init__(self, headers: dict[str, str], model_dir: Path) -> None:
        self.system_properties = {"model_dir": str(model_dir)}
        self.request_processor = [self]
        self.status: int | None = None
        self.content_type = ""
        self._headers = headers

    def get_request_properties(self) -> dict[str, str]:
        return self._headers

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self._headers

    def set_response_status(self, code: int, phrase: str = "", idx: int = 0) -> None:
        self.status = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.content_type = value
