"""Tries again while the database cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from inference.errors import StorageError

T = TypeVar("T")
DATABASE_RETRY_S = 1.0  # seconds between tries to reach the database
PUBLISH_TRIES = 120  # tries to publish: what was made is worth two minutes of waiting


async def retry(call: Callable[[], Awaitable[T]], tries: int = PUBLISH_TRIES) -> T:
    """Call until the database answers. Raises: StorageError after the last try; every other error at once."""
    for _ in range(tries - 1):
        try:
            return await call()
        except StorageError:
            await asyncio.sleep(DATABASE_RETRY_S)
    return await call()
