from __future__ import annotations

import pytest

from inference.requests.deadlines import ASYNC_HEADER, deadlines_of
from inference.settings import Settings

ASYNC = {ASYNC_HEADER: "11111111-2222-3333-4444-555555555555"}
SAGEMAKER = {"SAGEMAKER_PROGRAM": "viseme_entry.py"}


@pytest.mark.parametrize(
    ("headers", "env", "wanted"),
    [
        ({}, {}, (60, 7200)),
        (ASYNC, {}, (60, 7200)),  # anyone can send the header
        ({}, {"VISEME_DEADLINE_S": "5"}, (5, 5)),
        ({}, SAGEMAKER, (60, 60)),
        ({}, SAGEMAKER | {"VISEME_DEADLINE_S": "5"}, (5, 5)),
        (ASYNC, SAGEMAKER, (3600, 3600)),
    ],
)
def test_seconds_for_lip_reading_and_lip_sync(
    headers: dict[str, str], env: dict[str, str], wanted: tuple[float, float]
):
    assert deadlines_of(headers, Settings.from_env(env)) == wanted


@pytest.mark.parametrize(
    ("headers", "env", "wanted"),
    [
        ({}, {}, (60, 7200)),  # the caller decides what is streamed
        ({}, SAGEMAKER, (480, 60)),
        ({}, SAGEMAKER | {"VISEME_DEADLINE_S": "5"}, (5, 5)),
        (ASYNC, SAGEMAKER, (3600, 3600)),
    ],
)
def test_seconds_for_words_that_are_streamed(headers: dict[str, str], env: dict[str, str], wanted: tuple[float, float]):
    """SageMaker waits 8 minutes for the end of a streamed answer: its developer guide, real-time endpoints."""
    assert deadlines_of(headers, Settings.from_env(env), is_streamed=True) == wanted
