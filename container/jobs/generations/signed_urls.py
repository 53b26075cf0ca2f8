"""URLs by which anyone who has them can download the video of one generation, for a limited time.

The token in the URL is the time when it expires and a signature of it, by a key that never leaves the database.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import urlencode

from inference.errors import AccessDenied

LISTING_PATH = "/v2/generations"
LIFETIME_S = 48 * 3600.0  # seconds that a URL is valid: longer than a webhook with one is tried, 28 hours
TOKEN = re.compile(r"([1-9][0-9]{0,11})\.([0-9a-f]{64})")


def result_url(base_url: str, job_id: str, key: bytes, now: float) -> str:
    """Return the URL of a generation's video. base_url: of this server, without a slash at its end."""
    expires_at = int(now + LIFETIME_S)
    query = urlencode({"token": f"{expires_at}.{signature_of(job_id, expires_at, key)}"})
    return f"{base_url}{LISTING_PATH}/{job_id}/result?{query}"


def check_result_token(token: str, job_id: str, key: bytes, now: float) -> None:
    """Check the token of a URL. Raises: AccessDenied if it is wrong, or has expired."""
    match = TOKEN.fullmatch(token)
    expires_at = int(match[1]) if match is not None else 0
    given = match[2] if match is not None else ""
    if not hmac.compare_digest(given, signature_of(job_id, expires_at, key)):
        raise AccessDenied("the token of this URL is wrong; expected the outputUrl of the generation")
    if now >= expires_at:
        raise AccessDenied("this URL has expired; GET /v2/generate/ID returns another one")


def signature_of(job_id: str, expires_at: int, key: bytes) -> str:
    return hmac.new(key, f"result.{job_id}.{expires_at}".encode(), hashlib.sha256).hexdigest()
