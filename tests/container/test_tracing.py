"""Spans of one request through server, worker and decoder, as a collector of OpenTelemetry receives them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.live_server import live_server
from support.synthetic_frames import talk
from support.video_files import make_video
from support.waiting import wait_until

from inference import tracing
from inference.errors import InvalidRequest

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
N_SPANS = 5  # of server and worker for each of two requests, and of the decoder for one


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Receive OTLP over HTTP; yield the URL and what arrives."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def spans_of(received: list[ExportTraceServiceRequest]) -> list[Span]:
    return [span for one in received for of in one.resource_spans for scope in of.scope_spans for span in scope.spans]


def attributes_of(span: Span) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> list[ExportTraceServiceRequest]:
    """Return what was sent about a request that is answered, and one that is not."""
    with collector() as (url, received):
        settings = {"VISEME_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "lips"}
        settings["OTEL_BSP_SCHEDULE_DELAY"] = "100"  # ms
        with (
            live_server(tmp_path_factory.mktemp("tracing"), settings) as server,
            server.client() as client,
        ):
            headers = {"content-type": "video/mp4", "traceparent": f"00-{TRACE}-{CALLER}-01"}
            answer = client.post("/invocations", content=make_video(talk(25)), headers=headers)
            assert answer.status_code == 200, answer.text
            assert client.post("/invocations", content=b"x", headers=headers).status_code == 400
            wait_until(lambda: len(spans_of(received)) >= N_SPANS)
    return received


def test_a_request_is_followed_through_server_worker_and_decoder(received: list[ExportTraceServiceRequest]):
    spans = spans_of(received)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    by_id = {span.span_id: span for span in spans}
    [decode] = [span for span in spans if span.name == "decode"]
    worker = by_id[decode.parent_span_id]
    served = by_id[worker.parent_span_id]
    assert (worker.name, served.name) == ("worker", "POST invocations")
    assert served.parent_span_id.hex() == CALLER
    assert served.start_time_unix_nano <= worker.start_time_unix_nano <= decode.start_time_unix_nano
    assert decode.end_time_unix_nano <= worker.end_time_unix_nano <= served.end_time_unix_nano
    assert attributes_of(served)["http.response.status_code"] == 200
    assert attributes_of(served)["request_id"] == attributes_of(worker)["request_id"]


def test_a_failure_is_named(received: list[ExportTraceServiceRequest]):
    failed = [span for span in spans_of(received) if attributes_of(span).get("http.response.status_code") == 400]
    assert len(failed) == 1
    [worker] = [span for span in spans_of(received) if span.parent_span_id == failed[0].span_id]
    assert attributes_of(worker)["error.type"] == "unsupported_media"


def test_the_service_has_the_name_that_opentelemetrys_variable_says(received: list[ExportTraceServiceRequest]):
    resources = [of.resource for one in received for of in one.resource_spans]
    names = {one.value.string_value for of in resources for one in of.attributes if one.key == "service.name"}
    assert names == {"lips"}


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'viseme\[tracing\]'"):
        tracing.start_tracing()


def test_without_tracing_nothing_is_imported_or_sent():
    with tracing.span("anything", "00-malformed") as current:
        assert current is None
    assert tracing.current_traceparent() is None
