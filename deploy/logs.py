"""The endpoint's log group: created with a retention period, before SageMaker creates it without one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from deploy.aws import Aws
from deploy.errors import CallFailed, DeployError
from deploy.waiting import write_stderr

LOG_GROUP_FOLDER = "/aws/sagemaker/Endpoints/"  # SageMaker's own names
DEFAULT_LOG_DAYS = 30
# The periods that CloudWatch accepts, from its reference of PutRetentionPolicy; the service model has no list.
LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)


def add_log_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-days",
        type=int,
        choices=LOG_DAYS,
        metavar="N",
        help=f"days that CloudWatch keeps the endpoint's logs (default: {DEFAULT_LOG_DAYS} for a new log group; "
        "an existing one stays as it is)",
    )


def prepare_log_group(aws: Aws, endpoint: str, days: int | None, tags: Mapping[str, str] | None = None) -> None:
    """Create the endpoint's log group if it does not exist, and set its retention period.

    days: None leaves an existing group as it is, since a shorter period would delete logs. tags: of a new group.
    A failure is a warning only: SageMaker then creates the group itself, and its logs stay for ever.
    """
    name = LOG_GROUP_FOLDER + endpoint
    try:
        if create_log_group(aws, name, tags or {}) or days is not None:
            aws.call("logs", "PutRetentionPolicy", logGroupName=name, retentionInDays=days or DEFAULT_LOG_DAYS)
    except DeployError as err:
        write_stderr(f"warning: the logs in {name} may be kept for ever: {err}")


def create_log_group(aws: Aws, name: str, tags: Mapping[str, str]) -> bool:
    """Create a log group; return False if it exists. Raises: CallFailed."""
    try:
        aws.call("logs", "CreateLogGroup", logGroupName=name, **({"tags": dict(tags)} if tags else {}))
    except CallFailed as err:
        if err.code != "ResourceAlreadyExistsException":
            raise
        return False
    return True
