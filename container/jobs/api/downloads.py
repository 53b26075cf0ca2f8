"""Downloads of what a job made, and of its logs."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from container.http.answers import AnswerQuota
from container.http.responses import close_connection
from container.jobs.records import JobRecord, JobState, OutputRecord
from container.jobs.storage import JobStorage, log_key
from inference.errors import MediaNotFound

SEND_TIMEOUT_S = 3600.0  # seconds to receive a file; a later request may go on with a range
ATTEMPT_NUMBER = re.compile("[1-9][0-9]{0,8}")
HEADERS = {"cache-control": "private, no-cache", "x-content-type-options": "nosniff"}
BINARY = "application/octet-stream"


class StoredFileResponse(FileResponse):
    """A file of a job, whole or in ranges. It counts among the answers that are sent."""

    quota: AnswerQuota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout_at(time.monotonic() + SEND_TIMEOUT_S) as timeout:
                with self.quota.sending(timeout) as answer:
                    await super().__call__(scope, receive, answer.observe(send))
        except TimeoutError:
            await close_connection(scope, receive)


def find_output(job: JobRecord, name: str) -> OutputRecord:
    """Return a finished output. Raises: MediaNotFound."""
    for output in job.outputs:
        if output.name == name:
            if output.state is JobState.SUCCEEDED and output.key is not None:
                return output
            raise MediaNotFound(f"the output {name[:80]!r} is {output.state}; expected one that has succeeded")
    names = ", ".join(output.name for output in job.outputs) or "none"
    raise MediaNotFound(f"the job has no output {name[:80]!r}; its outputs: {names}")


def find_attempt(job: JobRecord, number: str) -> int:
    """Return the number of an attempt. Raises: MediaNotFound if the job has no such attempt."""
    found = int(number) if ATTEMPT_NUMBER.fullmatch(number) else 0
    if not any(attempt.number == found for attempt in job.attempts):
        raise MediaNotFound(f"the job has had {len(job.attempts)} attempts, none with the number {number[:20]!r}")
    return found


async def send_output(request: Request, job: JobRecord, storage: JobStorage, quota: AnswerQuota) -> Response:
    """Return an output, from this server or by its URL in S3. Raises: MediaNotFound, StorageError."""
    output = find_output(job, request.path_params["name"])
    assert output.key is not None
    return await send_file(
        request, (job.id, output.key), storage, quota, output.content_type or BINARY, output.name, output.sha256
    )


async def send_log(request: Request, job: JobRecord, storage: JobStorage, quota: AnswerQuota) -> Response:
    """Return the log of an attempt. Raises: MediaNotFound, also if it is not stored yet; StorageError."""
    attempt = find_attempt(job, request.path_params["attempt"])
    name = f"{job.id}-{attempt}.txt"
    return await send_file(request, (job.id, log_key(attempt)), storage, quota, "text/plain; charset=utf-8", name)


async def send_file(
    request: Request,
    place: tuple[str, str],
    storage: JobStorage,
    quota: AnswerQuota,
    media_type: str,
    name: str,
    sha256: str | None = None,
) -> Response:
    """Return a file. place: its job and key. sha256: which serves as its ETag, if it is recorded."""
    url = await asyncio.to_thread(storage.url, *place)
    if url is not None:
        return RedirectResponse(url, 307, headers=HEADERS)
    headers = HEADERS | ({} if sha256 is None else {"etag": f'"{sha256}"'})
    if sha256 is not None and is_known(request.headers.get("if-none-match", ""), sha256):
        return Response(status_code=304, headers=headers)
    path = await asyncio.to_thread(local_path, storage, *place)
    response = StoredFileResponse(path, headers=headers, media_type=media_type, filename=name)
    response.quota = quota
    return response


def is_known(if_none_match: str, sha256: str) -> bool:
    """Return whether the caller has this file already, by the header If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return f'"{sha256}"' in tags or tags == ["*"]


def local_path(storage: JobStorage, job_id: str, key: str) -> Path:
    """Return the path of a file that this server has. Raises: MediaNotFound."""
    with storage.read(job_id, key) as path:
        return path
