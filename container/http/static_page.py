"""The web pages, served from `container/web` without any third-party file: the page, and the HTTP API's description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
LEGACY_VIEWS = ("live",)  # on the ports of older clients
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
    "webrtc_session",
    "avatar_still",
    "avatar_pair",
    "avatar_pair_parts",
    "shared_timeline",
    "mouth_strip",
    "frame_sheet",
    "audio_sources",
    "text_source",
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
# `no-cache` lets browsers keep a file, and ask each time whether its ETag is still right.
HEADERS = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def policy(origin: str | None = None) -> str:
    """Return the Content-Security-Policy: the page plays media that it made itself (blob:), and has nothing inline.

    origin: from which the page may also load files of jobs.
    """
    files = f" {origin}" if origin else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{files}; "
        f"img-src 'self' blob: data:{files}; media-src 'self' blob:{files}; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


async def no_origin() -> None:
    """Return no origin: this server sends all files itself."""


def views_attribute(views: Sequence[str]) -> bytes:
    """Return the attribute of index.html that names the views to offer."""
    return f'data-views="{" ".join(views)}"'.encode()


ALL_VIEWS = views_attribute(VIEWS)


def page_routes(
    views: Sequence[str] = VIEWS, find_origin: Callable[[], Awaitable[str | None]] = no_origin
) -> list[BaseRoute]:
    """Return the routes of the page. They need no token: the page itself prompts the user for it.

    views: those that the page offers, the first one as its start; ports of older clients have the routes of Live only.
    find_origin: returns the origin to which downloads redirect, if any.
    """

    async def serve_index(request: Request) -> Response:
        content = read_file("/").replace(ALL_VIEWS, views_attribute(views))
        return respond(request, content, "text/html", policy(await find_origin()))

    return [Route("/", serve_index), *(Route(path, serve_file) for path in ("/web/{name}", "/web/views/{name}"))]


def docs_routes() -> list[BaseRoute]:
    """Return the routes of the page that shows the description of the HTTP API. They need no token."""
    return [Route(path, serve_file) for path in DOCS_FILES]


def serve_file(request: Request) -> Response:
    """Return one file of a page. Raises: HTTPException 404 if it is not listed."""
    path = request.url.path
    if path not in FILES:
        raise HTTPException(404)
    return respond(request, read_file(path), MEDIA_TYPES[Path(FILES[path]).suffix])


def read_file(path: str) -> bytes:
    return (FOLDER / FILES[path]).read_bytes()


def respond(request: Request, content: bytes, media_type: str, content_policy: str = policy()) -> Response:
    """Return a file, or 304 if the caller has this version of it, with this policy."""
    version = sha256(content_policy.encode() + content).hexdigest()[:32]
    headers = HEADERS | {"content-security-policy": content_policy, "etag": f'"{version}"'}
    if has_version(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def has_version(request: Request, etag: str) -> bool:
    """Return whether If-None-Match names this version; proxies that compress mark an ETag as weak (RFC 9110)."""
    given = request.headers.get("if-none-match", "")
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in given.split(","))
