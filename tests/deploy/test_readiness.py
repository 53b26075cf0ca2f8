"""Which refusals pass, and the line by which a container says that it is ready."""

from __future__ import annotations

import json

import pytest

from deploy.errors import CallFailed
from deploy.smoke_test import is_not_ready
from deploy.waiting import find_ready_line


@pytest.mark.parametrize(
    ("status", "passes"),
    [(None, True), (0, True), *((status, True) for status in (408, 425, 429, 503, 504))]
    + [(status, False) for status in (400, 404, 413, 415, 500, 502, 507)],
)
def test_statuses_of_the_container(status: int | None, passes: bool):
    assert is_not_ready(CallFailed("", "ModelError", "", status)) == passes


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        # Of InvokeEndpoint in botocore's service model; the last of them are of every service.
        ("InternalFailure", True),
        ("InternalDependencyException", True),
        ("ModelNotReadyException", True),
        ("ServiceUnavailable", True),
        ("ValidationError", False),
        ("ThrottlingException", True),
        ("AccessDeniedException", False),
    ],
)
def test_errors_of_sagemaker(code: str, passes: bool):
    assert is_not_ready(CallFailed("", code)) == passes


def test_the_newest_ready_line_is_found_on_a_later_page(script):
    """FilterLogEvents searches a part of the log at a time, and returns the events in order of time."""
    wanted = {"logGroupName": "/aws/sagemaker/Endpoints/viseme", "filterPattern": '"viseme is ready"'}
    script.expect("logs", "FilterLogEvents", wanted, {"events": [], "nextToken": "more"})
    events = [{"message": f"viseme is ready: {json.dumps({'device': one})}"} for one in ("cpu", "cuda")]
    script.expect("logs", "FilterLogEvents", wanted | {"nextToken": "more"}, {"events": events})
    assert find_ready_line(script.aws, "viseme") == "device cuda"
    script.done()


def test_a_log_without_a_ready_line_is_not_searched_for_ever(script):
    wanted = {"logGroupName": "/aws/sagemaker/Endpoints/viseme", "filterPattern": '"viseme is ready"'}
    script.expect("logs", "FilterLogEvents", wanted, {"events": [], "nextToken": "more"})
    for _ in range(4):
        script.expect("logs", "FilterLogEvents", wanted | {"nextToken": "more"}, {"events": [], "nextToken": "more"})
    assert find_ready_line(script.aws, "viseme") is None
    script.done()
