"""Single requests: /ping, a clip read, a face synced, the types of the answers, and the sizes of requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.http_calls import PING, Call, ContainerUrl, NoReply, Reply
from deploy.doctor.limits import REALTIME_BYTES, TOO_MANY_BYTES, ContractLimits
from deploy.doctor.samples import (
    MP4,
    STARTER,
    describe_reading,
    describe_sync,
    is_as_spoken,
    is_mp4,
    read_clip,
    sync_clip,
    weights_of,
)
from deploy.errors import RequestFailed
from deploy.smoke_test import CLIP_WORDS, JSON

PING_CHECK, READING, SYNC, TYPES = "ping", "lip reading", "lip sync", "answer types"
LARGE, TOO_LARGE = "large request", "too large request"
NEEDS_READING = "lip reading must work first"
BUSY_STATUSES = (429, 503)
N_BUSY_ATTEMPTS = 4


@dataclass(frozen=True)
class Probe:
    """Sends requests to one container and turns what goes wrong into findings."""

    url: ContainerUrl
    limits: ContractLimits

    def send(self, call: Call) -> Reply:
        """Return the answer. Raises: NoReply if there is no complete one within the deadline of a request."""
        return call.send(self.url, self.limits.deadline_s + self.limits.grace_s)

    def send_when_free(self, call: Call) -> Reply:
        """Send a request again if the container is busy with others, a few times. Raises: NoReply."""
        for _ in range(N_BUSY_ATTEMPTS):
            reply = self.send(call)
            if reply.status not in BUSY_STATUSES:
                break
            time.sleep(self.limits.settle_s)
        return reply


def check_ping(probe: Probe) -> Finding:
    try:
        reply = PING.send(probe.url, probe.limits.ping_s)
    except NoReply as err:
        return failure(PING_CHECK, str(err), f"answer GET /ping within {probe.limits.ping_s:g} s")
    took = f"{reply.took_s * 1000:.0f} ms"
    if reply.status != 200:
        return failure(
            PING_CHECK,
            reply.quote(),
            "answer 200 once the models are loaded; SageMaker replaces the container otherwise",
        )
    if reply.body:
        return warning(
            PING_CHECK,
            f"200 with {len(reply.body)} bytes, {took}",
            "AWS documents an empty body, although its own servers send one",
        )
    return ok(PING_CHECK, f"200, empty, {took}")


def check_reading(probe: Probe) -> tuple[Finding, str | None]:
    """Read the clip. Returns: the finding; and the words, None if there is no answer with any."""
    try:
        reply = probe.send_when_free(read_clip())
        text = describe_reading(reply)
    except NoReply as err:
        return failure(READING, str(err), advise_lost(probe)), None
    except RequestFailed as err:
        return failure(READING, str(err), advise_refused(reply)), None
    weights, took = weights_of(reply), f"in {reply.took_s:.1f} s"
    if is_as_spoken(text):
        return ok(READING, f'"{text}", as spoken, {took}'), text
    found = f'"{text}", spoken was "{CLIP_WORDS}", {took}'
    if weights in (None, STARTER):
        return failure(READING, found, "compare the weights, and the face's landmarks, with those of the release"), text
    return warning(READING, found, f"the weights {weights} may know other words: try a clip of theirs"), text


def advise_lost(probe: Probe) -> str:
    return f"answer within {probe.limits.deadline_s:g} s, with all bytes that Content-Length declares"


def advise_refused(reply: Reply) -> str:
    if reply.status in BUSY_STATUSES:
        return "if others use it, run this again once they have ended; otherwise the container's log has the reason"
    return "the container's log has the reason"


def check_sync(probe: Probe) -> Finding:
    try:
        reply = probe.send_when_free(sync_clip())
        return ok(SYNC, f"{describe_sync(reply)}, in {reply.took_s:.1f} s")
    except NoReply as err:
        return failure(SYNC, str(err), advise_lost(probe))
    except RequestFailed as err:
        return failure(SYNC, str(err), advise_refused(reply))


# What is sent, the type that must come back, and whether the body is of that type.
ACCEPTED: tuple[tuple[Call, str, Callable[[bytes], bool]], ...] = (
    (read_clip(JSON), JSON, lambda body: body.lstrip().startswith(b"{")),
    (read_clip("text/plain"), "text/plain", lambda body: bool(body.strip()) and not body.lstrip().startswith(b"{")),
    (read_clip("text/vtt"), "text/vtt", lambda body: body.startswith(b"WEBVTT")),
    (read_clip("image/png;q=0.9, text/plain;q=0.5, */*;q=0"), "text/plain", lambda body: not body.startswith(b"{")),
    (sync_clip(accept=MP4), MP4, is_mp4),
)


def check_types(probe: Probe, *, with_sync: bool) -> Finding:
    """Request each type of answer by Accept. with_sync: whether lip sync works."""
    faults, found = [], []
    for call, expected, is_of_type in ACCEPTED:
        if expected == MP4 and not with_sync:
            continue
        try:
            reply = probe.send_when_free(call)
        except NoReply as err:
            faults.append(f"{call.headers['Accept']}: {err}")
            continue
        if reply.status != 200:
            faults.append(f"{call.headers['Accept']}: {reply.quote()}")
        elif reply.content_type != expected:
            faults.append(f"{call.headers['Accept']}: answered as {reply.content_type or 'no type'}")
        elif not is_of_type(reply.body):
            faults.append(f"{call.headers['Accept']}: the body is no {expected}")
        else:
            found.append(expected)
    if faults:
        return failure(
            TYPES, "; ".join(faults), "SageMaker passes Accept on, and Content-Type back: choose the type by it"
        )
    return ok(TYPES, ", ".join(dict.fromkeys(found)))


def check_large(probe: Probe, text: str | None) -> Finding:
    """Read the clip in a file as large as SageMaker allows. text: read from the clip itself."""
    if text is None:
        return not_checked(LARGE, NEEDS_READING)
    what = f"{REALTIME_BYTES / 1e6:.0f} MB"
    fix = "take bodies of 25 MB, SageMaker's limit in real time"
    try:
        reply = probe.send_when_free(read_clip(n_bytes=REALTIME_BYTES))
        found = describe_reading(reply)
    except (NoReply, RequestFailed) as err:
        return failure(LARGE, f"{what}: {err}", fix)
    if found != text:
        return failure(LARGE, f'{what}: read "{found}", and "{text}" without padding', fix)
    return ok(LARGE, f"{what} in {reply.took_s:.1f} s")


def check_too_large(probe: Probe) -> Finding:
    what = f"{TOO_MANY_BYTES / 1e6:.1f} MB"
    try:
        reply = probe.send_when_free(read_clip(n_bytes=TOO_MANY_BYTES))
    except NoReply as err:
        return failure(
            TOO_LARGE, f"{what}: {err}", "answer 413, and read the rest of the body before the connection is closed"
        )
    if reply.status == 413:
        return ok(TOO_LARGE, f"{what}: 413 after {reply.took_s:.1f} s")
    if reply.status == 200:
        return warning(TOO_LARGE, f"{what}: 200", "bound what is taken, so that a caller cannot fill memory or disk")
    if reply.status < 500:
        return warning(TOO_LARGE, f"{what}: {reply.quote()}", "413 says what is wrong")
    return failure(TOO_LARGE, f"{what}: {reply.quote()}", "answer 413: it is the caller's mistake")
