"""What a durable job makes in its worker."""

from __future__ import annotations

from container.worker.job_outputs import REPORT_INTERVAL_S, ProgressReport
from container.worker.messages import Progress


def test_progress_is_reported_at_most_once_a_second() -> None:
    sent: list[Progress] = []
    now = 0.0
    report = ProgressReport("syncing", sent.append, lambda: now)
    for i in range(101):
        now = i * REPORT_INTERVAL_S / 10
        report.update(i / 100)
    assert [one.stage for one in sent] == ["syncing"] * len(sent)
    assert [round(one.share, 2) for one in sent] == [i / 10 for i in range(11)]
