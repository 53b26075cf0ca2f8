"""What takes as long as SageMaker waits: idle connections, bodies that stall, long requests, callers that leave."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator

from deploy.doctor.background import run_in_background
from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.http_calls import INVOCATIONS, PING, NoReply
from deploy.doctor.requests_check import NEEDS_READING, Probe
from deploy.doctor.samples import MP4, clip_of, describe_reading, read_clip, sync_clip
from deploy.errors import RequestFailed

REUSE, IDLE, STALLED = "connection reuse", "idle connection", "stalled body"
DEADLINE, ABANDONED = "deadline", "caller that leaves"
NEEDS_SYNC = "lip sync must work first"
SLOW_CHECKS = (IDLE, STALLED, DEADLINE)
N_REUSES = 5
# 13,500 frames, which few machines make within a minute: 23 MB in base64, and SageMaker's limit is 25 MB.
LONG_SPEECH_S = 540


def check_reuse(probe: Probe) -> Finding:
    """Send several requests over one connection."""
    connection = probe.url.connect(probe.limits.ping_s)
    try:
        for i in range(N_REUSES):
            reply = PING.send_over(connection, probe.url, probe.limits.ping_s)
            if connection.sock is None and i < N_REUSES - 1:
                return warning(REUSE, f"{reply.status}, then the server closes", "keep connections open")
    except NoReply as err:
        return failure(REUSE, f"request {i + 1} over one connection: {err}", "keep the connection after an answer")
    finally:
        connection.close()
    return ok(REUSE, f"{N_REUSES} requests over one connection")


def check_slow(probe: Probe, *, with_sync: bool) -> Iterator[Finding]:
    """Run the checks that wait for a minute each, side by side. with_sync: whether lip sync works."""
    idle, stalled = run_in_background(check_idle, probe), run_in_background(check_stalled, probe)
    yield check_deadline(probe) if with_sync else not_checked(DEADLINE, NEEDS_SYNC)
    yield idle.result()
    yield stalled.result()


def check_idle(probe: Probe) -> Finding:
    """Use a connection again after it was idle for as long as load balancers keep one."""
    idle_s = probe.limits.idle_s
    connection = probe.url.connect(probe.limits.ping_s)
    try:
        PING.send_over(connection, probe.url, probe.limits.ping_s)
        is_open = connection.sock is not None
        time.sleep(idle_s)
        PING.send_over(connection, probe.url, probe.limits.ping_s)
    except NoReply as err:
        return warning(
            IDLE, f"closed within {idle_s:g} s: {err}", "keep it for longer than those who call, such as 75 s"
        )
    finally:
        connection.close()
    return ok(IDLE, f"open after {idle_s:g} s") if is_open else not_checked(IDLE, "the server keeps no connection open")


def check_stalled(probe: Probe) -> Finding:
    """Send half of a body, and wait for the server to give up."""
    body, wait_s = clip_of(None), probe.limits.deadline_s + probe.limits.grace_s
    connection = probe.url.connect(wait_s)
    started = time.monotonic()
    try:
        connection.putrequest("POST", INVOCATIONS)
        for name, value in (probe.url.headers() | {"Content-Type": MP4, "Content-Length": str(len(body))}).items():
            connection.putheader(name, value)
        connection.endheaders(body[: len(body) // 2])
        status = connection.getresponse().status
    except TimeoutError:
        return warning(STALLED, f"no answer and no end within {wait_s:g} s", "answer 408, and free what it holds")
    except (OSError, http.client.HTTPException):
        return ok(STALLED, f"the connection is closed after {time.monotonic() - started:.0f} s")
    finally:
        connection.close()
    return ok(STALLED, f"{status} after {time.monotonic() - started:.0f} s")


def check_deadline(probe: Probe) -> Finding:
    """Request what takes longer than SageMaker waits."""
    deadline_s = probe.limits.deadline_s
    try:
        reply = probe.send(sync_clip(LONG_SPEECH_S))
    except NoReply as err:
        fix = f"answer 504 after {deadline_s:g} s: the caller has gone by then, and the work is paid for"
        return warning(DEADLINE, f"{LONG_SPEECH_S} s of lip sync: {err}", fix)
    found = f"{LONG_SPEECH_S} s of lip sync: {reply.status} after {reply.took_s:.0f} s"
    if reply.status in (408, 504):
        return ok(DEADLINE, found)
    if reply.status >= 500:
        return failure(DEADLINE, f"{found}: {reply.quote()}", "answer 504 to what takes too long")
    return not_checked(DEADLINE, f"{found}, so no deadline was reached")


def check_abandoned(probe: Probe, text: str | None, *, with_sync: bool) -> Finding:
    """Leave in the middle of a long request; the next one must not wait for it."""
    if text is None or not with_sync:
        return not_checked(ABANDONED, NEEDS_READING if text is None else NEEDS_SYNC)
    with contextlib.suppress(NoReply):
        reply = sync_clip(LONG_SPEECH_S).send(probe.url, probe.limits.settle_s)
        return not_checked(ABANDONED, f"a long request was answered at once: {reply.quote()}")
    started = time.monotonic()
    fix = "stop the work of a request once its connection is closed"
    try:
        reply = probe.send(read_clip())
        describe_reading(reply)
    except (NoReply, RequestFailed) as err:
        return warning(ABANDONED, f"the next request: {err} after {time.monotonic() - started:.0f} s", fix)
    return ok(ABANDONED, f"the next request was answered after {reply.took_s:.1f} s")
