"""Whether the container can be called at all: no other check could say anything otherwise."""

from __future__ import annotations

import socket
import ssl

from deploy.doctor.findings import Finding, failure
from deploy.doctor.http_calls import PING, NoReply, post
from deploy.doctor.requests_check import Probe
from deploy.smoke_test import JSON

REACHABLE = "connection"
UNAUTHORIZED = (401, 403)


def find_connection_fault(probe: Probe) -> Finding | None:
    """Return a finding if /ping has no answer of HTTP."""
    try:
        PING.send(probe.url, probe.limits.deadline_s)
    except NoReply as err:
        return failure(REACHABLE, f"{probe.url}: {err}", advise_connection(err.__cause__))
    return None


def advise_connection(cause: BaseException | None) -> str:
    """Return how to mend what kept a connection from being made. cause: as Python raised it."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "name a host of its certificate, and the authority that signed it in SSL_CERT_FILE"
    if isinstance(cause, ssl.SSLError):
        return "use http:// if it is a container itself: SageMaker's have no TLS"
    if isinstance(cause, socket.gaierror):
        return "check the host's name"
    return "listen on 0.0.0.0 and the port of SAGEMAKER_BIND_TO_PORT, else 8080, and publish it (docker run -p)"


def find_token_fault(probe: Probe) -> Finding | None:
    """Return a finding if requests are refused for their token. One that has no answer is left to the other checks."""
    try:
        reply = probe.send(post(b"{}", JSON))
    except NoReply:
        return None
    if reply.status not in UNAUTHORIZED:
        return None
    given = "the token of VISEME_TOKEN" if probe.url.token else "no token"
    return failure(
        REACHABLE,
        f"with {given}: {reply.quote()}",
        "set VISEME_TOKEN to the container's; on SageMaker let it have none",
    )
