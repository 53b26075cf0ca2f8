"""Requests for SageMaker, in cases that the tests of whole commands do not reach."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.endpoint_calls import FIVE, OLD

from deploy.arguments import make_spec
from deploy.aws_requests import restore_request
from deploy.endpoint import make_parser

DESIRED_COUNT = [{"VariantPropertyType": "DesiredInstanceCount"}]


@pytest.mark.parametrize(
    ("n_running", "most", "excluded"),
    [
        (2, "3", None),  # the new version runs as many
        (0, "3", DESIRED_COUNT),  # it has one, so that its health could be checked
        (5, "3", DESIRED_COUNT),  # its bounds allow fewer
    ],
)
def test_an_older_version_gets_the_instances_that_it_had(n_running: int, most: str, excluded: list | None):
    """A retained number would be the new version's; without it that of the old configuration is used."""
    mode = ["--mode", "async", "--min-capacity", "0", "--max-capacity", most]
    spec = make_spec(make_parser().parse_args([*FIVE, *mode]), datetime.now(UTC))
    request = restore_request(spec, OLD, n_running)
    assert (request["EndpointConfigName"], request["RetainAllVariantProperties"]) == (OLD, True)
    assert request.get("ExcludeRetainedVariantProperties") == excluded
