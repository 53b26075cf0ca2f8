from __future__ import annotations

import logging

import pytest

from container.http.log_throttle import LogThrottle


def test_lines_are_bounded_in_each_interval_and_the_others_are_counted(caplog: pytest.LogCaptureFixture):
    now = [0.0]
    throttle = LogThrottle(logging.getLogger("viseme.test"), lambda: now[0], max_lines=2, interval_s=10.0)
    with caplog.at_level(logging.INFO):
        for i in range(5):
            throttle.info("denied", {"i": i})
        assert [record.i for record in caplog.records] == [0, 1]
        now[0] = 9.9
        throttle.info("denied", {"i": 5})
        assert len(caplog.records) == 2
        now[0] = 10.0
        for i in (6, 7):
            throttle.info("denied", {"i": i})
    assert [(record.i, getattr(record, "suppressed", 0)) for record in caplog.records[2:]] == [(6, 4), (7, 0)]
