"""An uploaded video as a job: its identity, and its request to the endpoint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from jobs.version import UploadVersion

READ_TASK = "lipread"  # the default


@dataclass(frozen=True)
class UploadedVideo:
    """One version of a video to be processed.

    version: of the object that the event names: the video, or its job file.
    options: further fields of the request body.
    is_direct: named in a direct call or a job file, so prefix and file name are not checked.
    """

    bucket: str
    key: str
    version: UploadVersion
    options: dict[str, Any] = field(default_factory=dict)
    is_direct: bool = False

    @property
    def etag(self) -> str:
        return self.version.etag

    @property
    def id(self) -> str:
        """SHA-256 in 64 hexadecimal digits: the longest InferenceId that SageMaker accepts."""
        parts = [self.bucket, self.key, self.etag, self.options]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def body(self) -> bytes:
        """JSON body of the request to the endpoint.

        It names the version to be read, unless that is of a job file, or the request is of another task.
        """
        request = {"s3_bucket": self.bucket, "s3_video_key": self.key, **self.options}
        if self.version.is_of_key(self.key) and self.options.get("task", READ_TASK) == READ_TASK:
            request |= {name: value for name, value in self.version.record_fields.items() if value is not None}
        return json.dumps(request).encode()
