from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.commands.transcript_files import TranscriptFormat, write_transcript
from inference.errors import InvalidRequest
from inference.lip_reading import Transcript, Word
from inference.lip_reading.options import ModelInfo

MODEL = ModelInfo("LipCoordNet", "starter", "0" * 64)
TRANSCRIPT = Transcript(
    "BIN BLUE", (Word("BIN", 0.5, 0.8, 0.9), Word("BLUE", 0.8, 1.1, 0.9)), 0.9, 75, 25.0, 3.0, 0, MODEL, {}
)


@pytest.fixture
def private_umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)


@pytest.mark.usefixtures("private_umask")
def test_files_have_the_permissions_of_the_umask(tmp_path: Path):
    written = write_transcript(TRANSCRIPT, Path("clip.mp4"), TranscriptFormat.all, tmp_path / "out")
    assert sorted(path.suffix for path in written) == [".json", ".srt", ".tsv", ".txt", ".vtt"]
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    assert (tmp_path / "out" / "clip.txt").read_text() == "BIN BLUE\n"


def test_a_name_of_255_bytes_gets_all_files(tmp_path: Path):
    written = write_transcript(TRANSCRIPT, Path("x" * 251 + ".mp4"), TranscriptFormat.all, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert len(written) == 5


def test_a_transcript_is_written_through_a_link_but_not_over_the_video(tmp_path: Path):
    (tmp_path / "clip.txt").symlink_to("target.txt")
    assert write_transcript(TRANSCRIPT, Path("clip.mp4"), TranscriptFormat.txt, tmp_path) == [tmp_path / "target.txt"]
    assert (tmp_path / "clip.txt").is_symlink()
    video = tmp_path / "video.srt"
    video.write_bytes(b"video")
    with pytest.raises(InvalidRequest, match="is the input"):
        write_transcript(TRANSCRIPT, video, TranscriptFormat.srt, tmp_path)
