from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.drawn_face import draw_face
from support.synthetic_frames import talk
from support.video_files import make_image, make_video, make_wav

from container.cli import main

pytestmark = pytest.mark.usefixtures("weights_cache")


@pytest.fixture
def talk_mp4(tmp_path: Path, talking_film: bytes) -> Path:
    path = tmp_path / "talk.mp4"
    path.write_bytes(talking_film)
    return path


def test_read_prints_the_words(talk_mp4: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["read", str(talk_mp4)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == ""


def test_read_prints_json_with_the_file(talk_mp4: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["read", str(talk_mp4), str(talk_mp4), "--format", "json", "--device", "cpu"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["file"] == str(talk_mp4)
    assert first["num_frames"] == 75
    assert first["words"] == second["words"]


def test_read_prints_as_many_alternatives_as_requested(talk_mp4: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["read", str(talk_mp4), "--format", "json", "--nbest", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["alternatives"]) == 3
    assert found["alternatives"][0]["text"] == found["text"]
    assert main(["read", str(talk_mp4), "--format", "json", "--decoder", "greedy"]) == 0
    assert json.loads(capsys.readouterr().out)["alternatives"] == []


def test_read_chooses_among_phrases(talk_mp4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("set red in q six soon\n\nopen the door\n", "utf-8-sig")
    assert main(["read", str(talk_mp4), "--format", "json", "--phrases", str(phrases)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["text"] for one in found["alternatives"]} == {"SET RED IN Q SIX SOON", "OPEN THE DOOR"}
    assert sum(one["confidence"] for one in found["alternatives"]) == pytest.approx(1, abs=2e-4)
    assert found["text"] == found["alternatives"][0]["text"] == " ".join(word["word"] for word in found["words"])
    assert 0 <= found["words"][0]["start"] < found["words"][-1]["end"] <= found["duration_s"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no phrase; expected a phrase a line"),
        (b"\xff\xfe\x00", "expected text in UTF-8"),
        (b"yes\n" * (1 << 19), "more than 1 MiB"),
        ("é".encode() * (1 << 20), "more than 1 MiB"),
        (b"call 911\n", "'9' cannot be read from lips"),
        (None, "No such file"),
    ],
)
def test_phrases_that_cannot_be_used_exit_2(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "phrases.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["read", "x.mp4", "--phrases", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert words in err


def test_several_videos_are_named_and_one_failure_stops_no_other(
    talk_mp4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["read", str(tmp_path / "missing.mp4"), str(talk_mp4)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{talk_mp4}: ")
    assert err == "viseme: missing.mp4: No such file or directory\n"


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "Ünïcødé 視頻 🎬",
        'it\'s "quoted"',
        "100%done%20",
        "a+b&c=d;e",
        "-dash",
        "col:on",
        "file:talk.mp4",
        "[b] {x}",
    ],
)
def test_a_video_of_any_name_is_read(name: str, talk_mp4: Path, capsys: pytest.CaptureFixture[str]):
    odd = talk_mp4.rename(talk_mp4.with_name(name))
    assert main(["read", "--", str(odd)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_name_that_is_no_utf8_is_read(talk_mp4: Path, capfd: pytest.CaptureFixture[str]):
    odd = talk_mp4.rename(os.fsdecode(os.fsencode(talk_mp4.parent) + b"/lat\xefn.mp4"))
    assert main(["read", str(odd), str(odd)]) == 0
    assert capfd.readouterr().out.count("lat") == 2


def bad_files(folder: Path) -> dict[str, Path]:
    whole = make_video(talk(20))
    huge = make_image(np.zeros((32, 32, 3), np.uint8)).replace(
        (32).to_bytes(4, "big") * 2, (20_000).to_bytes(4, "big") * 2
    )
    contents = {
        "truncated.mp4": whole[: len(whole) // 2],
        "audio.wav": make_wav(),
        "pixel.png": make_image(np.zeros((1, 1, 3), np.uint8)),
        "huge.png": huge,
        "text.mp4": b"this is not a video\n" * 30,
        "empty.mp4": b"",
        "faceless.mp4": make_video([np.full((96, 96, 3), 120, np.uint8)] * 5),
        "still.png": make_image(draw_face()),
    }
    for name, value in contents.items():
        (folder / name).write_bytes(value)
    return {name: folder / name for name in contents} | {"directory": folder}


def test_each_unreadable_file_exits_2_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, path in bad_files(tmp_path).items():
        assert main(["read", str(path)]) == 2, name
        out, err = capsys.readouterr()
        assert out == "", name
        assert len(err.splitlines()) == 1, name
        assert path.name in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "VIDEO"),
        (["x.mp4", "--format", "doc"], "'txt', 'json'"),
        (["x.mp4", "--face", "big"], "'largest' or a number"),
        (["x.mp4", "--decoder", "beam"], "'greedy', 'grammar'"),
        (["x.mp4", "--nbest", "0"], "nbest 0: expected a number from 1 to 100"),
        (["x.mp4", "--nbest", "many"], "--nbest"),
        (["x.mp4", "--weights", "nope"], "known: starter"),
        (["x.mp4", "--precision", "f16", "--device", "cpu"], "needs a GPU"),
        (["x.mp4", "--colour"], "--colour"),
    ],
)
def test_an_invalid_option_exits_2_with_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["read", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert words in err


def test_read_writes_every_format_to_a_folder(talk_mp4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out" / "deep"
    assert main(["read", str(talk_mp4), "--format", "all", "--output-dir", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert sorted(path.name for path in out.iterdir()) == [
        f"talk.{form}" for form in ("json", "srt", "tsv", "txt", "vtt")
    ]
    text = (out / "talk.txt").read_text().strip()
    assert text
    assert json.loads((out / "talk.json").read_text())["text"] == text
    assert (out / "talk.vtt").read_text().startswith("WEBVTT")
    assert "-->" in (out / "talk.srt").read_text()
    assert (out / "talk.tsv").read_text().startswith("start\tend\ttext\n")


def test_read_prints_captions_of_one_video(talk_mp4: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["read", str(talk_mp4), "--format", "srt"]) == 0
    assert capsys.readouterr().out.startswith("1\n00:00:")


def test_results_for_the_same_file_are_rejected_before_any_work(
    talk_mp4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other" / talk_mp4.name
    for words, arguments in {
        "written to the same files": [str(talk_mp4), str(other), "--output-dir", str(tmp_path / "out")],
        "expected --output-dir": [str(talk_mp4), "--format", "all"],
        "several files": [str(talk_mp4), str(other), "--format", "vtt"],
        "is a file; expected a folder": [str(talk_mp4), "--output-dir", str(talk_mp4)],
    }.items():
        assert main(["read", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
