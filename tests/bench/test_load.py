"""The load of all kinds of callers: what is concluded from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.load import PLAN, UNKNOWN, Findings, Price, read_prices, saturated_at, usd_per_video_hour

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
    assert Findings(reads_s=[1.0, 2.0], n_synced=3, frame_times=[[0.0] * 50]).video_s == 2 * 3.0 + 3 * 1.0 + 2.0


def test_an_hour_of_video_costs_its_share_of_the_instance():
    assert usd_per_video_hour(Price("a", 4, 0.2, "", ""), 0.5) == pytest.approx(0.025)
    assert usd_per_video_hour(Price("a", 4, None, "", ""), 0.5) is None
    assert usd_per_video_hour(Price("serverless", None, 1.0, "", ""), 0.5) is None


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
