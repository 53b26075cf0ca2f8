"""Media types of answers, and the Accept header that selects one of them."""

from __future__ import annotations

from dataclasses import dataclass

from inference.errors import UnsupportedContentType

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
VTT, SRT = "text/vtt", "application/x-subrip"
MP4 = "video/mp4"
READ_TYPES = (JSON, NDJSON, TEXT, VTT, SRT)  # media types of lip reading answers
SYNC_TYPES = (JSON, MP4)  # media types of lip sync answers
ANSWER_TYPES = (*READ_TYPES, MP4)  # media types of all answers
WILDCARDS = {"*/*": JSON, "application/*": JSON, "text/*": TEXT, "video/*": MP4}


@dataclass(frozen=True)
class AcceptHeader:
    """An Accept header, parsed once per request.

    text: the header as received, for messages; None if there was none.
    media_types: those it names, in its order; wildcards are resolved, quality values are ignored.
    """

    text: str | None = None
    media_types: tuple[str, ...] = (JSON,)

    @classmethod
    def parse(cls, text: str | None) -> AcceptHeader:
        """Parse the header; without one, or if it is empty, JSON is accepted."""
        names = [part.partition(";")[0].strip().lower() for part in (text or "").split(",") if part.strip()]
        return cls(text, tuple(WILDCARDS.get(name, name) for name in names) or (JSON,))

    def choose(self, offered: tuple[str, ...]) -> str:
        """Return the first accepted media type that is offered.

        Raises: UnsupportedContentType if none is offered.
        """
        for media_type in self.media_types:
            if media_type in offered:
                return media_type
        raise UnsupportedContentType(f"accept {self.text}: expected one of {', '.join(offered)}")
