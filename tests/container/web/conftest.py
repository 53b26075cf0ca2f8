from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import running_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser
