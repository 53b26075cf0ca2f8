"""What the doctor makes of many answers at once, and of the pings meanwhile."""

from __future__ import annotations

import json

import pytest

from deploy.doctor.findings import Outcome
from deploy.doctor.http_calls import NoReply, Reply
from deploy.doctor.load_check import LoadedPings, judge_load, judge_pings

TEXT = "BIN BLUE AT F TWO NOW"


def answer(status: int = 200, text: str = TEXT, **headers: str) -> Reply:
    body = {"status": "success", "text": text, "num_frames": 75} if status == 200 else {"status": "error"}
    return Reply(status, headers, json.dumps(body).encode(), 0.1)


BUSY = answer(503, **{"retry-after": "5"})


@pytest.mark.parametrize(
    ("ended", "outcome", "words"),
    [
        ([answer(), BUSY, BUSY], "ok", "of 3 1 answered with 200, 2 answered with 503, in 2.0 s"),
        ([answer(), answer(503)], "warn", "1 without Retry-After"),
        ([answer(), answer(504)], "warn", "VISEME_QUEUE_SIZE"),
        ([answer(), answer(500)], "FAIL", "1 answered with 500"),
        ([answer(), "reset"], "FAIL", "1 lost (reset)"),
        ([answer(), answer(text="SET RED")], "FAIL", '1 wrong: read "SET RED"'),
        ([BUSY, BUSY], "FAIL", "answer as many as there are workers"),
    ],
)
def test_many_answers(ended: list[Reply | str], outcome: str, words: str):
    finding = judge_load(ended, TEXT, 2.0)
    assert finding.outcome == outcome
    assert words in finding.line()


@pytest.mark.parametrize(
    ("pings", "outcome"),
    [
        (LoadedPings([0.1, 0.2], [], []), Outcome.OK),
        (LoadedPings([0.1, 0.2], [], [NoReply("late")]), Outcome.WARNING),
        (LoadedPings([0.1], [], [NoReply("late"), NoReply("late")]), Outcome.FAILURE),
        (LoadedPings([], [], [NoReply("late")]), Outcome.FAILURE),
        (LoadedPings([0.1], [BUSY], []), Outcome.FAILURE),
    ],
)
def test_pings(pings: LoadedPings, outcome: Outcome):
    assert judge_pings(pings, 2.0).outcome is outcome
