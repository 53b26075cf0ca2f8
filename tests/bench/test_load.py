"""The load of all kinds of callers: what is concluded from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.dashboard import panel_queries
from bench.load import (
    PLAN,
    UNKNOWN,
    Findings,
    Price,
    Work,
    read_prices,
    report,
    saturated_at,
    seconds_between,
    usd_per_video_hour,
    work_of,
)

INSTANCES = Path(__file__).parents[2] / "docs" / "instances.md"


def test_the_machine_is_saturated_where_more_callers_bring_hardly_more():
    assert saturated_at([("read 1", 2.0), ("read 2", 4.0), ("read 4", 4.3), ("read 8", 9.0)]) == "read 2"
    assert saturated_at([("read 1", 2.0), ("read 2", 3.0)]) == "not by read 2"


def test_what_is_wrong_is_named():
    assert Findings().failures() == []
    times = [[0.05 * i for i in range(100)]]
    found = Findings(frame_times=times, n_late=3, n_restarts=1)
    found.statuses.update({"200": 5, "503": 2})
    assert found.failures() == ["2 answers 503", "20.0 fps", "3 frames late", "1 workers restarted"]
    assert Findings(frame_times=[[0.04 * i for i in range(100)]]).failures() == []


def test_a_session_too_short_to_be_measured_is_not_fast_enough():
    assert Findings(frame_times=[[0.0]]).failures() == ["0.0 fps"]


def test_seconds_of_video_are_those_of_every_kind():
    assert Findings(reads_s=[1.0, 2.0], syncs_s=[1.0] * 3, frame_times=[[0.0] * 50]).video_s == 2 * 3.0 + 3 * 1.0 + 2.0


def test_an_hour_of_video_costs_its_share_of_the_instance():
    work = Work(cpu_s=0.5, request_s=0.3)
    assert usd_per_video_hour(Price("a", 4, 0.2, "", ""), work) == pytest.approx(0.025)
    assert usd_per_video_hour(Price("a", 4, None, "", ""), work) is None


def test_serverless_costs_the_time_of_requests():
    price = Price("serverless", None, 0.4, "", "")
    assert usd_per_video_hour(price, Work(cpu_s=0.5, request_s=0.3)) == pytest.approx(0.12)
    assert usd_per_video_hour(price, Work(cpu_s=0.5, request_s=None)) is None  # a live session


FOUND = {
    "read 1": Findings(reads_s=[0.3, 0.6, 9.0], took_s=10.0),
    "read 4": Findings(reads_s=[1.0] * 10, cpu_s=6.0, took_s=10.0),
    "live 2": Findings(frame_times=[[0.04 * i for i in range(100)]], cpu_s=8.0, took_s=10.0, n_late=7),
    "sync 1": Findings(syncs_s=[2.0], took_s=10.0),
    "sync 2": Findings(syncs_s=[3.0, 5.0], cpu_s=4.0, took_s=10.0),
}


def test_work_is_that_of_a_second_of_video():
    assert work_of(FOUND) == {
        "read": Work(pytest.approx(0.2), pytest.approx(0.2)),
        "synced": Work(2.0, 2.0),
        "spoken": Work(2.0, None),
    }
    assert work_of({"read 4": FOUND["read 4"]}) == {"read": Work(pytest.approx(0.2), None)}


def test_the_report_names_limits_and_every_price_with_its_source(capsys: pytest.CaptureFixture[str]):
    report(FOUND)
    text = capsys.readouterr().out
    assert "reading saturates at: not by read 4" in text
    assert "breaks first: live 2: 7 frames late" in text
    for price in read_prices():
        [line] = [line for line in text.splitlines() if line.startswith(price.instance + " ")]
        assert f"{price.date}, {price.source}" in line if price.usd_per_hour else line.split()[-1] == UNKNOWN
    assert re.search(r"^ml\.g5\.xlarge +0\.070 +0\.705 +0\.705  1\.41, October 2025, ", text, re.MULTILINE)
    assert re.search(r"^serverless 6 GB +0\.086 +0\.864 +unknown  0\.43, ", text, re.MULTILINE)


def test_times_of_jobs_are_read():
    assert seconds_between("2026-11-30T10:00:00Z", "2026-11-30T10:00:01.500Z") == 1.5


def test_the_queries_of_the_dashboard_have_no_variables_left():
    found = panel_queries()
    assert len(found) > 20
    assert not [query for query in found if "$" in query.expression]
    assert {query.title for query in found if not query.is_ours} == {"GPU utilisation", "GPU memory in use"}


def test_prices_are_those_of_the_document_with_date_and_source():
    row = r"^\| `?([\w. ,]+?)`? \| (\d*) ?\|.*\| ([\d.]+|unknown) \|.*\|$"
    rows = re.findall(row, INSTANCES.read_text(), re.MULTILINE)
    documented = {name.replace(",", ""): (cpus, price) for name, cpus, price in rows}
    found = read_prices()
    assert len(found) >= 8
    for one in found:
        price = UNKNOWN if one.usd_per_hour is None else f"{one.usd_per_hour:.2f}"
        assert documented[one.instance] == ("" if one.n_cpus is None else str(one.n_cpus), price)
        assert bool(one.date and one.source) == (one.usd_per_hour is not None)


def test_every_kind_of_caller_is_in_the_plan():
    assert any(step.n_readers and step.n_sessions and step.n_jobs for step in PLAN)
    assert len({step.name for step in PLAN}) == len(PLAN)
