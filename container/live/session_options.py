"""What a client may ask of its session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from container.live.frame_messages import PATCH, WHOLE
from inference.errors import InvalidRequest


class SessionOptions(BaseModel):
    """Given in the query of the address, or by `{"type": "start", ...}` before the first sound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate: int = Field(16_000, ge=4_000, le=192_000)  # of the sound that comes, and goes back
    frames: Literal["patch", "whole"] = "patch"
    background: bool = False  # whether `reserved` tells which frame lies under a patch

    @property
    def kind(self) -> int:
        return WHOLE if self.frames == "whole" else PATCH

    @classmethod
    def read(cls, given: Mapping[str, object]) -> SessionOptions:
        """Raises: InvalidRequest naming the option."""
        try:
            return cls.model_validate(given)
        except ValidationError as err:
            first = err.errors()[0]
            raise InvalidRequest(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from err

    def with_changes(self, given: Mapping[str, object]) -> SessionOptions:
        """Raises: InvalidRequest."""
        return SessionOptions.read(self.model_dump() | dict(given))
