"""Whether something answers at the Hub's address.

Imported only when a file is fetched: urllib and ssl take a tenth of the time in which reading starts.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

CONNECT_TIMEOUT_S = 2.0


def connect(url: str, error: list[BaseException]) -> None:
    """Send a HEAD request without a token, through the proxy that the environment names.

    error: receives what made a connection impossible. urllib wraps that in URLError; an error of TLS is the answer of
    a server, and errors after the connection are for the Hub's client to report.
    Source: CPython, Lib/urllib/request.py, AbstractHTTPHandler.do_open.
    """
    if any(proxy.startswith("socks") for proxy in urllib.request.getproxies().values()):
        return  # urllib has no SOCKS; the Hub's client may have it
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the deployment's own setting
    opener = urllib.request.build_opener(KeepRedirect)
    try:
        opener.open(request, timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError as err:
        err.close()  # an answer
    except urllib.error.URLError as err:
        cause = err.reason if isinstance(err.reason, BaseException) else err
        if not isinstance(cause, ssl.SSLError):
            error.append(cause)
    except Exception:  # noqa: BLE001 - it connected
        return


class KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Reports a redirect as the answer, and does not follow it."""

    def redirect_request(self, *_: object) -> None:
        return None
