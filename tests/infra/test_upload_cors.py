"""A web page may call the function URL and post to the bucket, but only from the origins that the stack names.

The stand-ins answer as AWS documents it: Lambda's API reference (`Cors`: origins, methods and headers of a function
URL, which Lambda checks itself) and the S3 user guide ("Elements of a CORS configuration"); a browser goes by the
Fetch standard (CORS-safelisted methods and headers, preflight).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deploy.dev.template import load_template

RESOURCES = load_template(Path(__file__).parents[2] / "infra" / "template.yaml")["Resources"]
PAGE, STRANGER = "https://example.com", "https://example.org"
# Fetch standard: what a page may send without a preflight, and what it never sends itself.
SAFE_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded", "text/plain")
SENT_BY_THE_BROWSER = {"host", "content-length"}


def when_there_are_origins(value: dict[str, Any], origins: list[str]) -> dict[str, Any]:
    """Return the branch of a condition for a stack with UploadOrigins, with the parameter's value."""
    condition, given, otherwise = value["Fn::If"]
    assert condition == "HasOrigins"
    assert otherwise == {"Ref": "AWS::NoValue"}
    return {name: origins if one == {"Ref": "UploadOrigins"} else one for name, one in given.items()}


@pytest.fixture
def function_url() -> dict[str, Any]:
    config = RESOURCES["UploadUrl"]["Properties"]["FunctionUrlConfig"]
    assert config["AuthType"] == "AWS_IAM"
    return when_there_are_origins(config["Cors"], [PAGE])


def signed_headers() -> dict[str, str]:
    """Return the headers of a page that signs its request with temporary credentials, such as Cognito's."""
    request = AWSRequest("POST", "https://x.lambda-url.us-east-1.on.aws/", {"Content-Type": "application/json"}, "{}")
    SigV4Auth(Credentials("key", "secret", "token"), "lambda", "us-east-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers | {"x-amz-content-sha256": "of the body; the signers for browsers send it, too"}


def preflight(cors: dict[str, Any], origin: str, method: str, headers: set[str]) -> bool:
    """Return whether Lambda's answer to a preflight lets the browser send the request."""
    allowed = {header.lower() for header in cors.get("AllowHeaders", [])}
    is_origin = any(one in ("*", origin) for one in cors.get("AllowOrigins", []))
    return is_origin and method in cors.get("AllowMethods", []) and headers <= allowed


def test_a_page_may_send_a_signed_request(function_url):
    headers = signed_headers()
    assert {"authorization", "x-amz-date", "x-amz-security-token"} <= set(headers)
    assert headers["content-type"] not in SAFE_TYPES  # therefore it needs permission, too
    assert preflight(function_url, PAGE, "POST", set(headers) - SENT_BY_THE_BROWSER)


@pytest.mark.parametrize(
    ("origin", "method", "header"),
    [(STRANGER, "POST", "content-type"), (PAGE, "DELETE", "content-type"), (PAGE, "POST", "x-other")],
)
def test_other_requests_are_not_sent(function_url, origin, method, header):
    assert not preflight(function_url, origin, method, {header})


def test_lambda_accepts_the_configuration(function_url):
    """Its bounds, from the API reference: a method has at most 6 letters, so OPTIONS is refused."""
    assert all(len(method) <= 6 for method in function_url["AllowMethods"])
    assert 0 <= function_url["MaxAge"] <= 86400
    assert function_url.get("AllowCredentials", False) is False  # the request is signed; cookies are not needed


def test_the_page_may_post_the_form_to_the_bucket():
    rules = RESOURCES["MediaBucket"]["Properties"]["CorsConfiguration"]["Fn::If"][1]["CorsRules"]
    [rule] = rules
    assert rule["AllowedOrigins"] == {"Ref": "UploadOrigins"}
    assert rule["AllowedMethods"] == ["POST"]
    assert "content-type" in rule["AllowedHeaders"]
