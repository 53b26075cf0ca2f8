from __future__ import annotations

from pathlib import Path

import pytest

from container.commands.sync_speaker import parse_speaker
from inference.errors import InvalidRequest
from inference.lip_sync import ActiveSpeaker


def test_the_forms_of_a_speaker(tmp_path: Path):
    assert parse_speaker("auto") == ActiveSpeaker("auto")
    assert parse_speaker("12:320,180.5") == ActiveSpeaker(frame=12, point=(320, 180.5))
    path = tmp_path / "boxes.json"
    path.write_text("[[1, 2, 3, 4.5], null]")
    assert parse_speaker(str(path)) == ActiveSpeaker(boxes=((1, 2, 3, 4.5), None))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ("{}", "expected a list of"),
        ("[1, 2]", "expected a list of"),
        ("[[1, 2, 3", "not JSON"),
        ('[["a", 2, 3, 4]]', "box 0 is"),
        ("[[1, 2, 3]]", "box 0 is"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, contents: str, words: str):
    path = tmp_path / "boxes.json"
    path.write_text(contents)
    with pytest.raises(InvalidRequest, match=words):
        parse_speaker(str(path))


@pytest.mark.parametrize("text", ["", "Auto", "12", "12:3", "-1:3,4", "no.json"])
def test_a_malformed_speaker_is_named(text: str):
    with pytest.raises(InvalidRequest, match=r"--speaker .*(expected auto|No such file)"):
        parse_speaker(text)
