"""The TLS certificate of every port, if one is configured."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from inference.errors import InvalidRequest
from inference.settings import Settings


@dataclass(frozen=True)
class Certificate:
    """PEM bytes: the certificate with its chain, and its key."""

    chain: bytes
    key: bytes


def read_certificate(settings: Settings) -> Certificate | None:
    """Read the configured certificate; None without one.

    Raises: InvalidRequest if the files are not PEM files, or the key does not match the certificate.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
        return Certificate(settings.tls_cert.read_bytes(), settings.tls_key.read_bytes())
    except OSError as err:  # includes ssl.SSLError
        raise InvalidRequest(
            f"VISEME_TLS_CERT={settings.tls_cert}, VISEME_TLS_KEY={settings.tls_key}: expected PEM files of a "
            f"certificate and of its key ({err})"
        ) from err
