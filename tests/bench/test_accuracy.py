from __future__ import annotations

from pathlib import Path

import pytest

from bench.accuracy import draw_phrases, main, read_groups
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


def test_tables_of_the_same_name_are_kept_apart(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    tables = [write_table(tmp_path / "a", "one", "s1"), write_table(tmp_path / "b", "one", "s2", "s2")]
    groups = read_groups([*tables, write_table(tmp_path, "other", "s3")], None)
    assert {name: len(group) for name, group in groups.items()} == {
        f"{tables[0]} s1": 1,
        f"{tables[1]} s2": 2,
        "other.csv s3": 1,
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--phrases", "20", "--shared-words", "5"], "--phrases: expected 1 to 4,"),
        (["--phrases", "0"], "--phrases: expected 1 to 64000,"),
        (["--shared-words", "2"], "--shared-words: expected --phrases"),
    ],
)
def test_phrases_that_do_not_exist_are_refused(
    options: list[str], error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["accuracy", "clips.csv", *options])
    with pytest.raises(SystemExit):
        main()
    assert error in capsys.readouterr().err
