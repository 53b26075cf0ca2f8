"""What the tests' own HTTP servers share."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer


class QuietServer(ThreadingHTTPServer):
    """Says nothing of a client that hung up on an answer, which is what the tests have clients do.

    Anything else is a fault of the server's, and is printed as ever.
    """

    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
