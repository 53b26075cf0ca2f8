"""Media at URLs, for the engines."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from support.local_http import http_server, send

from inference.engines.remote_files import RemoteFiles
from inference.engines.sync import stem_of
from inference.errors import AccessDenied, Canceled, MediaTooLarge
from inference.requests import UrlObject
from inference.settings import Settings


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files(tmp_path: Path, **fields: object) -> RemoteFiles:
    return RemoteFiles(Settings(data_dir=tmp_path, **{"allowed_url_hosts": ("localhost",)} | fields))  # type: ignore[arg-type]


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.iterdir() if path.name.startswith("viseme-")]


def test_a_url_is_a_local_file_that_is_deleted(tmp_path: Path) -> None:
    with http_server(send(body=b"a video")) as port:
        source = UrlObject(f"http://localhost:{port}/my%20clip.mp4?key=1")
        with files(tmp_path).fetched(source) as path:
            assert isinstance(path, Path)
            assert (path.name, path.read_bytes()) == ("my_20clip.mp4", b"a video")
            assert stem_of(source, "face") == "my_20clip"
    assert not path.exists()
    assert leftovers(tmp_path) == []


def test_a_private_host_is_not_fetched(tmp_path: Path) -> None:
    with (
        http_server(send()) as port,
        pytest.raises(AccessDenied, match="not public; VISEME_ALLOWED_URL_HOSTS"),
        files(tmp_path, allowed_url_hosts=()).fetched(UrlObject(f"http://localhost:{port}/a.mp4")),
    ):
        pass
    assert leftovers(tmp_path) == []


def test_a_file_over_the_limit_is_not_fetched(tmp_path: Path) -> None:
    with (
        http_server(send(body=bytes(11))) as port,
        pytest.raises(MediaTooLarge, match="over the limit of 10 bytes"),
        files(tmp_path, max_bytes=10).fetched(UrlObject(f"http://localhost:{port}/a.mp4")),
    ):
        pass
    assert leftovers(tmp_path) == []


def test_a_canceled_job_ends_its_download(tmp_path: Path) -> None:
    def check() -> None:
        raise Canceled("the request was canceled")

    with (
        http_server(send(body=bytes(1000))) as port,
        pytest.raises(Canceled),
        files(tmp_path).fetched(UrlObject(f"http://localhost:{port}/a.mp4"), check),
    ):
        pass
    assert leftovers(tmp_path) == []
