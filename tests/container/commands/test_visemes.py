from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.audio_files import encode_audio, wav_without_samples
from support.video_files import make_video, make_wav, numbered_frames

from container.cli import main
from inference.visemes import BLENDSHAPES, OCULUS_VISEMES


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    path.write_bytes(make_wav(1.0))
    return path


def test_json_has_segments_and_frames(wav: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["visemes", str(wav)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["duration_s"], found["warnings"]) == ("success", 1.0, [])
    assert (found["visemes"], found["blendshapes"]) == ([*OCULUS_VISEMES], [*BLENDSHAPES])
    assert [one["time"] for one in found["frames"]] == [round(k / 25, 4) for k in range(25)]
    assert (found["segments"][0]["start"], found["segments"][-1]["end"]) == (0.0, 1.0)
    assert {len(one["weights"]) for one in found["frames"] + found["segments"]} == {15}


def test_a_table_and_subtitles_have_the_same_times(wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["visemes", str(wav), "--format", "tsv"]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["start", "end", "phoneme", "viseme", *OCULUS_VISEMES, *BLENDSHAPES]
    assert {len(row) for row in rows} == {len(header)}
    output = tmp_path / "out.srt"
    assert main(["visemes", str(wav), "--format", "srt", "-o", str(output)]) == 0
    assert f"wrote {output}" in capsys.readouterr().err
    cues = [cue.splitlines() for cue in output.read_text().split("\n\n") if cue.strip()]
    spoken = [row for row in rows if row[2] != "_"]
    assert [cue[2] for cue in cues] == [f"{row[3]} ({row[2]})" for row in spoken]
    assert all(len(cue[1]) == len("00:00:00,000 --> 00:00:00,000") for cue in cues)


def test_the_audio_of_a_video_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    video = tmp_path / "video.mp4"
    video.write_bytes(make_video(numbered_frames(25), with_tone=True))
    assert main(["visemes", str(video)]) == 0
    assert json.loads(capsys.readouterr().out)["duration_s"] == pytest.approx(1, abs=0.1)


def test_files_without_audio_exit_2_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    contents = {
        "silent.mp4": (make_video(numbered_frames(3)), "expected audio"),
        "empty.wav": (b"", "is empty"),
        "none.wav": (wav_without_samples(), "no samples"),
        "text.wav": (b"hello, this is text", "text"),
    }
    for name, (content, words) in contents.items():
        path, output = tmp_path / name, tmp_path / "out.json"
        path.write_bytes(content)
        for more in ([], ["-o", str(output)]):
            assert main(["visemes", str(path), *more]) == 2
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert words in err
    assert {path.name for path in tmp_path.iterdir()} == set(contents)


def test_an_input_is_not_overwritten(wav: Path, capsys: pytest.CaptureFixture[str]):
    before = wav.read_bytes()
    assert main(["visemes", str(wav), "-o", str(wav)]) == 2
    assert "is the input" in capsys.readouterr().err
    assert wav.read_bytes() == before


def test_digital_silence_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wav = tmp_path / "silence.wav"
    wav.write_bytes(encode_audio(np.zeros((1, 24_000), np.int16)))
    assert main(["visemes", str(wav)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["warnings"] == ["silent_audio"]
    assert "silent_audio" in err
    assert [one["viseme"] for one in json.loads(out)["segments"]] == ["sil"]
