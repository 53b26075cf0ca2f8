"""Request bodies: bounded while they arrive, and written to disk so that they take no memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.requests import ClientDisconnect, Request

from inference.errors import Canceled, DeadlineExceeded, InvalidRequest, MediaTooLarge, Overloaded
from inference.locked_folders import locked_folder
from inference.settings import Settings

MAX_BODY_BYTES = 25 << 20  # bytes of a real-time request: SageMaker's limit
MAX_ASYNC_BODY_BYTES = 1 << 30  # bytes of an asynchronous request
ASYNC_HEADER = "x-amzn-sagemaker-inference-id"
ASYNC_DEADLINE_S = 3600.0
BODY_TIMEOUT_S = 30.0  # seconds for a body to arrive: a slow caller occupies a place that others need


@dataclass(frozen=True)
class RequestLimits:
    """Limits of one request: bytes of its body, seconds for it to arrive, seconds until the answer.

    sync_deadline_s: seconds until the answer if the request is lip sync.
    """

    body_bytes: int
    body_timeout_s: float
    deadline_s: float
    sync_deadline_s: float


def limits_of(headers: Mapping[str, str], settings: Settings) -> RequestLimits:
    """Return the limits of a request: higher ones if SageMaker marks it as asynchronous.

    On SageMaker only the platform reaches the container, and it bounds real-time calls itself, whatever their
    headers. Elsewhere anyone can send this header, and could occupy a worker for an hour and a gigabyte of disk.
    Lip sync may take as long as its own deadline, except on SageMaker, which waits no longer, or if a deadline
    is configured.
    """
    if settings.on_sagemaker and ASYNC_HEADER in headers:
        return RequestLimits(MAX_ASYNC_BODY_BYTES, ASYNC_DEADLINE_S, ASYNC_DEADLINE_S, ASYNC_DEADLINE_S)
    is_set = settings.on_sagemaker or "deadline_s" in settings.model_fields_set
    sync_deadline_s = settings.deadline_s if is_set else settings.job_deadline_s
    return RequestLimits(MAX_BODY_BYTES, BODY_TIMEOUT_S, settings.deadline_s, sync_deadline_s)


@asynccontextmanager
async def body_on_disk(request: Request, limits: RequestLimits) -> AsyncIterator[Path]:
    """Yield the body as a file that is deleted afterwards.

    Raises: MediaTooLarge if it is over the limit, whatever it declares; Canceled if the caller disconnects,
    DeadlineExceeded if it arrives too slowly, Overloaded if the disk is full.
    """
    check_content_length(request, limits.body_bytes)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(locked_folder("viseme-body-"))
            path = folder / "body"
            # Closed inside this block as well: closing flushes again what a full disk rejected, and fails again.
            with path.open("xb") as file:
                await write_body(request, file, limits)
        except OSError as err:
            raise Overloaded("the server has no disk space for the body; try again later") from err
        yield path


async def write_body(request: Request, file: IO[bytes], limits: RequestLimits) -> None:
    """Write the body to a file. Raises: MediaTooLarge, Canceled, DeadlineExceeded; OSError if the disk is full."""
    n_bytes = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in request.stream():
                n_bytes += len(chunk)
                if n_bytes > limits.body_bytes:
                    raise MediaTooLarge(f"the body is over the limit of {limits.body_bytes} bytes")
                file.write(chunk)
    except ClientDisconnect as err:
        raise Canceled("the caller disconnected while the body was read") from err
    except TimeoutError as err:
        raise DeadlineExceeded(f"the body did not arrive within {limits.body_timeout_s:g} s") from err


def check_content_length(request: Request, max_bytes: int) -> None:
    """Raise InvalidRequest or MediaTooLarge if the declared length is not a number, or over the limit."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal():
        raise InvalidRequest(f"content-length {declared!r}: expected a number")
    if int(declared) > max_bytes:
        raise MediaTooLarge(f"the body has {declared} bytes; at most {max_bytes} expected")
