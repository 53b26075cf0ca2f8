"""Addresses of objects in S3, for browsers and other programs."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from inference.media.s3 import Client, named_errors, s3_client

PRESIGNED_S = 3600  # how long an address opens to whoever has it


def link_to(bucket: str, key: str, client: Client, *, is_presigned: bool = False) -> str:
    """https://BUCKET.s3.REGION.amazonaws.com/KEY, in the bucket's own region, whichever the client asks in.

    A bucket with dots in its name is put behind the host, where TLS knows it; a stand-in keeps its own address.
    is_presigned: it opens to whoever has it, for an hour (less where the role's credentials end before).
    Raises: AccessDenied where there are no credentials to sign with.
    """
    endpoint = client.meta.endpoint_url
    if "amazonaws." in endpoint:
        style = "path" if "." in bucket else "virtual"
        client = signer_in(region_of(bucket, client) or client.meta.region_name, style)
    with named_errors(bucket, key):
        signed: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=PRESIGNED_S
        )
    return signed if is_presigned else urlsplit(signed)._replace(query="").geturl()


def region_of(bucket: str, client: Client) -> str | None:
    """As S3 says, which it also does while it refuses; None where it says nothing."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as err:
        answer = err.response
    except BotoCoreError:
        return None
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
    return region


@cache
def signer_in(region: str | None, addressing: str) -> Client:
    """A client of that region. Takes 0.1 s to make: kept."""
    return s3_client(None, region, addressing)
