"""The settings of the stock image's own server."""

from __future__ import annotations

import pytest

from deploy.arguments import stock_server_environment


@pytest.mark.parametrize(("mode", "max_mb", "timeout_s"), [("realtime", 25, 300), ("async", 1024, 3600)])
def test_bounds_of_the_stock_server_are_sagemakers(mode: str, max_mb: int, timeout_s: int):
    found = stock_server_environment(mode, 1)
    assert found["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == str(max_mb)
    assert found["MMS_MAX_RESPONSE_SIZE"] == str(max_mb * 1024 * 1024)
    assert int(found["MMS_MAX_RESPONSE_SIZE"]) < 2**31  # read by Integer.parseInt
    # Also the time to load the models, which on a new instance may take longer than SageMaker waits for an answer.
    assert found["SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS"] == str(timeout_s)


@pytest.mark.parametrize(("workers", "queue"), [(1, "8"), (3, "24")])
def test_the_queue_is_as_long_as_callers_wait(workers: int, queue: str):
    assert stock_server_environment("realtime", workers)["MMS_JOB_QUEUE_SIZE"] == queue
