"""Many requests at once: each is answered, in time, and /ping meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deploy.doctor.background import run_in_background
from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.http_calls import PING, Call, NoReply, Reply
from deploy.doctor.requests_check import BUSY_STATUSES, NEEDS_READING, Probe
from deploy.doctor.samples import describe_reading, read_clip
from deploy.errors import RequestFailed

LOAD, PING_UNDER_LOAD = "many requests at once", "ping under load"
PING_INTERVAL_S = 0.2
LATE_STATUSES = (408, 504)
QUEUE_ADVICE = "queue only as many as are answered in time, and refuse the others with 503 and Retry-After at once"


@dataclass(frozen=True)
class LoadedPings:
    """The pings under load: seconds of those that were 200, other answers, and those that had none in time."""

    took_s: list[float]
    refused: list[Reply]
    lost: list[NoReply]


def check_load(probe: Probe, text: str | None) -> Iterator[Finding]:
    """Read the clip many times at once, and ping meanwhile. text: what must be read, None if nothing can be."""
    if text is None:
        yield from (not_checked(name, NEEDS_READING) for name in (PING_UNDER_LOAD, LOAD))
        return
    n, call = probe.limits.n_at_once, read_clip()
    started = time.monotonic()
    running = [run_in_background(send_or_describe, probe, call) for _ in range(n)]
    pings = ping_while(probe, lambda: not all(one.done() for one in running))
    ended = [one.result() for one in running]
    yield judge_pings(pings, probe.limits.ping_s)
    yield judge_load(ended, text, time.monotonic() - started)


def send_or_describe(probe: Probe, call: Call) -> Reply | str:
    """Return the answer; or how the request ended without one."""
    try:
        return probe.send(call)
    except NoReply as err:
        return str(err)


def ping_while(probe: Probe, is_running: Callable[[], bool]) -> LoadedPings:
    """Ping again and again, at least once."""
    pings = LoadedPings([], [], [])
    while True:
        try:
            reply = PING.send(probe.url, probe.limits.ping_s)
        except NoReply as err:
            pings.lost.append(err)
        else:
            if reply.status == 200:
                pings.took_s.append(reply.took_s)
            else:
                pings.refused.append(reply)
        if not is_running():
            return pings
        time.sleep(PING_INTERVAL_S)


def judge_pings(pings: LoadedPings, ping_s: float) -> Finding:
    n_sent = len(pings.took_s) + len(pings.refused) + len(pings.lost)
    fix = "answer it beside the models' work: SageMaker replaces a container that does not"
    if pings.refused:
        return failure(PING_UNDER_LOAD, f"{len(pings.refused)} of {n_sent}: {pings.refused[0].quote()}", fix)
    if pings.lost:
        found = f"{len(pings.lost)} of {n_sent} not answered within {ping_s:g} s: {pings.lost[0]}"
        # SageMaker allows single ones to fail, and this machine may be busy itself.
        return (
            warning(PING_UNDER_LOAD, found, fix)
            if len(pings.lost) == 1 < n_sent
            else failure(PING_UNDER_LOAD, found, fix)
        )
    return ok(PING_UNDER_LOAD, f"{n_sent} of {n_sent} were 200, the slowest in {max(pings.took_s) * 1000:.0f} ms")


def judge_load(ended: list[Reply | str], text: str, took_s: float) -> Finding:
    """text: what each request must have read that was not refused."""
    replies = [one for one in ended if isinstance(one, Reply)]
    lost = [one for one in ended if isinstance(one, str)]
    statuses = Counter(one.status for one in replies)
    counted = ", ".join(f"{n} answered with {status}" for status, n in sorted(statuses.items()))
    found = f"of {len(ended)} {counted}" + (f", {len(lost)} lost ({lost[0]})" if lost else "")
    unexpected = statuses.keys() - {200, *BUSY_STATUSES, *LATE_STATUSES}
    if lost or unexpected:
        return failure(LOAD, found, QUEUE_ADVICE)
    wrong = [fault for one in replies if one.status == 200 and (fault := fault_of_reading(one, text))]
    if wrong:
        return failure(LOAD, f"{found}; {len(wrong)} wrong: {wrong[0]}", "requests must not share what they read into")
    if not statuses[200]:
        return failure(LOAD, found, "answer as many as there are workers, at least")
    if statuses[408] + statuses[504]:  # at SageMaker's own deadline: its callers may see either
        fix = "the queue holds more than is worked off in time: let it hold fewer (VISEME_QUEUE_SIZE), or add workers"
        return warning(LOAD, found, fix)
    hurried = [one for one in replies if one.status in BUSY_STATUSES and "retry-after" not in one.headers]
    if hurried:
        return warning(LOAD, f"{found}, {len(hurried)} without Retry-After", "say when to try again")
    return ok(LOAD, f"{found}, in {took_s:.1f} s")


def fault_of_reading(reply: Reply, text: str) -> str | None:
    try:
        found = describe_reading(reply)
    except RequestFailed as err:
        return str(err)
    return None if found == text else f'read "{found}"'
