"""The options of a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from container.live.frame_messages import PATCH, WHOLE
from inference.errors import InvalidRequest


class SessionOptions(BaseModel):
    """Options from the query of the URL, or from a `{"type": "start", ...}` message before the first audio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate: int = Field(16_000, ge=4_000, le=192_000)  # of the audio in both directions, in Hz
    frames: Literal["patch", "whole"] = "patch"
    background: bool = False  # whether `reserved` contains the index of the background frame
    visemes: bool = False  # whether each frame of speech comes with an event of its visemes
    alpha: bool = False  # whether images have alpha in the place of the background

    @property
    def kind(self) -> int:
        """Kind of the frame messages: PATCH or WHOLE."""
        return WHOLE if self.frames == "whole" else PATCH

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> SessionOptions:
        """Validate options. Raises: InvalidRequest that names the first invalid one."""
        try:
            return cls.model_validate(fields)
        except ValidationError as err:
            first = err.errors()[0]
            raise InvalidRequest(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from err

    def with_changes(self, changes: Mapping[str, object]) -> SessionOptions:
        """Return a copy with some options replaced. Raises: InvalidRequest if one is invalid."""
        return SessionOptions.parse(self.model_dump() | dict(changes))
