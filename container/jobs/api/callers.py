"""Who calls the job routes: what they may see, and whose jobs take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from starlette.requests import HTTPConnection

from container.http.clients import client_of, is_loopback
from inference.settings import Settings

TOKEN_HOLDERS, THIS_MACHINE = "token", "local"


@dataclass(frozen=True)
class Caller:
    """Who calls. client: an address, whose jobs take turns with others. owner: of jobs, who alone can see them.

    address: None if any number of callers may be behind it.
    """

    client: str
    owner: str
    address: str | None

    @classmethod
    def of(cls, connection: HTTPConnection, settings: Settings) -> Self:
        """Return the caller. All that hold the deployment's token are one owner, and so are all on this machine."""
        client = client_of(connection, settings.trusted_proxies)
        is_shared = settings.on_sagemaker or is_loopback(client)
        owner = THIS_MACHINE if is_shared else client
        return cls(client, owner if settings.token is None else TOKEN_HOLDERS, None if is_shared else client)
