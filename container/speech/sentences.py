"""A text in parts that are spoken one after the other, so that the first plays before the last is made."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_CHARACTERS = 200  # of a part: a long sentence ends at a comma, else at a space
MIN_CHARACTERS = 20  # a shorter sentence is spoken with the next one
MAX_FIRST_CHARACTERS = 80  # of the first part, as nothing is spoken until it is made
# The end of a sentence: after its mark and closing quotes a space, or none after the marks of Chinese and Japanese.
SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’»)\]]*\s+|(?<=[。！？])|\n+""")
CLAUSE_END = re.compile(r"(?<=[,;:–—])\s+|(?<=[、，；：])")


def split_sentences(text: str) -> list[str]:
    """Return the parts of a text in order, without spaces around them. A part without any letter or digit is left out.

    The marks that end sentences stay with them. An abbreviation may end a part, which costs a pause and no word.
    """
    parts: list[str] = []
    for sentence in SENTENCE_END.split(text):
        limit = MAX_CHARACTERS if parts else MAX_FIRST_CHARACTERS
        for part in shorten_sentence(" ".join(sentence.split()), limit):
            if not any(character.isalnum() for character in part):
                continue
            if len(parts) > 1 and len(parts[-1]) < MIN_CHARACTERS:
                parts[-1] += f" {part}"
            else:
                parts.append(part)
    return parts


def shorten_sentence(sentence: str, limit: int) -> Iterator[str]:
    """Yield a sentence, or its parts if it is longer than the limit; those after the first have another limit."""
    while len(sentence) > limit:
        end = end_of_part(sentence, limit)
        yield sentence[:end].rstrip()
        sentence, limit = sentence[end:].lstrip(), MAX_CHARACTERS
    if sentence:
        yield sentence


def end_of_part(sentence: str, limit: int) -> int:
    """Return where a part of at most `limit` characters ends: after its last clause, else its last word, else there."""
    ends = [match.end() for match in CLAUSE_END.finditer(sentence) if match.start() <= limit]
    if ends:
        return ends[-1]
    space = sentence.rfind(" ", 1, limit + 1)
    return space if space > 0 else limit
