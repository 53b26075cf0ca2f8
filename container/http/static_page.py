"""The page for people: files of ours, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parents[1] / "web"
FILES = {"/": ("index.html", "text/html"), "/live.js": ("live.js", "text/javascript")}
HEADERS = {
    "cache-control": "no-cache",
    # Nothing of strangers is ever shown on it; what is left is to be framed by one.
    "content-security-policy": "object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def page_routes() -> list[BaseRoute]:
    """It is shown without a token, which it asks for itself."""
    return [Route(path, show_page) for path in FILES]


def show_page(request: Request) -> Response:
    name, media_type = FILES[request.url.path]
    return Response((FOLDER / name).read_bytes(), media_type=media_type, headers=HEADERS)
