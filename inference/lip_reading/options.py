"""Options and results of lip reading."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.faces import FaceChoice
from inference.lip_reading.mouth_strip import MouthStrip

Decoder = Literal["auto", "greedy", "grammar"]
DECODERS: tuple[Decoder, ...] = ("auto", "greedy", "grammar")
DEFAULT_N_BEST, MAX_N_BEST = 5, 100  # alternatives: by default, and at most
MAX_PHRASES, MAX_PHRASE_CHARACTERS = 500, 100
NOT_A_LETTER = re.compile("[^A-Z ]")
FPS = 25.0  # frames per second: the rate that the networks were trained at


@dataclass(frozen=True)
class ReadOptions:
    """Options of one request.

    Raises: InvalidRequest if an option is invalid.
    """

    face: FaceChoice = "largest"  # or an index from 0, left to right, in the first frame with that many faces
    decoder: Decoder = "auto"  # grammar if the weights were trained on a known language, else greedy
    n_best: int = DEFAULT_N_BEST  # alternatives that the grammar decoder returns; greedy returns its own text only
    exact: bool = False  # detect the face in every frame; slower, for footage with many cuts
    mouths: bool = False  # also return the mouths that were read, as an image
    # What may have been said, instead of a decoder: the text is one of them. Kept as `normalise_phrases` returns them.
    phrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "phrases", normalise_phrases(self.phrases))
        if self.phrases and self.decoder != "auto":
            raise InvalidRequest(f"decoder {self.decoder!r}: expected none with phrases, which are scored exactly")
        is_index = isinstance(self.face, int) and not isinstance(self.face, bool) and self.face >= 0
        if self.face != "largest" and not is_index:
            raise InvalidRequest(f"face {self.face!r}: expected 'largest' or a number from 0 up")
        if self.decoder not in DECODERS:
            raise InvalidRequest(f"decoder {self.decoder!r}: expected one of {', '.join(DECODERS)}")
        is_count = isinstance(self.n_best, int) and not isinstance(self.n_best, bool)
        if not (is_count and 1 <= self.n_best <= MAX_N_BEST):
            raise InvalidRequest(f"nbest {self.n_best!r}: expected a number from 1 to {MAX_N_BEST}")


def normalise_phrases(phrases: Iterable[str]) -> tuple[str, ...]:
    """Return phrases in capital letters, with one space between words and without apostrophes, each once.

    Hyphens count as spaces. Raises: InvalidRequest if there are too many, or one has other characters or is too long.
    """
    found: dict[str, None] = {}
    for phrase in phrases:
        letters = phrase.upper().replace("'", "").replace("’", "").replace("-", " ")
        words = letters.split()
        normalised = " ".join(words)
        if wrong := NOT_A_LETTER.search(normalised):
            raise InvalidRequest(
                f"phrase {phrase[:80]!r}: {wrong.group()!r} cannot be read from lips; expected words of A to Z"
            )
        if not words or len(normalised) > MAX_PHRASE_CHARACTERS:
            raise InvalidRequest(
                f"phrase {phrase[:80]!r}: {len(normalised)} characters; expected 1 to {MAX_PHRASE_CHARACTERS}"
            )
        found[normalised] = None
        if len(found) > MAX_PHRASES:
            raise InvalidRequest(f"more than {MAX_PHRASES} phrases; expected at most so many")
    return tuple(found)


@dataclass(frozen=True)
class Word:
    """A word, its start and end (seconds from the first frame), and its confidence (0..1)."""

    word: str
    start: float | None
    end: float | None
    confidence: float | None


@dataclass(frozen=True)
class Alternative:
    """One of the n best transcripts of the whole video; the first is the text. confidence: its posterior, 0..1."""

    text: str
    confidence: float


@dataclass(frozen=True)
class ModelInfo:
    """The network that was used: its architecture, the name or path of its weights, their SHA-256."""

    name: str
    weights: str
    sha256: str


@dataclass(frozen=True)
class Transcript:
    """The result of lip reading.

    num_frames: at `fps`. duration_s: num_frames / fps. confidence: 0..1; 0 if there are no words.
    frames_without_face: frames filled in from their neighbours.
    timings_ms: wall time by stage, and "total". mouths: None unless they were requested.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    num_frames: int
    fps: float
    duration_s: float
    frames_without_face: int
    model: ModelInfo
    timings_ms: dict[str, float]
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    mouths: MouthStrip | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without `mouths` unless they were requested."""
        values = asdict(self)
        if self.mouths is None:
            del values["mouths"]
        return values
