"""The lines that callers get from the logs of their jobs."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from container.logs import recorded_logs


@pytest.fixture
def _captured_warnings():
    logging.captureWarnings(True)
    yield
    logging.captureWarnings(False)


@pytest.mark.usefixtures("_captured_warnings")
def test_warnings_of_libraries_have_no_paths(tmp_path: Path):
    with recorded_logs(tmp_path / "log"):
        warnings.showwarning("axis: 3 is deprecated", DeprecationWarning, __file__, 12)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("WARNING py.warnings: DeprecationWarning: axis: 3 is deprecated")
