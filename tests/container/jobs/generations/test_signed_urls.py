"""URLs of videos that are valid for a while."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from container.jobs.generations.signed_urls import LIFETIME_S, check_result_token, result_url
from inference.errors import AccessDenied

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
JOB, OTHER_JOB = "a" * 32, "b" * 32
NOW = 1_700_000_000.0


def token_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


def test_a_url_names_the_video_and_its_end():
    url = result_url("https://lips.example", JOB, KEY, NOW)
    assert url.startswith(f"https://lips.example/v2/generations/{JOB}/result?token={int(NOW + LIFETIME_S)}.")
    check_result_token(token_of(url), JOB, KEY, NOW)
    check_result_token(token_of(url), JOB, KEY, NOW + LIFETIME_S - 1)


def test_a_url_expires():
    token = token_of(result_url("", JOB, KEY, NOW))
    with pytest.raises(AccessDenied, match="has expired"):
        check_result_token(token, JOB, KEY, NOW + LIFETIME_S)


def test_a_url_is_of_one_video_and_one_key():
    token = token_of(result_url("", JOB, KEY, NOW))
    for job, key in ((OTHER_JOB, KEY), (JOB, OTHER_KEY)):
        with pytest.raises(AccessDenied, match="token of this URL is wrong"):
            check_result_token(token, job, key, NOW)


def test_a_changed_end_is_not_signed():
    expires_at, _, signature = token_of(result_url("", JOB, KEY, NOW)).partition(".")
    with pytest.raises(AccessDenied, match="is wrong"):
        check_result_token(f"{int(expires_at) + 1}.{signature}", JOB, KEY, NOW)


@pytest.mark.parametrize("token", ["", ".", "1", "1.", "0." + "0" * 64, "1." + "g" * 64, "١." + "0" * 64, "9" * 99])
def test_what_is_no_token_is_refused(token: str):
    with pytest.raises(AccessDenied, match="is wrong"):
        check_result_token(token, JOB, KEY, NOW)
