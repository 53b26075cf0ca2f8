"""The route of visemes in a worker, with the shipped network and the sandboxed decoder."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.audio_files import wav_without_samples
from support.video_files import make_video, make_wav, numbered_frames

from container.worker.messages import DeadlineChanged, WorkerRequest
from container.worker.routes import WorkerRoutes
from inference.engines import Answer, Engines
from inference.errors import Canceled, DeadlineExceeded, InvalidRequest, NoAudio, UnsupportedContentType, VisemeError
from inference.media_types import JSON, AcceptHeader

FORM = "multipart/form-data; boundary=b"


def form_of(content: bytes, name: str = "file") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a.wav"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


@pytest.fixture
def handle(engines: Engines, tmp_path: Path) -> Callable[..., Answer]:
    routes = WorkerRoutes(engines)

    def handle(body: bytes, content_type: str, accept: str | None = None, *, route="visemes", check=bool, **limits):
        folder = tmp_path / str(time.monotonic_ns())
        folder.mkdir()
        (folder / "body").write_bytes(body)
        headers = {"content-type": content_type}
        limits = {"sync_deadline": time.monotonic() + 60} | limits
        request = WorkerRequest(route, headers, folder / "body", "id-1", AcceptHeader.parse(accept), **limits)
        sent: list = []
        answer = routes.handle(request, check, sent.append)
        assert [type(one) for one in sent] == [DeadlineChanged]
        return answer

    return handle


def test_every_form_of_the_body_gives_the_same(handle: Callable[..., Answer]):
    wav = make_wav(0.6)
    inline = {"audio": base64.b64encode(wav).decode()}
    answers = [
        handle(wav, "audio/wav"),
        handle(form_of(wav), FORM),
        handle(json.dumps(inline).encode(), JSON),
        handle(json.dumps(inline | {"task": "visemes"}).encode(), JSON, route="invocations"),
    ]
    found = [json.loads(one.read()) for one in answers]
    assert found[0]["duration_s"] == 0.6
    assert len(found[0]["frames"]) == 15
    assert all(one == found[0] for one in found)


def test_a_table_and_subtitles_are_chosen_by_accept(handle: Callable[..., Answer]):
    table = handle(make_wav(0.2), "audio/wav", "text/tab-separated-values")
    assert table.content_type == "text/tab-separated-values"
    assert table.read().startswith(b"start\tend\tphoneme\tviseme\tsil\t")
    assert handle(make_wav(0.2), "audio/wav", "application/x-subrip").content_type == "application/x-subrip"


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"nonsense, not audio", "audio/wav", VisemeError),
        (wav_without_samples(), "audio/wav", NoAudio),
        (form_of(b"x", "audio"), FORM, InvalidRequest),
        (form_of(b""), FORM, InvalidRequest),
        (b"x", "text/plain", UnsupportedContentType),
    ],
)
def test_malformed_input_is_refused(handle: Callable[..., Answer], body: bytes, content_type: str, error: type):
    with pytest.raises(error):
        handle(body, content_type)


def test_a_video_without_audio_has_no_visemes(handle: Callable[..., Answer]):
    with pytest.raises(NoAudio):
        handle(make_video(numbered_frames(3)), "video/mp4")


def test_a_request_ends_when_it_is_canceled_or_too_late(handle: Callable[..., Answer]):
    def cancel() -> None:
        raise Canceled("the request was canceled")

    with pytest.raises(Canceled):
        handle(make_wav(0.2), "audio/wav", check=cancel)
    with pytest.raises(DeadlineExceeded):
        handle(make_wav(0.2), "audio/wav", sync_deadline=0.0)
