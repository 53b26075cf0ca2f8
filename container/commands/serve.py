"""`viseme serve`: run the server."""

from __future__ import annotations

from typing import Annotated

import typer

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: VISEME_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port. Default: SAGEMAKER_BIND_TO_PORT, else 8080.")] = None,
    aws_routes: Annotated[
        bool,
        typer.Option("--aws-routes", help="Also answer the AWS CLI and SDKs, at /endpoints/NAME/..."),
    ] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Load the avatars at startup and open the two kinds of ports below.")
    ] = False,
    grpc_port: Annotated[
        int | None, typer.Option(help="gRPC port for avatars; 0 disables it. Default: 50051 with --realtime.")
    ] = None,
    legacy_ports: Annotated[
        str | None,
        typer.Option(
            metavar="PORT,PORT,PORT",
            help="Ports for older avatar clients: the JSON and binary server, its faster variant, the proxy; 0 "
            "disables one. Default: 8084,8085,8086 with --realtime.",
        ),
    ] = None,
) -> None:
    """Serve lip reading, lip sync and live avatars over HTTP, WebSocket and gRPC.

    Logs go to stderr, one JSON object per line. On SIGTERM, requests in
    progress are finished before the server exits.
    """
    from container.server import run_server
    from inference.settings import Settings

    settings = Settings.from_env().with_overrides(
        host=host, port=port, realtime=realtime or None, grpc_port=grpc_port, legacy_ports=legacy_ports
    )
    raise typer.Exit(run_server(settings, with_aws_routes=aws_routes))
