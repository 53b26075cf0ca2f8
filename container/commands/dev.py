"""`viseme dev`: an AWS account on this machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from container.commands.console import EXIT_INTERNAL, EXIT_OK, print_line, print_note
from inference.errors import AccessDenied, InvalidRequest

# moto is imported in the function that uses it: neither help nor completion must wait for it.
if TYPE_CHECKING:
    from deploy.dev.gateway import AccessCheck
    from inference.settings import Settings


def dev(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
    bucket: Annotated[str, typer.Option(help="S3 bucket of uploads and results.")] = "viseme-dev",
    endpoint: Annotated[str, typer.Option(help="Name of the SageMaker endpoint.")] = "viseme",
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Keep S3 and what is queued in this folder."),
    ] = None,
) -> None:
    """Run an AWS account on this machine: the stack, and an endpoint.

    S3, EventBridge, SQS, SNS, DynamoDB and SageMaker are answered on one
    port, for the AWS CLI, boto3 and deploy.endpoint. A video uploaded under
    uploads/ is read, and its words are stored under results/. Print commands
    to copy once it is ready. Any keys are accepted. It needs a checkout, and
    the extra 'dev'.
    """
    from container.http.hosts import is_bound_to_loopback
    from inference.settings import Settings

    access = make_access_check(Settings.from_env(), host)
    if not is_bound_to_loopback(host):
        print_note(f"anyone who reaches {host} may do everything here: any keys are accepted")
    try:
        from deploy.dev.account import AccountOptions, run_account
    except ModuleNotFoundError as err:
        package = (err.name or "").partition(".")[0]
        if package in ("", "deploy"):
            raise
        raise InvalidRequest(f"{package} is not installed: pip install '.[dev]'") from err
    from deploy.errors import DeployError, WrongRequest

    logging.basicConfig(level=logging.WARNING, format="viseme: %(message)s")
    logging.getLogger("viseme.dev").setLevel(logging.INFO)
    try:
        is_stopped = run_account(AccountOptions(host, port, bucket, endpoint, data), access, print_line)
    except WrongRequest as err:
        raise InvalidRequest(str(err)) from err
    except DeployError as err:
        print_note(str(err))
        raise typer.Exit(EXIT_INTERNAL) from err
    raise typer.Exit(EXIT_OK if is_stopped else EXIT_INTERNAL)


def make_access_check(settings: Settings, host: str) -> AccessCheck:
    """Return the check of a request's Host and Origin, by the rules of the server's other ports.

    There is no token: AWS's clients could not send it.
    """
    from starlette.datastructures import Headers

    from container.http.auth import check_origin
    from container.http.hosts import MAX_SHOWN_CHARS, check_host, is_bound_to_loopback

    hosts, origins = settings.allowed_hosts, settings.allowed_origins
    needs_host = "*" not in hosts and (is_bound_to_loopback(host) or bool(hosts))
    own = f"[{host}]" if ":" in host else host  # by which the account calls itself

    def find_reason(headers: Sequence[tuple[str, str]]) -> str | None:
        found = Headers(raw=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])
        try:
            if needs_host:
                check_host(found, (*hosts, own.lower()))
        except AccessDenied as err:
            return str(err)
        try:
            check_origin(found, None, origins)
        except AccessDenied:
            origin = found.get("origin", "of another site")[:MAX_SHOWN_CHARS]
            return f"origin {origin} is not allowed; VISEME_ALLOWED_ORIGINS names those that are"
        return None

    return find_reason
