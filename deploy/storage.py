"""The bucket for model archives and answers."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from deploy.aws import Aws
from deploy.errors import CallFailed, WrongRequest

# The region whose name a bucket may not be given as a place.
UNNAMED_REGION = "us-east-1"


def default_bucket(account: str, region: str) -> str:
    """SageMaker's own: its consoles and SDKs use it, and its usual roles may read it."""
    return f"sagemaker-{region}-{account}"


def ensure_bucket(aws: Aws, bucket: str, account: str, region: str) -> None:
    """Make the bucket, private, where it is not there.

    Raises: WrongRequest where somebody else has it.
    """
    try:
        # Bucket names are the whole world's: without the owner a stranger could lend us theirs.
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
    place = {} if region == UNNAMED_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    aws.call("s3", "CreateBucket", Bucket=bucket, **place)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    aws.call("s3", "PutPublicAccessBlock", Bucket=bucket, PublicAccessBlockConfiguration=block)


def upload(aws: Aws, file: IO[bytes], bucket: str, key: str, account: str, content_type: str) -> str:
    """The file's s3:// address."""
    aws.call(
        "s3", "PutObject", Bucket=bucket, Key=key, Body=file, ExpectedBucketOwner=account, ContentType=content_type
    )
    return f"s3://{bucket}/{key}"


def remove(aws: Aws, uri: str, account: str) -> None:
    """Delete one object. Raises: CallFailed."""
    bucket, key = split_uri(uri)
    aws.call("s3", "DeleteObject", Bucket=bucket, Key=key, ExpectedBucketOwner=account)


def split_uri(uri: str) -> tuple[str, str]:
    """('bucket', 'a/b.mp4') of s3://bucket/a/b.mp4. Raises: WrongRequest."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise WrongRequest(f"{uri}: expected s3://BUCKET/KEY")
    return bucket, key


def folder_uri(uri: str) -> str:
    """With one slash at its end. Raises: WrongRequest for what is no s3:// address."""
    if not uri.startswith("s3://"):
        raise WrongRequest(f"{uri}: expected s3://BUCKET/PREFIX")
    return uri.rstrip("/") + "/"


def check_file(path: Path) -> Path:
    """Raises: WrongRequest where there is no such file."""
    if not path.is_file():
        raise WrongRequest(f"{path}: no such file")
    return path
