"""`viseme doctor`: a container's contract with SageMaker, or an endpoint on AWS, checked."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from container.commands.console import EXIT_INTERNAL, print_error, print_line, print_note
from inference.errors import InvalidRequest

# boto3 is imported in the functions that use it: neither help nor completion must wait for it.
if TYPE_CHECKING:
    from deploy.doctor.contract import ContractCheck
    from deploy.doctor.findings import Finding

DEADLINE_S = 60.0  # SageMaker's, in real time


def doctor(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Check the container that runs at http://HOST:PORT."),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(metavar="PID", help="With --url: also check how that process ends, by sending it SIGTERM."),
    ] = None,
    container_command: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Start this command as the container, and check it from start to end."),
    ] = None,
    endpoint_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Check an endpoint on AWS. Nothing there is changed.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Of the endpoint. Default: that of the profile.")] = None,
    profile: Annotated[str | None, typer.Option(help="AWS profile. Default: AWS_PROFILE.")] = None,
    deadline_s: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Seconds that an answer may take: 60, as in real time.")
    ] = DEADLINE_S,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the checks that wait for a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Check a container against SageMaker's contract, or an endpoint on AWS.

    Without options, start 'viseme serve' on a free port and check it from
    its start to its end. Print a line per check: what was found, and how to
    mend it. The exit code is 1 if a check fails. VISEME_TOKEN is sent, if
    it is set.
    """
    given = {"--url": url, "--container-command": container_command, "--endpoint-name": endpoint_name}
    targets = [name for name, value in given.items() if value is not None]
    if len(targets) > 1:
        raise InvalidRequest(f"{' and '.join(targets)}: expected one of them")
    if pid is not None and url is None:
        raise InvalidRequest("--pid: expected --url with it")
    if (region or profile) and endpoint_name is None:
        raise InvalidRequest("--region and --profile: expected --endpoint-name with them")

    from deploy.errors import DeployError, WrongRequest

    with tempfile.TemporaryDirectory(prefix="viseme-doctor-") as folder:
        try:
            if endpoint_name is not None:
                findings = report_all(endpoint_findings(endpoint_name, region, profile), as_json=as_json)
            else:
                check = make_check(deadline_s, is_quick=quick)
                found = (
                    url_findings(check, url, pid) if url else command_findings(check, container_command, Path(folder))
                )
                findings = report_all(found, as_json=as_json)
        except WrongRequest as err:
            raise InvalidRequest(str(err)) from err
        except DeployError as err:  # such as no credentials: nothing could be checked
            print_error(str(err))
            raise typer.Exit(EXIT_INTERNAL) from err
    if as_json:
        print_line(describe_as_json(endpoint_name or url or container_command or "viseme serve", findings))
    if any(one.has_failed for one in findings):
        raise typer.Exit(EXIT_INTERNAL)


def report_all(findings: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Print each finding as it is made, on stderr if stdout is for JSON."""
    found = []
    for one in findings:
        print_note(one.line()) if as_json else print_line(one.line())
        found.append(one)
    return found


def describe_as_json(target: str, findings: list[Finding]) -> str:
    from deploy.doctor.findings import as_json

    return as_json(target, findings)


def make_check(deadline_s: float, *, is_quick: bool) -> ContractCheck:
    from deploy.doctor.contract import ContractCheck
    from deploy.doctor.limits import ContractLimits
    from inference.settings import Settings

    limits = ContractLimits(deadline_s=deadline_s, idle_s=deadline_s)
    return ContractCheck(limits, is_quick=is_quick, token=Settings.from_env().token)


def url_findings(check: ContractCheck, url: str, pid: int | None) -> Iterator[Finding]:
    from deploy.doctor.http_calls import ContainerUrl

    return check.of_url(ContainerUrl.parse(url, check.token), pid)


def command_findings(check: ContractCheck, command: str | None, folder: Path) -> Iterator[Finding]:
    """Check a container's command; None: our own server, on this machine only."""
    own = [sys.executable, "-m", "container.cli", "serve", "--host", "127.0.0.1"]
    return check.of_command(shlex.split(command) if command else own, folder, is_local=command is None)


def endpoint_findings(name: str, region: str | None, profile: str | None) -> Iterator[Finding]:
    from deploy.aws import BotoAws
    from deploy.doctor.endpoint import check_endpoint

    aws = BotoAws(region, profile)
    return check_endpoint(aws, name, aws.region)
