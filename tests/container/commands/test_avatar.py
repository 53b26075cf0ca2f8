from __future__ import annotations

import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from support.fake_espeak import write_fake_espeak

from container.cli import main
from inference.avatar.build import AvatarSource
from inference.avatar.manifest import read_manifest


@pytest.fixture
def home(tmp_path: Path, weights_cache: Path, avatar_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with the face models and an avatar folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "weights").symlink_to(weights_cache)
    (weights_cache.parent / "avatars").mkdir(exist_ok=True)  # keeps the starter, which is rendered only once
    (tmp_path / "home" / "avatars").symlink_to(weights_cache.parent / "avatars")
    monkeypatch.setenv("VISEME_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("VISEME_AVATARS", str(avatar_folder.parent))
    return tmp_path


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 24_000, 0, "NONE", ""))
        out.writeframes((8000 * np.sin(np.arange(24_000) / 15)).astype(np.int16).tobytes())
    return path


def test_a_package_is_built_inspected_and_rendered(home: Path, avatar_source: AvatarSource, speech: Path, capsys):
    parts = [str(avatar_source.video), "--checkpoint", str(avatar_source.checkpoint)]
    options = ["--encoder", str(avatar_source.encoder), "--look-ahead", "1", "-o", str(home / "mine")]
    assert main(["avatar", "build", *parts, *options]) == 0
    assert "wrote" in capsys.readouterr().err
    assert read_manifest(home / "mine").look_ahead_windows == 1
    assert main(["avatar", "info", str(home / "mine"), "--sheet", str(home / "sheet.png"), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    about = json.loads(printed.out)
    assert (about["name"], about["frames"], about["mode"], about["can_hear"]) == ("mine", 75, "ave", True)
    assert about["idle"]["is_shut"]
    assert (home / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert (
        main(["avatar", "speak", str(home / "mine"), str(speech), "-o", str(home / "out.mp4"), "--device", "cpu"]) == 0
    )
    assert "25 frames, 1 s, 320x240" in capsys.readouterr().err
    with av.open(str(home / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 25
        assert video.streams.audio[0].rate == 24_000
        assert abs(video.duration / av.time_base - 1) < 0.08


def test_a_text_is_spoken_by_espeak(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The program speaks a second for any text: 25 frames."""
    write_fake_espeak(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    out = str(home / "out.mp4")
    assert main(["avatar", "say", "drawn", "Hello.", "-o", out, "--device", "cpu"]) == 0
    assert "25 frames, 1 s, 320x240" in capsys.readouterr().err
    with av.open(out) as video:
        assert video.streams.audio[0].rate == 22_050
    assert main(["avatar", "say", "drawn", "Hello.", "--language", "xx", "-o", out, "--force"]) == 2
    assert "\"language\": found 'xx'" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert main(["avatar", "say", "drawn", "Hello.", "-o", out, "--force"]) == 1
    assert "espeak-ng is not installed" in capsys.readouterr().err


def test_an_input_is_overwritten_only_by_force(home: Path, speech: Path, capsys):
    before = speech.read_bytes()
    link = speech.with_name("out.mp4")
    link.symlink_to(speech)
    assert main(["avatar", "speak", "drawn", str(speech), "-o", str(link)]) == 2
    assert "is the input" in capsys.readouterr().err
    assert speech.read_bytes() == before


def test_avatars_are_found_by_name(home: Path, speech: Path, capsys):
    assert main(["avatar", "info", "drawn", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 75
    assert main(["avatar", "speak", "nobody", str(speech), "-o", str(home / "out.mp4")]) == 2
    assert "avatar 'nobody': no such folder and no such name; known:" in capsys.readouterr().err
    assert not (home / "out.mp4").exists()


def test_importing_an_incomplete_seed_package_exits_2(home: Path, capsys):
    (home / "seed").mkdir()
    assert main(["avatar", "import", str(home / "seed"), "-o", str(home / "mine")]) == 2
    assert "missing: the full-frame video" in capsys.readouterr().err
    assert not (home / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["avatar", "build", "FILM", "--checkpoint", "CKPT", "-o", "out", "--mode", "whisper"], "expected ave, hubert"),
        (["avatar", "build", "FILM", "--checkpoint", "CKPT", "-o", "out", "--look-ahead", "7"], "expected -1 to 6"),
        (["avatar", "import", ".", "-o", "out", "--look-ahead", "-2"], "look-ahead -2: expected -1 to 6"),
        (["avatar", "build", "none.mp4", "--checkpoint", "CKPT", "-o", "out"], "none.mp4"),
        (["avatar", "build", "FILM", "--checkpoint", "FILM", "-o", "out"], "neither safetensors nor a torch file"),
        (["avatar", "build", "FILM", "-o", "out"], "--checkpoint"),
        (["avatar", "info", "drawn", "--sheet", "out.jpg"], "expected .png"),
        (["avatar", "speak", "drawn", "FILM", "-o", "out.avi"], "expected one of .mp4"),
        (["avatar", "speak", "drawn", "CKPT", "-o", "out.mp4"], "is a ZIP archive"),
        (["avatar", "speak", "drawn", "FILM", "-o", "out.mp4", "--precision", "int8"], "avatars run in auto, f32"),
    ],
)
def test_an_invalid_argument_exits_2(
    home: Path, avatar_source: AvatarSource, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str, capsys
):
    monkeypatch.chdir(home)
    given = {"FILM": str(avatar_source.video), "CKPT": str(avatar_source.checkpoint)}
    assert main([given.get(one, one) for one in arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(home.glob("out*"))


@pytest.mark.parametrize("rate", [8000, 24_000, 48_000])
def test_a_voice_of_one_sample_is_silence(home: Path, rate: int, capsys):
    speech = home / "one.wav"
    with wave.open(str(speech), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(b"\x00\x10")
    assert main(["avatar", "speak", "drawn", str(speech), "-o", str(home / "out.mp4"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().err
    assert "warning: silent_audio" in printed
    assert "1 frames, 0.04 s" in printed
