"""The STUN and TURN servers of a deployment, as aiortc and as the `Link` headers of WHEP name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from inference.settings import ICE_SERVER


@dataclass(frozen=True)
class IceServer:
    """A server of the setting `ice_servers`. url: without credentials, as browsers take it."""

    url: str
    username: str | None = None
    credential: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a server of the settings, which have checked it: turn:USER:PASSWORD@HOST, percent-encoded."""
        match = ICE_SERVER.fullmatch(text)
        assert match is not None
        url = f"{match['scheme']}:{match['address']}"
        if match["username"] is None:
            return cls(url)
        return cls(url, unquote(match["username"]), unquote(match["password"]))

    @property
    def link(self) -> str:
        """The value of a Link header. Source: RFC 9725 (WHIP), section 4.6."""
        link = f'<{self.url}>; rel="ice-server"'
        if self.username is None or self.credential is None:
            return link
        return (
            f'{link}; username={quote(self.username)}; credential={quote(self.credential)}; credential-type="password"'
        )


def parse_servers(texts: Sequence[str]) -> tuple[IceServer, ...]:
    """Parse the servers of the settings."""
    return tuple(IceServer.parse(text) for text in texts)


def quote(text: str) -> str:
    """Return a quoted string of an HTTP header."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
