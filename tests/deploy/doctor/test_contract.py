"""The doctor names the fault of each planted container, and no other; and none in a good container."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.doctor.container_process import choose_port, started_container
from deploy.doctor.contract import ContractCheck
from deploy.doctor.findings import Finding, Outcome
from deploy.doctor.http_calls import ContainerUrl
from deploy.doctor.limits import ContractLimits
from deploy.doctor.process_check import check_start
from deploy.doctor.requests_check import Probe

ROOT = Path(__file__).parents[3]
LIMITS = ContractLimits(
    deadline_s=8.0, ping_s=2.0, drain_s=10.0, idle_s=1.0, startup_s=60.0, settle_s=0.5, grace_s=1.0, n_at_once=24
)


N_AT_ONCE = 3  # examinations: each mostly waits


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Let the container's process import this repository and the tests' support."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tests"))))
        yield


@pytest.fixture(scope="module")
def examinations(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[Finding]]]]:
    """Examine some containers at a time, in the order of the tests that will run. Yields what is found by fault."""
    tests = [one for one in request.session.items if one.path == request.path and "examinations" in one.fixturenames]
    faults = [one.callspec.params["fault"] for one in tests]
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        yield {
            fault: pool.submit(examine, fault, tmp_path_factory.mktemp(fault), limits_for(fault)) for fault in faults
        }
        pool.shutdown(cancel_futures=True)


def limits_for(fault: str) -> ContractLimits:
    if fault == "IgnoresSigterm":
        return replace(LIMITS, drain_s=3.0)  # the only one to wait for the end
    if fault == "OneThread":
        return replace(LIMITS, deadline_s=60.0)  # one after the other: on a busy machine the last would be late
    return LIMITS


def examine(fault: str, folder: Path, limits: ContractLimits = LIMITS, *, is_quick: bool = True) -> list[Finding]:
    command = [sys.executable, "-m", "support.planted_container", fault]
    return list(ContractCheck(limits, is_quick=is_quick).of_command(command, folder, is_local=False))


def named(findings: list[Finding], outcome: Outcome) -> dict[str, str]:
    return {one.check: one.line() for one in findings if one.outcome is outcome}


def test_a_container_that_keeps_the_contract(tmp_path: Path):
    findings = examine("Container", tmp_path, is_quick=False)
    assert {one.check: one.line() for one in findings if one.outcome is not Outcome.OK} == {}
    assert {"idle connection", "stalled body", "deadline", "caller that leaves"} <= {one.check for one in findings}
    documented = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    assert [one.check for one in findings if f"`{one.check}`" not in documented] == []


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("ReadyTooEarly", "ping before the models are loaded", "answer 503 until the models are loaded"),
        ("OneThread", "ping under load", "not answered within 2 s"),
        ("ErrorsAreSuccesses", "error statuses", "JSON that ends early: 200, expected 400"),
        ("ErrorsAre400", "error statuses", "an unknown content type: 400, expected 415"),
        ("ErrorsAre500", "error statuses", "Invocation5XXErrors"),
        ("HtmlErrors", "error bodies", "text/html"),
        ("LeaksTracebacks", "tracebacks", "in the answer to JSON that ends early"),
        ("HangsWhenFull", "many requests at once", "lost (no complete answer"),
        ("TruncatesLargeAnswers", "lip sync", "the answer ended after 65536 of "),
        ("WrongWords", "lip reading", '"SET RED IN Q SIX SOON", spoken was "BIN BLUE AT F TWO NOW"'),
        ("WrongTypes", "answer types", "text/vtt: answered as application/json"),
        ("SmallBodies", "large request", "25 MB: 413"),
        ("ResetsLargeBodies", "too large request", "read the rest of the body"),
        ("IgnoresSigterm", "exit after SIGTERM", "it runs 3 s after SIGTERM"),
        ("CutsRequests", "requests at SIGTERM", "was cut"),
        ("ListensOnLoopback", "address", "127.0.0.1:"),
        ("DiesAtStart", "start", "exit code 1: no module named torch"),
    ],
)
def test_each_fault_is_named_and_no_other(
    fault: str, check: str, words: str, examinations: dict[str, Future[list[Finding]]]
):
    failures = named(examinations[fault].result(), Outcome.FAILURE)
    assert failures.keys() == {check}, failures
    assert words in failures[check]


@pytest.mark.parametrize("with_pid", [True, False])
def test_a_container_that_runs_already(with_pid: bool, tmp_path: Path):
    url = ContainerUrl("http", "127.0.0.1", choose_port())
    command = [sys.executable, "-m", "support.planted_container", "ListensOnLoopback"]
    with started_container(command, url.port, tmp_path / "log") as process:
        assert check_start(Probe(url, LIMITS), process).outcome is Outcome.OK
        check = ContractCheck(LIMITS, is_quick=True)
        findings = {one.check: one.outcome for one in check.of_url(url, process.pid if with_pid else None)}
        assert process.is_running is not with_pid
    assert Outcome.FAILURE not in findings.values()
    if with_pid:
        assert findings["address"] is Outcome.WARNING  # it may be meant for this machine
        assert findings["exit after SIGTERM"] is Outcome.OK
    else:
        assert findings["start, SIGTERM"] is Outcome.NOT_CHECKED


@pytest.mark.parametrize(
    ("fault", "words"), [("NeverReady", "/ping is not 200"), ("ListensElsewhere", "it listens on 0.0.0.0:")]
)
def test_a_container_that_never_answers_its_ping(fault: str, words: str, tmp_path: Path):
    [finding] = examine(fault, tmp_path, replace(LIMITS, startup_s=5.0))
    assert (finding.check, finding.outcome) == ("start", Outcome.FAILURE)
    assert words in finding.line()


def test_a_ping_with_a_body_is_worth_a_warning(tmp_path: Path):
    findings = examine("PingWithBody", tmp_path)
    assert named(findings, Outcome.FAILURE) == {}
    assert "AWS documents an empty body" in named(findings, Outcome.WARNING)["ping"]
