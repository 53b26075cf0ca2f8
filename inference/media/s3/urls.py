"""URLs of S3 objects, for browsers and other programs."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from inference.media.s3.client import Client, s3_client, translate_s3_errors

PRESIGNED_URL_S = 3600  # lifetime of a presigned URL


def object_url(bucket: str, key: str, client: Client, *, is_presigned: bool = False) -> str:
    """Return https://BUCKET.s3.REGION.amazonaws.com/KEY, in the bucket's own region whatever the client's is.

    A bucket with dots in its name goes into the path, because TLS certificates do not cover it as a host name; other
    S3-compatible servers keep their own address.
    is_presigned: anyone can open the URL for an hour (less if the role's credentials expire before).
    Raises: AccessDenied if there are no credentials to sign with.
    """
    endpoint = client.meta.endpoint_url
    if "amazonaws." in endpoint:
        style = "path" if "." in bucket else "virtual"
        client = regional_client(region_of(bucket, client) or client.meta.region_name, style)
    with translate_s3_errors(bucket, key):
        signed: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=PRESIGNED_URL_S
        )
    return signed if is_presigned else urlsplit(signed)._replace(query="").geturl()


def region_of(bucket: str, client: Client) -> str | None:
    """Return the region that S3 reports, even if it denies access; None if it reports none."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        response = client.head_bucket(Bucket=bucket)
    except ClientError as err:
        response = err.response
    except BotoCoreError:
        return None
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = response.get("BucketRegion") or headers.get("x-amz-bucket-region")
    return region


@cache
def regional_client(region: str | None, addressing: str) -> Client:
    """Return the client of a region, cached because creating one takes 0.1 s."""
    return s3_client(None, region, addressing)
