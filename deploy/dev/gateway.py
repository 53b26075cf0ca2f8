"""The one port of `viseme dev`: which part answers a request, and what follows from it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from moto.server import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wsgi import get_content_length

from deploy.dev.events import Wakeup
from deploy.dev.functions import FunctionFailed, LocalFunction
from deploy.dev.http_proxy import Environ, StartResponse
from deploy.dev.moto_account import WsgiApp
from deploy.dev.runtime import respond
from deploy.dev.saved_account import SavedAccount
from deploy.errors import WrongRequest

logger = logging.getLogger("viseme.dev")
# Returns why a request is denied, None if it is not. Takes its headers, each a name and a value.
AccessCheck = Callable[[Sequence[tuple[str, str]]], str | None]
FUNCTION_PATH = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
MAX_PAYLOAD_BYTES = 6 << 20  # Lambda's limit
MOTO_PATHS = ("/moto-api", "/latest/")  # moto's own controls, and an instance's metadata: not part of an account
PATH_STYLE_HOST = re.compile(r"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(:[0-9]+)?")  # the bucket is in the path
READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SERVICE = re.compile(r"Credential=[^,\s/]+/\d+/[^/]*/([^/]+)/aws4_request")
TARGET_TABLES = re.compile(r"DynamoDB_\d+\.(Put|Update|Delete|BatchWrite|Transact|Execute|BatchExecute)")


class Gateway:
    """The WSGI application of the port."""

    def __init__(self, moto: WsgiApp, access: AccessCheck, wakeup: Wakeup) -> None:
        self._moto, self._access, self._wakeup = moto, access, wakeup
        # Set once the stack is made: until then there is nothing to save, and nothing that answers.
        self.runtime: WsgiApp | None = None
        self.saved: SavedAccount | None = None
        self.functions: Mapping[str, LocalFunction] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if reason := self._access(request_headers(environ)):
            return respond(start_response, "403 Forbidden", error_body("AccessDenied", reason), {})
        path = environ["PATH_INFO"]
        if path.startswith("/endpoints/"):
            if self.runtime is None:
                body = error_body("ServiceUnavailable", "viseme dev is starting")
                return respond(start_response, "503 Service Unavailable", body, {})
            found: Iterable[bytes] = self.runtime(environ, start_response)
            return found
        if path.startswith(MOTO_PATHS):
            return respond(start_response, "404 Not Found", error_body("NotFound", f"{path}: no such service"), {})
        if (match := FUNCTION_PATH.fullmatch(path)) and environ["REQUEST_METHOD"] == "POST":
            return self._invoke(unquote(match[1]), environ, start_response)
        return self._call_moto(environ, start_response)

    def _call_moto(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer by moto; save what has changed before it is answered, and wake those that wait for messages."""
        statuses: list[tuple[Any, ...]] = []
        try:
            answer = self._moto(environ, lambda *found: statuses.append(found))
        except NotImplementedError as err:
            return respond_not_implemented(environ, start_response, f"viseme dev has no such operation: {err}")
        try:
            body = list(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        if environ["REQUEST_METHOD"] not in READING_METHODS:
            self._note_change(environ)
        start_response(*statuses[-1])
        return body

    def _note_change(self, environ: Environ) -> None:
        service, target = service_of(environ), environ.get("HTTP_X_AMZ_TARGET", "")
        # Older clients call SQS without a target, by the query protocol.
        may_send = service in ("s3", "sns", "events") or (service == "sqs" and not target)
        if self.saved is not None:
            if service == "s3":
                self._save_s3(self.saved, environ)
            elif TARGET_TABLES.match(target):
                self.saved.save_tables()
            if may_send or is_change_of_queue(target):
                self.saved.save_queues()
        if may_send or target.startswith("AmazonSQS.SendMessage"):
            self._wakeup.notify()

    def _save_s3(self, saved: SavedAccount, environ: Environ) -> None:
        bucket, _, key = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace").lstrip("/").partition("/")
        if key and PATH_STYLE_HOST.fullmatch(environ.get("HTTP_HOST", "")):
            saved.save_key(bucket, key)
        else:  # a form, several keys, a whole bucket; or the bucket is in the host's name
            saved.save_buckets()

    def _invoke(self, name: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer Lambda's Invoke. Source: the operation in botocore's service model (path, headers, statuses)."""
        function = self.functions.get(name.rpartition(":")[2])
        if function is None:
            body = error_body("ResourceNotFoundException", f"Function not found: {name}")
            return respond(start_response, "404 Not Found", body, {"x-amzn-errortype": "ResourceNotFoundException"})
        length = get_content_length(environ) or 0
        if length > MAX_PAYLOAD_BYTES:
            body = error_body("RequestTooLargeException", f"{length} bytes, expected at most {MAX_PAYLOAD_BYTES}")
            return respond(start_response, "413 Content Too Large", body, {})
        try:
            event = json.loads(environ["wsgi.input"].read(length) or b"{}")
        except (ValueError, RecursionError) as err:
            body = error_body("InvalidRequestContentException", f"the payload is not JSON: {err}")
            headers = {"x-amzn-errortype": "InvalidRequestContentException"}
            return respond(start_response, "400 Bad Request", body, headers)
        try:
            result = json.dumps(function.invoke(event)).encode()
        except FunctionFailed as err:
            headers = {"X-Amz-Function-Error": "Unhandled"}
            return respond(start_response, "200 OK", json.dumps(err.error).encode(), headers)
        return respond(start_response, "200 OK", result, {})


class QuietRequestHandler(MotoRequestHandler):  # type: ignore[misc] # read without its types
    """moto's, without a line in the log for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


def open_port(host: str, port: int, app: Gateway) -> BaseWSGIServer:
    """Return the server, whose port is open. Raises: WrongRequest if it cannot be opened."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        return make_server(host, port, app, threaded=True, request_handler=QuietRequestHandler)
    except (OSError, SystemExit) as err:  # werkzeug prints the reason, and exits
        raise WrongRequest(f"--host {host} --port {port}: the port cannot be opened") from err


def request_headers(environ: Environ) -> list[tuple[str, str]]:
    """Return the headers of a WSGI request. Of a header that was sent twice, werkzeug joins the values by commas."""
    return [(name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")]


def service_of(environ: Environ) -> str:
    """Return the service that a request is signed for; "s3" if it is not signed, as moto takes it."""
    signed = environ.get("HTTP_AUTHORIZATION", "") or unquote(environ.get("QUERY_STRING", ""))
    match = SERVICE.search(signed)
    return match[1] if match else "s3"


def respond_not_implemented(environ: Environ, start_response: StartResponse, message: str) -> Iterable[bytes]:
    """Answer in the form of the service's protocol: JSON, or XML."""
    code, status = "NotImplemented", "501 Not Implemented"
    if "json" in environ.get("CONTENT_TYPE", ""):
        return respond(start_response, status, error_body(code, message), {})
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></ErrorResponse>"
    return respond(start_response, status, body.encode(), {"Content-Type": "text/xml"})


def is_change_of_queue(target: str) -> bool:
    service, _, operation = target.partition(".")
    return service == "AmazonSQS" and operation.startswith(("SendMessage", "DeleteMessage", "PurgeQueue"))


def error_body(code: str, message: str) -> bytes:
    return json.dumps({"__type": code, "Code": code, "Message": message}).encode()
