"""SageMaker's contract, checked against a running container."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.doctor.connection_check import find_connection_fault, find_token_fault
from deploy.doctor.container_process import ContainerProcess, choose_port, started_container
from deploy.doctor.errors_check import check_errors
from deploy.doctor.findings import Finding, Outcome, not_checked
from deploy.doctor.http_calls import ContainerUrl
from deploy.doctor.limits import ContractLimits
from deploy.doctor.load_check import check_load
from deploy.doctor.process_check import check_address, check_drain, check_honesty, check_start
from deploy.doctor.requests_check import (
    Probe,
    check_large,
    check_ping,
    check_reading,
    check_sync,
    check_too_large,
    check_types,
)
from deploy.doctor.waiting_check import SLOW_CHECKS, check_abandoned, check_reuse, check_slow

PROCESS = "start, SIGTERM"


@dataclass(frozen=True)
class ContractCheck:
    """Which checks run. is_quick: without those that wait for a minute."""

    limits: ContractLimits
    is_quick: bool = False
    token: str | None = None

    def of_url(self, url: ContainerUrl, pid: int | None = None) -> Iterator[Finding]:
        """Check a container that runs already.

        pid: of its process on this machine, which gets SIGTERM at the end; None: nothing of the process is checked.
        Raises: WrongRequest if there is no such process.
        """
        process = ContainerProcess.find(pid) if pid is not None else None
        probe = Probe(url, self.limits)
        fault = find_connection_fault(probe) or find_token_fault(probe)
        if fault:
            yield fault
            return
        if process:
            yield check_address(probe, process, is_strict=False)
        with_sync = yield from self._check_requests(probe)
        if process:
            yield from check_drain(probe, process, with_sync=with_sync)
        else:
            yield not_checked(PROCESS, "--pid PID checks the process at this URL, and ends it")

    def of_command(self, command: Sequence[str], folder: Path, *, is_local: bool) -> Iterator[Finding]:
        """Start a container's command, check it from its start to its end, and stop it.

        folder: for its log. is_local: whether it is to listen on this machine only.
        Raises: WrongRequest if it cannot be started.
        """
        url = ContainerUrl("http", "127.0.0.1", choose_port(), self.token)
        probe = Probe(url, self.limits)
        with started_container(command, url.port, folder / "container.log") as process:
            start = check_start(probe, process)
            yield start
            if start.outcome is not Outcome.OK:
                return
            fault = find_token_fault(probe)
            if fault:
                yield fault
                return
            yield check_honesty(probe)
            if not is_local:
                yield check_address(probe, process, is_strict=True)
            with_sync = yield from self._check_requests(probe)
            yield from check_drain(probe, process, with_sync=with_sync)

    def _check_requests(self, probe: Probe) -> Generator[Finding, None, bool]:
        """Yield what requests alone can show. Returns: whether lip sync works."""
        yield check_ping(probe)
        reading, text = check_reading(probe)
        yield reading
        sync = check_sync(probe)
        with_sync = sync.outcome is Outcome.OK
        yield sync
        yield check_types(probe, with_sync=with_sync)
        yield from check_errors(probe)
        yield check_large(probe, text)
        yield check_too_large(probe)
        yield check_reuse(probe)
        yield from check_load(probe, text)
        yield check_abandoned(probe, text, with_sync=with_sync)
        if self.is_quick:
            yield from (not_checked(name, "--quick leaves it out") for name in SLOW_CHECKS)
        else:
            yield from check_slow(probe, with_sync=with_sync)
        return with_sync
