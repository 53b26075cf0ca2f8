"""The error of a client whose request the server, or the platform in between, rejected."""

from __future__ import annotations

import json


class RequestRejected(Exception):
    """The server rejected a request. code: the stable code, such as avatar_not_found or overloaded."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def rejection_of(status: int, body: bytes) -> RequestRejected:
    """Return the error in an HTTP response; a proxy's response may not have the server's form."""
    try:
        error = json.loads(body)["error"]
        return RequestRejected(str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return RequestRejected("refused", f"status {status}: {body[:200].decode(errors='replace')}")
