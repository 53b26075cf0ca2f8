"""The S3 bucket for model archives and answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

from deploy.aws import Aws
from deploy.errors import CallFailed, WrongRequest

DEFAULT_S3_REGION = "us-east-1"  # S3 refuses it as a LocationConstraint


def default_bucket(account: str, region: str) -> str:
    """Return SageMaker's own default bucket: its consoles and SDKs use it, and its usual roles may read it."""
    return f"sagemaker-{region}-{account}"


def ensure_bucket(aws: Aws, bucket: str, account: str, region: str) -> None:
    """Create the bucket without public access if it does not exist.

    Raises: WrongRequest if another account owns it or it is in another region.
    """
    try:
        # Bucket names are global: without the expected owner we could write to a stranger's bucket.
        aws.call("s3", "HeadBucket", Bucket=bucket, ExpectedBucketOwner=account)
    except CallFailed as err:
        if err.code == "301":
            raise WrongRequest(f"the bucket {bucket} is not in {region}: name one there with --bucket") from err
        if err.code == "403":
            raise WrongRequest(
                f"the bucket {bucket} is not yours, or you may not use it: name one with --bucket"
            ) from err
        if err.code not in ("404", "NoSuchBucket"):
            raise
    else:
        return
    location = {} if region == DEFAULT_S3_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    aws.call("s3", "CreateBucket", Bucket=bucket, **location)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    aws.call("s3", "PutPublicAccessBlock", Bucket=bucket, PublicAccessBlockConfiguration=block)


def upload_file(
    aws: Aws,
    file: IO[bytes],
    bucket: str,
    key: str,
    account: str,
    content_type: str,
    parameters: Mapping[str, str] | None = None,
) -> str:
    """Upload an open file and return its s3:// URI. parameters: further ones of PutObject, such as a KMS key."""
    place = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": account}
    aws.call("s3", "PutObject", **place, Body=file, ContentType=content_type, **(parameters or {}))
    return f"s3://{bucket}/{key}"


def delete_object(aws: Aws, uri: str, account: str) -> None:
    """Delete one object. Raises: CallFailed."""
    bucket, key = split_uri(uri)
    aws.call("s3", "DeleteObject", Bucket=bucket, Key=key, ExpectedBucketOwner=account)


def split_uri(uri: str) -> tuple[str, str]:
    """Split s3://bucket/a/b.mp4 into ('bucket', 'a/b.mp4'). Raises: WrongRequest."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise WrongRequest(f"{uri}: expected s3://BUCKET/KEY")
    return bucket, key


def folder_uri(uri: str) -> str:
    """Return the URI with exactly one slash at its end. Raises: WrongRequest if it is not an s3:// URI."""
    if not uri.startswith("s3://"):
        raise WrongRequest(f"{uri}: expected s3://BUCKET/PREFIX")
    return uri.rstrip("/") + "/"


def check_file(path: Path) -> Path:
    """Return the path. Raises: WrongRequest if there is no such file."""
    if not path.is_file():
        raise WrongRequest(f"{path}: no such file")
    return path
