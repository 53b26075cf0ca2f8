"""Upload forms: one video, limited in size, key, type and time."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from support.lambda_functions import BUCKET, load, version_of

function = load("upload_url")
invoke = load("invoke_endpoint")


@pytest.fixture(autouse=True)
def bucket(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_NAME", BUCKET)


def policy_of(form: dict[str, Any]) -> list[Any]:
    conditions: list[Any] = json.loads(base64.b64decode(form["fields"]["policy"]))["conditions"]
    return conditions


def test_the_form_limits_size_key_and_type(monkeypatch):
    monkeypatch.setenv("MAX_BYTES", "1000")
    form = function.handler({"filename": "my clip (1).MP4", "content_type": "video/quicktime"}, None)
    conditions = policy_of(form)
    assert ["content-length-range", 1, 1000] in conditions
    assert {"key": form["key"]} in conditions
    assert {"bucket": BUCKET} in conditions
    assert {"Content-Type": "video/quicktime"} in conditions
    assert form["fields"]["Content-Type"] == "video/quicktime"
    assert form["fields"]["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert form["url"].startswith(f"https://{BUCKET}.s3")
    assert (form["max_bytes"], form["expires_s"]) == (1000, 900)


def test_the_form_names_its_end():
    form = function.handler({"filename": "a.mp4"}, None)
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))
    ends_at = datetime.fromisoformat(policy["expiration"]).timestamp()
    assert abs(form["expires_at"] - ends_at) <= 2  # the seconds that the two clocks were read at


def test_an_upload_by_form_is_processed(monkeypatch):
    form = function.handler({"filename": "my clip (1).MP4"}, None)
    assert form["key"].startswith("uploads/")
    assert form["key"].endswith("/my clip (1).MP4")
    settings = invoke.Settings.from_env({"ENDPOINT_NAME": "viseme"})
    assert (
        invoke.reason_to_skip(invoke.UploadedVideo(BUCKET, form["key"], version_of(form["key"], "e")), settings) is None
    )
    assert function.VIDEO_SUFFIXES == invoke.VIDEO_SUFFIXES


def test_two_forms_for_one_name_have_different_keys():
    keys = {function.handler({"filename": "a.mp4"}, None)["key"] for _ in range(2)}
    assert len(keys) == 2


@pytest.mark.parametrize(("given", "kept"), [("../../etc/a.mp4", "a.mp4"), (r"C:\videos\b.avi", "b.avi")])
def test_folders_are_removed(given, kept):
    assert function.handler({"filename": given}, None)["key"].split("/")[2:] == [kept]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"filename": 7},
        {"filename": "a.exe"},
        {"filename": ""},
        {"filename": "a\n.mp4"},
        {"filename": "${filename}.mp4"},
        {"filename": "a" * 300 + ".mp4"},
        {"filename": "a.mp4", "content_type": "text/html"},
        {"filename": "a.mp4", "content_type": "video/mp4\r\nx: y"},
    ],
)
def test_an_invalid_request_is_rejected(request_):
    with pytest.raises(function.BadRequest, match="expected"):
        function.handler(request_, None)


@pytest.mark.parametrize("encoded", [False, True])
def test_over_http(encoded):
    body = json.dumps({"filename": "a.mp4"})
    sent = base64.b64encode(body.encode()).decode() if encoded else body
    answer = function.handler({"requestContext": {}, "body": sent, "isBase64Encoded": encoded}, None)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["key"].endswith("/a.mp4")


def test_it_leaves_cors_to_lambda():
    """Lambda adds the headers of the function URL's configuration: with two of a name browsers refuse the answer."""
    answer = function.handler({"requestContext": {}, "body": '{"filename":"a.mp4"}'}, None)
    assert not [name for name in answer["headers"] if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("body", [None, "", "{", "[]", '{"filename":"a.txt"}'])
def test_an_invalid_request_over_http_is_400(body):
    answer = function.handler({"requestContext": {}, "body": body}, None)
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(("name", "value"), [("BUCKET_NAME", ""), ("MAX_BYTES", "0"), ("EXPIRES_S", "soon")])
def test_a_bad_setting_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        function.handler({"filename": "a.mp4"}, None)
