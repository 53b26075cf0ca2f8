"""The server process: ports, signals, draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, Protocol

import uvicorn
from starlette.types import ASGIApp

from container.app import Server, make_app
from container.http.bounded_protocol import BoundedHttpProtocol
from container.http.connections import AdmissionProtocol, ConnectionLimits, ConnectionQuota
from container.http.tls import read_certificate
from container.live.transport import WEBSOCKET_CONFIG, BackpressureProtocol
from container.logs import set_up_logs
from inference.backends.threads import limit_threads
from inference.media.sandbox.confinement import deny_inspection
from inference.settings import Settings
from inference.tracing import start_tracing, stop_tracing

logger = logging.getLogger("viseme.server")
DRAIN_TIMEOUT_S = 25.0  # seconds to finish requests after SIGTERM; SageMaker kills the container after 30
ABORT_TIMEOUT_S = 1.0  # seconds to send the errors of aborted requests
# Longer than load balancers and clients keep an idle connection (60 s): otherwise they could send a request into a
# connection that is just being closed, and see a failed request.
KEEP_ALIVE_S = 75


class AuxiliaryServer(Protocol):
    """A server on another port, in the same event loop."""

    name: str  # the name of its port in the log

    async def start(self) -> int:
        """Open the port and return its number. Raises: OSError if the port cannot be opened."""

    async def stop(self) -> None:
        """Close the port, and abort what is still running."""


class LegacyPort:
    """A port for clients of the older protocols."""

    def __init__(self, settings: Settings, server: Server, index: int, port: int, quota: ConnectionQuota) -> None:
        """Configure the port.

        index: its position in the setting `legacy_ports`, which selects the protocol. quota: of all ports.
        """
        self.name = f"legacy_port_{index}"
        self._address = settings.host, port
        self._sockets: list[socket.socket] = []
        config = http_config(server.live.legacy_app(index), settings, quota, lifespan="off")
        self._http = uvicorn.Server(config)
        self._http.lifespan = config.lifespan_class(config)

    async def start(self) -> int:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._sockets = [socket.create_server(self._address, family=family)]
        await self._http.startup(self._sockets)
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._http.started:
            await self._http.shutdown(self._sockets)


def auxiliary_servers(settings: Settings, server: Server, quota: ConnectionQuota) -> list[AuxiliaryServer]:
    """Return the servers on the other ports that the settings open. quota: of the HTTP and WebSocket ports."""
    ports = enumerate(settings.live_ports.legacy)
    servers: list[AuxiliaryServer] = [LegacyPort(settings, server, index, port, quota) for index, port in ports if port]
    if settings.live_ports.grpc:
        from container.rpc import RpcServer

        live, port = server.live, settings.live_ports.grpc
        rpc = RpcServer(live.avatars, live.latencies, settings, port, lambda: server.is_ready, server.metrics.count)
        servers.append(rpc)
    return servers


class DrainingServer(uvicorn.Server):
    """uvicorn that keeps its port open after a signal: /ping returns 503 while requests finish.

    uvicorn itself would close its listener at once, and a load balancer would see refused connections.
    """

    def __init__(self, config: uvicorn.Config, server: Server, auxiliary: Sequence[AuxiliaryServer] = ()) -> None:
        super().__init__(config)
        self._server = server
        self._auxiliary = auxiliary
        self._drain: asyncio.Task[None] | None = None
        self._is_aborted = False  # by a second signal
        self.failed = False  # a port could not be opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the models, open every port, and log one line with what the workers reported."""
        await super().startup(sockets)
        ports = {"port": self.servers[0].sockets[0].getsockname()[1]}  # the system chose it if the setting is 0
        for other in self._auxiliary:
            try:
                ports[other.name] = await other.start()
            except OSError as err:
                logger.critical("a port cannot be opened", extra={"name_of_port": other.name, "reason": str(err)})
                self.should_exit, self.failed = True, True
                return
        logger.info("viseme is ready", extra=self._server.pool.health | {"host": self.config.host} | ports)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close every port."""
        for other in self._auxiliary:
            await other.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install handlers that drain, instead of uvicorn's."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._on_signal)
        try:
            yield
        finally:
            for one in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(one)

    def _on_signal(self) -> None:
        if self._drain is not None:  # the second signal: stop at once
            if not self._is_aborted:
                logger.warning("stopping at once, after a second signal", extra={"held": self.n_held})
            self._is_aborted = True
            return
        logger.info("draining", extra={"held": self.n_held})
        self._server.drain()
        self._drain = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        try:
            await self._wait_until(lambda: not self.n_held or self._is_aborted, DRAIN_TIMEOUT_S)
            if self.n_held:
                if not self._is_aborted:
                    logger.error("requests did not finish in time and are aborted", extra={"held": self.n_held})
                self._server.pool.abort()
                await self._wait_until(lambda: not self.n_held, ABORT_TIMEOUT_S)
        finally:
            self.should_exit = True

    @property
    def n_held(self) -> int:
        """What is left to finish: requests and sessions, and connections whose clients have not taken their answer."""
        connections = self.server_state.connections
        n_unsent = sum(one.n_unsent > 0 for one in connections if isinstance(one, BoundedHttpProtocol))
        return self._server.n_in_flight + n_unsent

    async def _wait_until(self, is_so: Callable[[], bool], timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    await asyncio.sleep(0.05)


def run_server(settings: Settings, *, with_aws_routes: bool = False) -> int:
    """Serve until a signal arrives. Returns: the exit code, 1 if the models could not be loaded or a port opened.

    with_aws_routes: act as a SageMaker endpoint, including its limits for asynchronous calls.
    Raises: InvalidRequest if the certificate is invalid.
    """
    set_up_logs()
    deny_inspection()
    if settings.tracing:
        start_tracing()
    limit_threads(settings.wanted_threads)
    max_files = raise_descriptor_limit()
    read_certificate(settings)
    if with_aws_routes:
        settings = settings.model_copy(update={"on_sagemaker": True})
    server = Server(settings)
    app = make_app(server, with_aws_routes=with_aws_routes)
    quota = ConnectionQuota(ConnectionLimits.of(settings, max_files))
    draining = DrainingServer(http_config(app, settings, quota), server, auxiliary_servers(settings, server, quota))
    try:
        draining.run()
    except SystemExit:  # raised by uvicorn if the start failed; the reason is in the log
        return 1
    finally:
        stop_tracing()
    return 0 if draining.started and not draining.failed else 1


def raise_descriptor_limit() -> int | None:
    """Allow as many open files as the system does, and return their number; None if it is not limited.

    Each connection is one, and many systems start with 1,024.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard


def http_config(
    app: ASGIApp,
    settings: Settings,
    quota: ConnectionQuota | None = None,
    lifespan: Literal["on", "off"] = "on",
) -> uvicorn.Config:
    """Return the uvicorn configuration that every HTTP and WebSocket port shares.

    quota: of the connections to all of them, by default to this one.
    """
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # `client_of` reads them, if a setting trusts the proxy
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,  # requests were drained before
        lifespan=lifespan,
        ws=BackpressureProtocol,
        http=BoundedHttpProtocol,
        **WEBSOCKET_CONFIG,
    )
    config.load()
    # Connections are counted before their TLS handshake, which uvicorn would leave to the event loop.
    context, config.ssl = config.ssl, None
    quota = quota or ConnectionQuota(ConnectionLimits.of(settings))
    config.http_protocol_class = partial(AdmissionProtocol, quota, context, BoundedHttpProtocol)  # type: ignore[assignment]
    return config
