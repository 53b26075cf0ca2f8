"""The web page of live avatars, served from `container/web` without any third-party file."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parents[1] / "web"
FILES = {"/": ("index.html", "text/html"), "/live.js": ("live.js", "text/javascript")}
HEADERS = {
    "cache-control": "no-cache",
    # The page shows no third-party content; what remains is to forbid other sites to frame it.
    "content-security-policy": "object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page. They need no token: the page itself prompts the user for it."""
    return [Route(path, serve_file) for path in FILES]


def serve_file(request: Request) -> Response:
    """Return one file of the page."""
    name, media_type = FILES[request.url.path]
    return Response((FOLDER / name).read_bytes(), media_type=media_type, headers=HEADERS)
