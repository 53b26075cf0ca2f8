"""What a durable job makes in its worker."""

from __future__ import annotations

from container.jobs.storage import KEY
from container.worker.job_outputs import REPORT_INTERVAL_S, ProgressReport
from container.worker.messages import Progress
from container.worker.output_names import video_names


def test_progress_is_reported_at_most_once_a_second() -> None:
    sent: list[Progress] = []
    now = 0.0
    report = ProgressReport("syncing", sent.append, lambda: now)
    for i in range(101):
        now = i * REPORT_INTERVAL_S / 10
        report.update(i / 100)
    assert [one.stage for one in sent] == ["syncing"] * len(sent)
    assert [round(one.share, 2) for one in sent] == [i / 10 for i in range(11)]


def test_videos_of_any_checkpoint_have_names_that_can_be_stored() -> None:
    models = [
        "wav2lip",
        "wav2lip+gan",
        "wav2lip (1)",
        "wav2lip _1_",
        "../../etc/passwd",
        "nul\0",
        "\ud800",
        "x" * 300,
        "é",
    ]
    names = video_names(models)
    assert names[:2] == ("wav2lip.mp4", "wav2lip+gan.mp4")
    assert len(set(names)) == len(models)
    assert all(KEY.fullmatch(f"attempts/1/{name}") for name in names)
