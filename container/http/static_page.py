"""The web pages, served from `container/web` without any third-party file: live avatars, and the HTTP API."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parents[1] / "web"
LIVE_FILES = {"/": ("index.html", "text/html"), "/live.js": ("live.js", "text/javascript")}
OPENAPI_PATH = "/openapi.json"
DOCS_FILES = {"/docs": ("docs.html", "text/html"), "/docs.js": ("docs.js", "text/javascript")}
FILES = LIVE_FILES | DOCS_FILES
# The pages show no third-party content; what remains is to forbid other sites to frame them.
LIVE_POLICY = "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}


def page_routes() -> list[BaseRoute]:
    """Return the routes of the live page. They need no token: the page itself prompts the user for it."""
    return [Route(path, serve_file) for path in LIVE_FILES]


def docs_routes() -> list[BaseRoute]:
    """Return the routes of the page that shows the description of the HTTP API. They need no token."""
    return [Route(path, serve_file) for path in DOCS_FILES]


def serve_file(request: Request) -> Response:
    """Return one file of a page."""
    name, media_type = FILES[request.url.path]
    policy = DOCS_POLICY if request.url.path in DOCS_FILES else LIVE_POLICY
    return Response(
        (FOLDER / name).read_bytes(), media_type=media_type, headers=HEADERS | {"content-security-policy": policy}
    )
