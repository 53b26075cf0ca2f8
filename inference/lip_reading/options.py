"""What a caller may ask of lip reading, and what comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.faces import FaceChoice

Decoder = Literal["auto", "greedy", "grammar"]
DECODERS: tuple[Decoder, ...] = ("auto", "greedy", "grammar")
N_BEST, MOST_BEST = 5, 100
FPS = 25.0  # frames a second, that the networks were trained on


@dataclass(frozen=True)
class ReadOptions:
    """One request.

    Raises: InvalidRequest for a value that is none.
    """

    face: FaceChoice = "largest"  # or which one, from 0, left to right, in the first frame with that many
    decoder: Decoder = "auto"  # grammar where the weights speak a language that we know, else greedy
    n_best: int = N_BEST  # how many readings the grammar decoder tells; greedy has none but its own
    exact: bool = False  # detect the face anew in every frame; slower, for footage that cuts a lot

    def __post_init__(self) -> None:
        is_index = isinstance(self.face, int) and not isinstance(self.face, bool) and self.face >= 0
        if self.face != "largest" and not is_index:
            raise InvalidRequest(f"face {self.face!r}: expected 'largest' or a number from 0 up")
        if self.decoder not in DECODERS:
            raise InvalidRequest(f"decoder {self.decoder!r}: expected one of {', '.join(DECODERS)}")
        is_count = isinstance(self.n_best, int) and not isinstance(self.n_best, bool)
        if not (is_count and 1 <= self.n_best <= MOST_BEST):
            raise InvalidRequest(f"nbest {self.n_best!r}: expected a number from 1 to {MOST_BEST}")


@dataclass(frozen=True)
class Word:
    """A word, when it was said (seconds from the first frame), and how sure we are (0..1)."""

    word: str
    start: float | None
    end: float | None
    confidence: float | None


@dataclass(frozen=True)
class Alternative:
    """One of the n best readings of the whole; the best of them is the text. confidence: its posterior, 0..1."""

    text: str
    confidence: float


@dataclass(frozen=True)
class ModelInfo:
    """Which network read: its architecture, the name or path of its weights, their SHA-256."""

    name: str
    weights: str
    sha256: str


@dataclass(frozen=True)
class Transcript:
    """What was read.

    num_frames: at `fps`. duration_s: num_frames / fps. confidence: 0..1; 0 where nothing was read.
    frames_without_face: filled in from their neighbours.
    timings_ms: wall time by stage, and "total".
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
