from __future__ import annotations

from pathlib import Path

import pytest

from bench.accuracy import draw_phrases, read_groups
from inference.lip_reading.grammar_decoder import GRID

TEXT = "BIN BLUE AT F TWO NOW"


@pytest.mark.parametrize("n_shared", [0, 2])
def test_sentences_to_choose_among_are_of_the_language(n_shared: int):
    drawn = draw_phrases(TEXT, 20, 3, n_shared)
    assert len(set(drawn)) == 20
    assert TEXT in drawn
    assert draw_phrases(TEXT, 20, 3, n_shared) == drawn
    assert draw_phrases(TEXT, 20, 4, n_shared) != drawn
    for words in (sentence.split() for sentence in drawn):
        assert all(word in choices for word, choices in zip(words, GRID, strict=True))
        assert words[:n_shared] == TEXT.split()[:n_shared]
    assert len({sentence.split()[n_shared] for sentence in drawn}) > 1


def write_table(folder: Path, name: str, *speakers: str) -> Path:
    rows = ["file,speaker,transcript"]
    for i, speaker in enumerate(speakers):
        (folder / f"{name}{i}.mpg").touch()
        rows.append(f"{name}{i}.mpg,{speaker},{TEXT}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(rows))
    return path


def test_groups_are_the_first_speaker_and_others_or_those_asked_for(tmp_path: Path):
    tables = [write_table(tmp_path, "one", "s1", "s2", "s20"), write_table(tmp_path, "other", "s33", "s33")]
    sizes = {name: len(group) for name, group in read_groups(tables, None).items()}
    assert sizes == {"one.csv s1": 1, "one.csv others": 2, "other.csv s33": 2}
    chosen = read_groups(tables, ["s20", "s33", "s2"])
    assert {name: [clip.speaker for clip in group] for name, group in chosen.items()} == {
        "one.csv s20 s2": ["s2", "s20"],
        "other.csv s33": ["s33", "s33"],
    }
    with pytest.raises(SystemExit, match=r"no clips of s99 in one\.csv, other\.csv"):
        read_groups(tables, ["s20", "s99"])
