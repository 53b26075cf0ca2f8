from __future__ import annotations

import contextlib

import pytest

from container.http.request_body import BodyQuota
from inference.errors import Overloaded


def test_one_client_sends_half_of_all_bodies_at_most():
    quota = BodyQuota(max_bodies=4, max_bytes=100)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(quota.arriving("192.0.2.1"))
        with pytest.raises(Overloaded, match="2 uploads of your address"), quota.arriving("192.0.2.1"):
            pass
        stack.enter_context(quota.arriving("192.0.2.2"))
        assert quota.n_arriving == 3
    assert quota.n_arriving == 0


def test_callers_behind_a_proxy_send_all():
    quota = BodyQuota(max_bodies=2, max_bytes=100)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(quota.arriving(None))
        with pytest.raises(Overloaded, match="2 bodies are arriving already"):
            stack.enter_context(quota.arriving("192.0.2.1"))
