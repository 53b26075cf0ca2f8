"""The services of infra/compose.yaml, started without Docker: a job's way through all of them."""

from __future__ import annotations

import time

import httpx
import pytest
from support.synthetic_frames import talk
from support.video_files import make_video

from bench.backing_servers import ServerMissing
from bench.stack import StackOptions, running_stack

PATIENCE_S = 120.0  # only a guard against hanging


def test_a_job_is_run_by_another_process_and_counted():
    clip = make_video(talk(25))
    try:
        with running_stack(StackOptions(n_workers=1, scrape_interval_s=1)) as stack:
            with httpx.Client(base_url=stack.url, timeout=30) as client:
                submitted = client.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"})
                assert submitted.status_code == 202, submitted.text
                job = wait_for_end(client, submitted.json()["id"])
            assert job["state"] == "succeeded"
            assert job["result"]["num_frames"] == 25
            processes = [stack.server, *stack.workers]
            if stack.prometheus_url is not None:
                assert attempts_by_prometheus(stack.prometheus_url) == 1
    except ServerMissing as err:
        pytest.skip(str(err))
    assert [process.returncode for process in processes] == [0, 0]


def wait_for_end(client: httpx.Client, job_id: str) -> dict:
    give_up = time.monotonic() + PATIENCE_S
    while (job := client.get(f"/v1/jobs/{job_id}").json())["state"] not in ("succeeded", "failed", "canceled"):
        assert time.monotonic() < give_up
        time.sleep(0.2)
    return job


def attempts_by_prometheus(url: str) -> float:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        found = httpx.get(f"{url}/api/v1/query", params={"query": "max(viseme_job_attempts)"}).json()["data"]["result"]
        if found and (n_attempts := float(found[0]["value"][1])):
            return n_attempts
        assert time.monotonic() < give_up
        time.sleep(0.2)
