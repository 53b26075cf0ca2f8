"""`viseme avatar livekit`: what it needs before it joins a room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from container.cli import main

ARGUMENTS = ["avatar", "livekit", "drawn", "--url", "ws://127.0.0.1:9", "--room", "stage", "--device", "cpu"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISEME_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("LIVEKIT_API_KEY", raising=False)


def test_without_a_token(capsys: pytest.CaptureFixture[str]):
    assert main(ARGUMENTS) == 2
    assert "no token: set VISEME_LIVEKIT_TOKEN, or LIVEKIT_API_KEY" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in [one for one in sys.modules if one.startswith("container.voice_agents.livekit")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "livekit", None)
    assert main(ARGUMENTS) == 2
    assert "pip install 'viseme[livekit]'" in capsys.readouterr().err


def test_a_server_that_cannot_be_reached(
    avatar_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("VISEME_AVATARS", str(avatar_folder.parent))
    monkeypatch.setenv("VISEME_LIVEKIT_TOKEN", "given")
    assert main(ARGUMENTS) == 1
    assert "ws://127.0.0.1:9: " in capsys.readouterr().err
