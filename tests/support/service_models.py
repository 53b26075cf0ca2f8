"""AWS's service descriptions for tests that use botocore."""

from __future__ import annotations

from collections.abc import Iterator

import botocore.session
import pytest


@pytest.fixture(scope="session", autouse=True)
def shared_loader() -> Iterator[None]:
    """Share botocore's loader: its service descriptions are megabytes, and each session would read them again."""
    loader = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: loader)
        yield
