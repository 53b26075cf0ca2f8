"""The base class of the tests' HTTP servers."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer


class QuietServer(ThreadingHTTPServer):
    """A server that does not log clients that close the connection early, as the tests make them do.

    Any other error is the server's own, and is printed as usual.
    """

    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
