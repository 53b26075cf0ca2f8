"""The endpoint's log group has a retention period from the start."""

from __future__ import annotations

import boto3
import pytest
from support.endpoint_calls import OURS, REGION

from deploy.aws import BotoAws
from deploy.endpoint import main
from deploy.logs import prepare_log_group

GROUP = "/aws/sagemaker/Endpoints/viseme"


def retention_days() -> int | None:
    [group] = boto3.client("logs", region_name=REGION).describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    return group.get("retentionInDays")


@pytest.mark.parametrize(("given", "days"), [(None, 30), (90, 90)])
def test_a_new_group_has_a_retention_period(moto, given: int | None, days: int):
    prepare_log_group(BotoAws(REGION), "viseme", given)
    assert retention_days() == days


@pytest.mark.parametrize(("given", "days"), [(None, 365), (90, 90)])
def test_an_existing_group_changes_only_if_it_is_requested(moto, given: int | None, days: int):
    """Fewer days would delete logs."""
    logs = boto3.client("logs", region_name=REGION)
    logs.create_log_group(logGroupName=GROUP)
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=365)
    prepare_log_group(BotoAws(REGION), "viseme", given)
    assert retention_days() == days


@pytest.mark.parametrize("refused", ["CreateLogGroup", "PutRetentionPolicy"])
def test_without_the_permission_it_warns_and_goes_on(script, capsys: pytest.CaptureFixture[str], refused: str):
    if refused != "CreateLogGroup":
        script.expect("logs", "CreateLogGroup", {"logGroupName": GROUP})
    script.refuse("logs", refused, "AccessDeniedException", "not authorized")
    prepare_log_group(script.aws, "viseme", 90)
    script.done()
    assert f"warning: the logs in {GROUP} may be kept for ever" in capsys.readouterr().err


def test_a_number_of_days_that_cloudwatch_refuses_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([*OURS, "--log-days", "31"])
    assert "31" in capsys.readouterr().err
