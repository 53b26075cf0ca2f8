"""OpenTelemetry spans of a request, in the server, the worker and around the decoder. Off, they cost nothing.

Where they are sent, and under which name, is set by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE = "viseme"  # unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES names another one
TRACEPARENT = "traceparent"  # header of https://www.w3.org/TR/trace-context/
_provider: TracerProvider | None = None


def start_tracing() -> None:
    """Trace this process from now on. Raises: InvalidRequest if the extra is not installed."""
    global _provider  # noqa: PLW0603 - one for each process
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as err:
        raise InvalidRequest("VISEME_TRACING needs OpenTelemetry: pip install 'viseme[tracing]'") from err
    resource = Resource({"service.name": SERVICE}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider = provider


def stop_tracing() -> None:
    """Send the spans that have ended, and trace no more."""
    global _provider  # noqa: PLW0603
    if _provider is not None:
        _provider.shutdown()
        _provider = None


@contextmanager
def span(
    name: str, parent: str | None = None, *, is_server: bool = False, **attributes: str | int
) -> Iterator[Span | None]:
    """Trace what happens in the context; yield its span, or None if this process does not trace.

    parent: a traceparent; by default the span of the enclosing context, if there is one in this thread or task. A
    traceparent that is malformed counts as none. Exceptions that leave the context are recorded.
    """
    if _provider is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None if parent is None else TraceContextTextMapPropagator().extract({TRACEPARENT: parent})
    kind = SpanKind.SERVER if is_server else SpanKind.INTERNAL
    tracer = _provider.get_tracer(SERVICE)
    with tracer.start_as_current_span(name, context, kind, attributes) as current:
        yield current


def current_traceparent() -> str | None:
    """Return the traceparent of the current span, for another process; None without one."""
    if _provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(TRACEPARENT)
