"""The AWS region of a command."""

from __future__ import annotations

import os

import boto3
from botocore.exceptions import BotoCoreError

from deploy.errors import DeployError, WrongRequest

# In the order of the AWS CLI 2; boto3 itself does not read AWS_REGION.
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
REGION_HELP = "default: AWS_REGION, AWS_DEFAULT_REGION, or the profile's"


def choose_region(given: str | None) -> str:
    """Return the region given, else that of the environment or of the profile.

    Raises: WrongRequest if no region is set: a default would deploy into a region that the caller does not expect.
    """
    found = given or next((value for name in REGION_VARIABLES if (value := os.environ.get(name))), None)
    try:
        found = found or boto3.Session().region_name
    except BotoCoreError as err:  # AWS_PROFILE names none that exists
        raise DeployError(f"the region cannot be read from the profile: {err}") from err
    if not found:
        raise WrongRequest("--region: missing; pass it, set AWS_REGION, or run `aws configure set region REGION`")
    return found
