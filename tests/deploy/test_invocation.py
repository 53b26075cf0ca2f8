"""Where requests to an asynchronous endpoint are put."""

from __future__ import annotations

import pytest

from deploy.invocation import place_for_request


@pytest.mark.parametrize(
    ("answers_uri", "key"),
    [
        ("s3://videos/viseme/results/", "viseme/requests/a.mp4"),
        ("s3://videos/results", "requests/a.mp4"),
        ("s3://videos/", "requests/a.mp4"),  # SageMaker accepts a whole bucket
    ],
)
def test_requests_are_beside_the_answers(answers_uri: str, key: str):
    assert place_for_request(answers_uri, "a.mp4") == ("videos", key)
