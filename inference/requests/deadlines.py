"""How long a request may take, by who called and what is asked."""

from __future__ import annotations

from collections.abc import Mapping

from inference.settings import Settings

ASYNC_HEADER = "x-amzn-sagemaker-inference-id"
ASYNC_DEADLINE_S = 3600.0
STREAM_DEADLINE_S = 480.0  # as long as SageMaker waits for the end of a streamed answer


def is_asynchronous(headers: Mapping[str, str], settings: Settings) -> bool:
    """Return whether SageMaker marks a request as asynchronous. headers: names in lower case.

    On SageMaker only the platform reaches the container. Elsewhere anyone can send this header.
    """
    return settings.on_sagemaker and ASYNC_HEADER in headers


def deadlines_of(headers: Mapping[str, str], settings: Settings, *, is_streamed: bool = False) -> tuple[float, float]:
    """Return the seconds that lip reading and lip sync may take.

    Lip sync may take as long as its own deadline, except on SageMaker, which waits no longer, or if a deadline
    is configured. is_streamed: whether lip reading sends its words as they are read; SageMaker waits longer for these.
    """
    if is_asynchronous(headers, settings):
        return ASYNC_DEADLINE_S, ASYNC_DEADLINE_S
    is_set = "deadline_s" in settings.model_fields_set
    read_s = STREAM_DEADLINE_S if is_streamed and settings.on_sagemaker and not is_set else settings.deadline_s
    return read_s, settings.deadline_s if settings.on_sagemaker or is_set else settings.job_deadline_s
