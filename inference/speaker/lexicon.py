"""Pronunciations of the words of the GRID language: British English, in ARPAbet."""

from __future__ import annotations

from inference.errors import InvalidRequest

PRONUNCIATIONS = {
    "BIN": "B IH N", "LAY": "L EY", "PLACE": "P L EY S", "SET": "S EH T",
    "BLUE": "B L UW", "GREEN": "G R IY N", "RED": "R EH D", "WHITE": "W AY T",
    "AT": "AE T", "BY": "B AY", "IN": "IH N", "WITH": "W IH DH",
    "A": "EY", "B": "B IY", "C": "S IY", "D": "D IY", "E": "IY", "F": "EH F", "G": "JH IY", "H": "EY CH",
    "I": "AY", "J": "JH EY", "K": "K EY", "L": "EH L", "M": "EH M", "N": "EH N", "O": "OW", "P": "P IY",
    "Q": "K Y UW", "R": "AA", "S": "EH S", "T": "T IY", "U": "Y UW", "V": "V IY", "X": "EH K S",
    "Y": "W AY", "Z": "Z EH D",
    "ZERO": "Z IH R OW", "ONE": "W AH N", "TWO": "T UW", "THREE": "TH R IY", "FOUR": "F AO", "FIVE": "F AY V",
    "SIX": "S IH K S", "SEVEN": "S EH V AH N", "EIGHT": "EY T", "NINE": "N AY N",
    "AGAIN": "AH G EH N", "NOW": "N AW", "PLEASE": "P L IY Z", "SOON": "S UW N",
}  # fmt: skip
MAX_WORDS = 600  # about five minutes


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in capitals, without punctuation at their ends.

    Raises: InvalidRequest if there are no words, too many, or words without a pronunciation.
    """
    words = tuple(word for word in (raw.strip(".,;:!?\"'()").upper() for raw in text.split()) if word)
    if not words:
        raise InvalidRequest("the text has no words; expected some, such as BIN BLUE AT F TWO NOW")
    if len(words) > MAX_WORDS:
        raise InvalidRequest(f"the text has {len(words)} words; at most {MAX_WORDS} expected")
    unknown = sorted({word for word in words if word not in PRONUNCIATIONS})
    if unknown:
        raise InvalidRequest(
            f"no pronunciation for {', '.join(unknown[:5])}; expected words of the GRID language: "
            + " ".join(PRONUNCIATIONS)
        )
    return words


def phonemes_of(word: str) -> tuple[str, ...]:
    """Return a word's phonemes as ARPAbet symbols."""
    return tuple(PRONUNCIATIONS[word].split())


def spelling_of(word: str) -> str:
    """Return how to spell a word for another synthesiser: a single letter is pronounced as its name, Z as zed."""
    return {"A": "eigh", "Z": "zed"}.get(word, word if len(word) == 1 else word.lower())
