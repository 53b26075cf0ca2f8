"""Versions of uploaded objects, and their order: events may arrive in any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LEADING_ZEROS = "00"  # of a sequencer in S3's own notifications; EventBridge's have none


@dataclass(frozen=True)
class UploadVersion:
    """A version of the object that started a job: a video, or a job file.

    key_sha256: of its key, since the metadata of an S3 object has no room for a key.
    etag: identifies the content.
    version_id: None if its bucket keeps no versions.
    sequencer: hexadecimal digits that grow with each event of one key; None in a direct call.
    current_at_ms: Unix time when it was the current version: of the event, or of a direct call.
    """

    key_sha256: str
    etag: str
    version_id: str | None = None
    sequencer: str | None = None
    current_at_ms: int = 0

    @classmethod
    def of_key(
        cls, key: str, etag: str, version_id: str | None = None, sequencer: str | None = None, current_at_ms: int = 0
    ) -> UploadVersion:
        return cls(hashlib.sha256(key.encode()).hexdigest(), etag, version_id, sequencer, current_at_ms)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> UploadVersion:
        """Return the version that an S3 object's metadata names; the oldest one if they name none."""
        return cls(
            key_sha256=metadata.get("key-sha256", ""),
            etag=metadata.get("etag", ""),
            version_id=metadata.get("version-id"),
            sequencer=metadata.get("sequencer"),
            current_at_ms=int(metadata.get("current-at-ms", 0)),
        )

    def is_of_key(self, key: str) -> bool:
        return self.key_sha256 == hashlib.sha256(key.encode()).hexdigest()

    @property
    def metadata(self) -> dict[str, str]:
        """The version as the metadata of an S3 object."""
        return {name.replace("_", "-"): str(value) for name, value in asdict(self).items() if value is not None}

    @property
    def record_fields(self) -> dict[str, Any]:
        """What a record contains of the version."""
        return {"s3_version_id": self.version_id, "s3_etag": self.etag} if self.etag else {}

    def is_older_than(self, other: UploadVersion) -> bool:
        """Return whether the other version replaced this one.

        By S3's sequencers if both are of one key. Those of two keys cannot be compared, and a direct call has none:
        then by the time, which may be wrong for versions of the same second.
        """
        is_of_one_key = self.key_sha256 == other.key_sha256
        if is_of_one_key and self.version_id and self.version_id == other.version_id:
            return False
        if is_of_one_key and self.sequencer and other.sequencer:
            own, others = align_sequencers(self.sequencer, other.sequencer)
            return own < others
        return self.current_at_ms < other.current_at_ms


def align_sequencers(*sequencers: str) -> list[str]:
    """Return two sequencers as texts that sort as S3 orders them: the shorter one continues with zeros.

    Source: Amazon S3 user guide, "Event message structure". S3's own notifications have two leading zeros and upper
    case, EventBridge's events neither.
    """
    lengths = sorted(len(one) for one in sequencers)
    if lengths[1] - lengths[0] == len(LEADING_ZEROS):
        sequencers = tuple(one.removeprefix(LEADING_ZEROS) if len(one) == lengths[1] else one for one in sequencers)
    return [one.lower().ljust(lengths[1], "0") for one in sequencers]
