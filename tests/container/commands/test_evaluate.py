from __future__ import annotations

import builtins
import json
from pathlib import Path

import cv2
import pytest

from container.cli import main
from inference.speaker import SyntheticClip

TEXT = "BIN BLUE AT F TWO NOW"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows: a rendered clip, a missing one, and one that is not a video."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "list").mkdir()
    SyntheticClip(TEXT, 3).write(folder / "list" / "good.mp4", with_audio=False)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "list.csv").write_text(
        f"file,transcript,speaker\ngood.mp4,{TEXT.lower()},a\nmissing.mp4,{TEXT},b\nbroken.mp4,{TEXT},b\n"
    )
    (folder / "good.csv").write_text(f"\ufefffile,transcript\nlist/good.mp4,  {TEXT} \n", encoding="utf-8")
    return folder


def test_readable_clips_are_scored_and_the_others_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    json_file, plot = tmp_path / "out.json", tmp_path / "out.png"
    assert main(["eval", str(folder / "list.csv"), "--json", str(json_file), "--plot", str(plot)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("1 clips, weights starter, ")
    assert "right words by slot" in out
    assert "missing.mp4: no such file" in err
    assert "broken.mp4: looks like text" in err
    assert "2 of 3 clips could not be read" in err
    found = json.loads(json_file.read_text())
    assert [one["file"] for one in found["failed"]] == ["missing.mp4", "broken.mp4"]
    assert set(found["decoders"]) == {"greedy", "grammar"}
    for one in found["decoders"].values():
        assert one["n_clips"] == 1
        assert 0 <= one["wer"] <= 1.5
        assert set(one["slots"]) == {"command", "colour", "preposition", "letter", "digit", "adverb"}
    image = cv2.imread(str(plot))
    assert image is not None
    assert image.std() > 10  # not blank


def test_a_table_as_spreadsheets_write_it_is_accepted(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["eval", str(folder / "good.csv"), "--device", "cpu", "--precision", "f32"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 clips, weights starter, f32 on cpu\n")
    assert "grammar" in out
    assert err == ""


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ("", "no rows"),
        ("name,words\nx.mp4,BIN\n", "no column file nor transcript; found name, words"),
        ("file,transcript\nx.mp4,\n", "line 2: expected a file and a transcript"),
    ],
)
def test_an_invalid_table_is_reported(tmp_path: Path, contents: str, words: str, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "list.csv").write_text(contents)
    assert main(["eval", str(tmp_path / "list.csv")]) == 2
    assert words in capsys.readouterr().err


def test_without_a_readable_clip_there_is_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "list.csv").write_text("file,transcript\nx.mp4,BIN\n")
    assert main(["eval", str(tmp_path / "list.csv"), "--json", str(tmp_path / "out.json")]) == 2
    assert "nothing could be read" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["decoders"] == {}


def test_without_matplotlib_the_error_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["eval", str(folder / "good.csv"), "--plot", "x.png"]) == 2
    assert "pip install 'viseme[eval]'" in capsys.readouterr().err


def test_the_help_names_the_extra(capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "--help"]) == 0
    assert "pip install 'viseme[eval]'" in " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
