from __future__ import annotations

import pytest

from container.speech.sentences import MAX_CHARACTERS, MAX_FIRST_CHARACTERS, split_sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello.", ["Hello."]),
        ("It costs 3.50. Who pays for all of this? Me!", ["It costs 3.50.", "Who pays for all of this?", "Me!"]),
        ("First.\n\nThen the second one,\nand more", ["First.", "Then the second one,", "and more"]),
        ("One. Two. Three. Four and a few more words.", ["One.", "Two. Three. Four and a few more words."]),
        ("第一句话。第二句话！", ["第一句话。", "第二句话！"]),
        ("... !", []),
    ],
)  # fmt: skip
def test_sentences_are_parts(text: str, parts: list[str]):
    assert split_sentences(text) == parts


def test_long_sentences_end_at_a_comma_else_at_a_space_else_anywhere():
    clauses = split_sentences(f"{'word ' * 10}word, {'word ' * 30}")
    assert clauses[0] == f"{'word ' * 10}word,"
    words = split_sentences("word " * 200)
    assert all(part.split() == ["word"] * len(part.split()) for part in words)
    letters = split_sentences("a" * 500)
    assert [len(part) for part in letters] == [MAX_FIRST_CHARACTERS, MAX_CHARACTERS, MAX_CHARACTERS, 20]
    for parts in (clauses, words, letters):
        assert len(parts[0]) <= MAX_FIRST_CHARACTERS
        assert all(len(part) <= MAX_CHARACTERS for part in parts)
    assert sum(len(part.split()) for part in words) == 200
