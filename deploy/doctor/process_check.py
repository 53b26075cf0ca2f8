"""The container's process: where it listens, when it says that it is ready, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from deploy.doctor.background import run_in_background
from deploy.doctor.container_process import POLL_S, ContainerProcess
from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.http_calls import PING, NoReply, Reply
from deploy.doctor.requests_check import Probe
from deploy.doctor.samples import describe_sync, read_clip, sync_clip
from deploy.doctor.waiting_check import NEEDS_SYNC
from deploy.errors import RequestFailed

START, ADDRESS, HONESTY = "start", "address", "ping before the models are loaded"
RUNNING, PING_DRAINING, EXIT = "requests at SIGTERM", "ping after SIGTERM", "exit after SIGTERM"
HONESTY_GRACE_S = 60.0  # for a server that is 200 too early, to load its models after all
SPEECH_REPEATS = (4, 16, 64, 256)  # seconds of lip sync, tried until one is still under way at SIGTERM


def check_start(probe: Probe, process: ContainerProcess) -> Finding:
    """Wait until /ping is 200, as SageMaker does."""
    started, last = time.monotonic(), "no connection"
    while time.monotonic() - started < probe.limits.startup_s:
        if not process.is_running:
            found = f"it ended with exit code {process.exit_code}: {process.last_lines()}"
            return failure(START, found, "the log has the reason")
        try:
            reply = PING.send(probe.url, probe.limits.ping_s)
        except NoReply as err:
            last = str(err)
        else:
            if reply.status == 200:
                return ok(START, f"/ping is 200 after {time.monotonic() - started:.1f} s")
            last = reply.quote()
        time.sleep(POLL_S)
    elsewhere = sorted(str(one) for one in process.addresses())
    found = f"/ping is not 200 on port {probe.url.port} after {probe.limits.startup_s:g} s: {last}"
    if elsewhere and not any(one.port == probe.url.port for one in process.addresses()):
        fix = f"it listens on {', '.join(elsewhere)}: bind to the port of SAGEMAKER_BIND_TO_PORT, else 8080"
        return failure(START, found, fix)
    return failure(START, found, f"its log ends with: {process.last_lines()}")


def check_address(probe: Probe, process: ContainerProcess, *, is_strict: bool) -> Finding:
    """Check that others than this machine can reach it. is_strict: if that is what it was started for."""
    found = [one for one in process.addresses() if one.port == probe.url.port]
    shown = ", ".join(sorted(map(str, found)))
    if not found:
        return not_checked(ADDRESS, f"no process of {process.pid} is seen to listen on port {probe.url.port}")
    if any(not one.is_loopback for one in found):
        return ok(ADDRESS, shown)
    fix = "bind to 0.0.0.0: SageMaker calls from outside the container"
    return failure(ADDRESS, shown, fix) if is_strict else warning(ADDRESS, shown, f"in the image, {fix}")


def check_honesty(probe: Probe) -> Finding:
    """Read a clip as soon as /ping is 200: it must not be so before the models are loaded."""
    started, first = time.monotonic(), ""
    while True:
        try:
            reply = probe.send(read_clip())
            fault = "" if reply.status == 200 else reply.quote()
        except NoReply as err:
            fault = str(err)
        after_s = time.monotonic() - started
        if not fault and not first:
            return ok(HONESTY, "the first request after /ping is 200 was answered")
        if not fault:
            return failure(
                HONESTY,
                f"/ping was 200 at least {after_s:.0f} s before a request could be answered: {first}",
                "answer 503 until the models are loaded: SageMaker sends requests, and ends updates, by /ping",
            )
        first = first or fault
        if after_s >= min(HONESTY_GRACE_S, probe.limits.startup_s):
            return not_checked(HONESTY, f"no request is answered: {first}")
        time.sleep(1.0)


@dataclass(frozen=True)
class RunningSync:
    """A request that was under way when the process got SIGTERM."""

    n_repeats: int
    answer: Future[Reply]


def check_drain(probe: Probe, process: ContainerProcess, *, with_sync: bool) -> Iterator[Finding]:
    """Send SIGTERM while a face is synced: the request is finished, and the process ends."""
    running = start_long_sync(probe) if with_sync else None
    signalled = time.monotonic()
    process.terminate()
    yield check_ping_while_draining(probe, process)
    yield (
        judge_running(running, signalled)
        if running
        else not_checked(RUNNING, "no request is long enough" if with_sync else NEEDS_SYNC)
    )
    yield check_exit(probe, process, signalled)


def start_long_sync(probe: Probe) -> RunningSync | None:
    """Return a request that is under way; None if even the longest was answered too soon."""
    for n_repeats in SPEECH_REPEATS:
        answer = run_in_background(probe.send, sync_clip(n_repeats))
        time.sleep(probe.limits.settle_s)
        if not answer.done():
            return RunningSync(n_repeats, answer)
    return None


def judge_running(running: RunningSync, signalled: float) -> Finding:
    fix = "finish what is under way for up to 25 s: SageMaker sends SIGTERM at each update, and SIGKILL after 30 s"
    try:
        reply = running.answer.result()
        found = describe_sync(reply, running.n_repeats)
    except (NoReply, RequestFailed) as err:
        return failure(RUNNING, f"a request of {running.n_repeats} s of lip sync was cut: {err}", fix)
    return ok(RUNNING, f"finished {time.monotonic() - signalled:.1f} s later: {found}")


def check_ping_while_draining(probe: Probe, process: ContainerProcess) -> Finding:
    """Wait for /ping to be other than 200, for as long as a ping may take."""
    give_up = time.monotonic() + probe.limits.ping_s
    while True:
        try:
            reply = PING.send(probe.url, probe.limits.ping_s)
        except NoReply as err:
            if not process.is_running:
                return not_checked(PING_DRAINING, "the process had ended")
            return warning(
                PING_DRAINING, str(err), "keep the port open and answer 503: callers see refused connections"
            )
        if reply.status != 200:
            return ok(PING_DRAINING, f"{reply.status} while requests are finished")
        if time.monotonic() >= give_up:
            return warning(PING_DRAINING, "still 200", "answer 503, so that no new requests come")
        time.sleep(POLL_S)


def check_exit(probe: Probe, process: ContainerProcess, signalled: float) -> Finding:
    drain_s = probe.limits.drain_s
    if not process.wait(signalled + drain_s - time.monotonic()):
        return failure(
            EXIT,
            f"it runs {drain_s:g} s after SIGTERM",
            "end within 25 s; if a shell starts the server, `exec` it, so that it gets the signal",
        )
    took, code = f"after {time.monotonic() - signalled:.1f} s", process.exit_code
    return ok(EXIT, took if code is None else f"{took}, exit code {code}")
