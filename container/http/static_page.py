"""The web pages, served from `container/web` without any third-party file: the page, and the HTTP API's description."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parents[1] / "web"
OPENAPI_PATH = "/openapi.json"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
VIEWS = ("read", "sync", "live", "jobs")
SCRIPTS = (
    "app",
    "api",
    "components",
    "captions",
    "camera",
    "read_parts",
    "words",
    "avatar_player",
    "avatar_session",
    "audio_sources",
    "microphone",
    "audio_recorder",
    "speech_source",
    "sync_options",
    "sync_request",
    "paired_videos",
    "job_words",
)
# What the page consists of: URL path -> file in FOLDER. Nothing else is served.
PAGE_FILES = {
    "/": "index.html",
    "/web/style.css": "style.css",
    **{f"/web/{name}.js": f"{name}.js" for name in SCRIPTS},
    **{f"/web/views/{name}.js": f"views/{name}.js" for name in VIEWS},
}
DOCS_FILES = {"/docs": "docs.html", "/docs.js": "docs.js"}
FILES = PAGE_FILES | DOCS_FILES
# The page records and plays media that it made itself (blob:), and has no inline script or style.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# `no-cache` lets browsers keep a file, and ask each time whether its ETag is still right.
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page. They need no token: the page itself prompts the user for it."""
    return [Route(path, serve_file) for path in ("/", "/web/{name}", "/web/views/{name}")]


def docs_routes() -> list[BaseRoute]:
    """Return the routes of the page that shows the description of the HTTP API. They need no token."""
    return [Route(path, serve_file) for path in DOCS_FILES]


def serve_file(request: Request) -> Response:
    """Return one file of a page, or 304 if the caller has it. Raises: HTTPException 404 if it is not listed."""
    path = request.url.path
    if path not in FILES:
        raise HTTPException(404)
    content = (FOLDER / FILES[path]).read_bytes()
    headers = HEADERS | {"etag": f'"{sha256(content).hexdigest()[:32]}"'}
    if has_version(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[Path(FILES[path]).suffix], headers=headers)


def has_version(request: Request, etag: str) -> bool:
    """Return whether If-None-Match names this version; proxies that compress mark an ETag as weak (RFC 9110)."""
    given = request.headers.get("if-none-match", "")
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in given.split(","))
