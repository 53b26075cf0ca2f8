from __future__ import annotations

import os
import subprocess

from container.http.metrics import MAX_RENDERS, RENDER_INTERVAL_S, Metrics


def test_metrics_are_rendered_a_few_times_a_second():
    now = 0.0
    metrics = Metrics(lambda: now)

    def n_counted() -> int:
        lines = metrics.render().decode().splitlines()
        return next(int(float(line.split()[-1])) for line in lines if line.startswith("viseme_requests_total{"))

    for k in range(MAX_RENDERS):
        metrics.count("invocations", "200", 0.1)
        assert n_counted() == k + 1
    metrics.count("invocations", "200", 0.1)
    assert n_counted() == MAX_RENDERS
    assert metrics.render() is metrics.render()
    now += RENDER_INTERVAL_S
    assert n_counted() == MAX_RENDERS + 1


def test_memory_of_workers_is_summed_without_those_that_have_ended():
    metrics = Metrics()
    ended = subprocess.Popen(["true"])
    ended.wait()
    metrics.measure_memory([os.getpid(), os.getpid(), ended.pid])
    lines = metrics.render().decode().splitlines()
    of = {line.split('"')[1]: float(line.split()[-1]) for line in lines if line.startswith("viseme_resident_bytes{")}
    assert of["server"] > 0
    assert abs(of["workers"] - 2 * of["server"]) < 2**20


def test_frames_are_counted_on_from_the_last_look():
    metrics = Metrics()
    for counts in ((10, 1, 0), (10, 1, 0), (35, 1, 2)):
        metrics.count_frames(*counts)
    lines = metrics.render().decode().splitlines()
    found = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("viseme_live_")}
    assert found["viseme_live_frames_total"] == 35
    assert found["viseme_live_late_frames_total"] == 1
    assert found["viseme_live_dropped_frames_total"] == 2
