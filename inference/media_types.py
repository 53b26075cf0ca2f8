"""Media types of answers, and the Accept header that selects one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference.errors import UnsupportedContentType

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
VTT, SRT = "text/vtt", "application/x-subrip"
TSV = "text/tab-separated-values"
MP4 = "video/mp4"
WAV = "audio/wav"
READ_TYPES = (JSON, NDJSON, TEXT, VTT, SRT)  # media types of lip reading answers
SYNC_TYPES = (JSON, MP4)  # media types of lip sync answers
VISEME_TYPES = (JSON, TSV, SRT)  # media types of viseme answers
ANSWER_TYPES = (*READ_TYPES, TSV, MP4)  # media types of all answers
SYNONYMS = {"application/mp4": MP4}  # RFC 4337 registers both; some clients send the former for video
MAX_RANGES = 64  # items of an Accept header that are read; browsers send eight


@dataclass(frozen=True)
class MediaRange:
    """One item of an Accept header: a media type, a whole group as `text/*`, or `*/*`.

    quality: 0 to 1, as RFC 9110 section 12.4.2 defines it; 0 means "not acceptable".
    """

    name: str
    quality: float = 1.0

    @classmethod
    def parse(cls, text: str) -> MediaRange:
        """Parse one item. A quality that is not a number from 0 to 1 counts as 1."""
        name, *parameters = (part.strip().lower() for part in text.split(";"))
        weights = [part.partition("=")[2].strip() for part in parameters if part.partition("=")[0].strip() == "q"]
        return cls(SYNONYMS.get(name, name), parse_quality(weights[0]) if weights else 1.0)

    def specificity(self, media_type: str) -> int:
        """Return how closely this matches a media type: 0 not at all, 1 by `*/*`, 2 by its group, 3 exactly."""
        if self.name == media_type:
            return 3
        if self.name == media_type.partition("/")[0] + "/*":
            return 2
        return int(self.name == "*/*")


@dataclass(frozen=True)
class AcceptHeader:
    """An Accept header, parsed once per request.

    text: the header as received, for messages; None if there was none. ranges: its items, in its order.
    """

    text: str | None = None
    ranges: tuple[MediaRange, ...] = (MediaRange(JSON),)

    @classmethod
    def parse(cls, text: str | None) -> AcceptHeader:
        """Parse the header; without one, or if it is empty, JSON is accepted."""
        parts = [part for part in (text or "").split(",", MAX_RANGES)[:MAX_RANGES] if part.strip()]
        ranges = tuple(MediaRange.parse(part) for part in parts)
        return cls(text, ranges or (MediaRange(JSON),))

    def choose(self, offered: tuple[str, ...]) -> str:
        """Return the offered media type of the highest quality; of equal ones, that which the header names first.

        The most specific item that matches a type gives its quality.
        Raises: UnsupportedContentType if none is accepted.
        """
        ranked = []
        for i, media_type in enumerate(offered):
            matches = [(item.specificity(media_type), -at, item) for at, item in enumerate(self.ranges)]
            specificity, at, item = max(matches, key=lambda match: match[:2])
            if specificity and item.quality:
                ranked.append((-item.quality, -at, i, media_type))
        if not ranked:
            raise UnsupportedContentType(f"accept {self.text}: expected one of {', '.join(offered)}")
        return min(ranked)[-1]


def parse_quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if math.isfinite(quality) and 0 <= quality <= 1 else 1.0
