"""Requests that a container must refuse: their statuses, the form of the errors, and what these reveal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.doctor.findings import Finding, failure, ok
from deploy.doctor.http_calls import INVOCATIONS, Call, NoReply, Reply, post
from deploy.doctor.requests_check import Probe
from deploy.doctor.samples import MP4, read_clip
from deploy.smoke_test import JSON

STATUSES, BODIES, TRACEBACKS = "error statuses", "error bodies", "tracebacks"
TRACEBACK = re.compile(
    rb"Traceback \(most recent call last\)|File \\?\"[^\"\n]+\", line \d+|\bat [\w.$]+\(\w+\.java:\d+\)"
)


@dataclass(frozen=True)
class FaultyRequest:
    """name: in the findings; allowed: statuses that say what is wrong with it."""

    name: str
    call: Call
    allowed: frozenset[int]


def faulty_requests() -> list[FaultyRequest]:
    """Return the requests, each with one thing wrong."""
    return [
        FaultyRequest("JSON that ends early", post(b'{"task": ', JSON), frozenset({400})),
        FaultyRequest("JSON without a video", post(b"{}", JSON), frozenset({400, 422})),
        FaultyRequest("text that is called video/mp4", post(b"no video at all", MP4), frozenset({400, 415, 422})),
        FaultyRequest("an unknown content type", post(b"x", "application/x-viseme-doctor"), frozenset({415})),
        FaultyRequest("Accept: image/png", read_clip("image/png"), frozenset({406, 415})),
        FaultyRequest("an unknown route", Call("GET", "/viseme-doctor"), frozenset({404})),
        FaultyRequest("GET /invocations", Call("GET", INVOCATIONS), frozenset({404, 405})),
    ]


def check_errors(probe: Probe) -> Iterator[Finding]:
    """Send each bad request, and yield one finding for statuses, bodies and tracebacks each."""
    replies: list[tuple[FaultyRequest, Reply]] = []
    lost = []
    for request in faulty_requests():
        try:
            replies.append((request, probe.send_when_free(request.call)))
        except NoReply as err:
            lost.append(f"{request.name}: {err}")
    yield judge_statuses(replies, lost)
    yield judge_bodies(replies)
    yield judge_tracebacks(replies)


def judge_statuses(replies: list[tuple[FaultyRequest, Reply]], lost: list[str]) -> Finding:
    wrong = [(request, reply) for request, reply in replies if reply.status not in request.allowed]
    found = "; ".join([*(describe_status(request, reply) for request, reply in wrong), *lost])
    if not found:
        statuses = ", ".join(f"{request.name} {reply.status}" for request, reply in replies)
        return ok(STATUSES, statuses)
    return failure(STATUSES, found, advise_statuses({reply.status for _, reply in wrong}))


def describe_status(request: FaultyRequest, reply: Reply) -> str:
    return f"{request.name}: {reply.status}, expected {' or '.join(map(str, sorted(request.allowed)))}"


def advise_statuses(found: set[int]) -> str:
    """Return how to mend wrong statuses, by the worst of them."""
    if any(status < 400 for status in found):
        return (
            "an error must have a status of 400 or more: SageMaker passes a 200 on as an answer, and no alarm counts it"
        )
    if any(status >= 500 for status in found):
        return "the caller's mistakes must be 4xx: Invocation5XXErrors counts the others, and an update rolls back"
    if found:
        return "let each error have its own status: callers and retries cannot tell a fault from a mistake otherwise"
    return "answer every request: SageMaker reports a broken connection as a fault of the container"


def judge_bodies(replies: list[tuple[FaultyRequest, Reply]]) -> Finding:
    errors = [(request, reply) for request, reply in replies if reply.status >= 400]
    wrong = [f"{request.name}: {fault}" for request, reply in errors if (fault := fault_of_body(reply))]
    if not wrong:
        return ok(BODIES, f"{len(errors)} errors are JSON with a code and a message")
    return failure(
        BODIES,
        "; ".join(wrong),
        'send {"status": "error", "error": {"code": ..., "message": ...}} as application/json, also for unknown routes',
    )


def fault_of_body(reply: Reply) -> str | None:
    """Return what is wrong with the form of an error; None if nothing is."""
    if reply.content_type != JSON:
        return f"its type is {reply.content_type or 'missing'}"
    try:
        error = reply.json()["error"]
        fields = error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        return f"it has no error with a code and a message: {reply.quote()}"
    return None if all(isinstance(one, str) and one for one in fields) else "its code or message is empty"


def judge_tracebacks(replies: list[tuple[FaultyRequest, Reply]]) -> Finding:
    wrong = [request.name for request, reply in replies if TRACEBACK.search(reply.body)]
    if not wrong:
        return ok(TRACEBACKS, "no answer reveals one")
    return failure(
        TRACEBACKS,
        f"in the answer to {', '.join(wrong)}",
        "log them, and send the caller a message: they reveal paths, versions and values",
    )
