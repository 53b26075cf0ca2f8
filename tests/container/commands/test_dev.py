"""`viseme dev`, as far as it gets without an account; tests/deploy/dev has the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from container.commands.dev import make_access_check
from inference.settings import Settings


def test_without_the_extra_it_is_named():
    """In a process of its own: here moto's modules may be imported already."""
    code = "import sys; sys.modules['moto'] = None; from container.cli import main; sys.exit(main(['dev']))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr == "viseme: moto is not installed: pip install '.[dev]'\n"


@pytest.mark.parametrize(
    ("host", "settings", "headers", "is_denied"),
    [
        ("127.0.0.1", {}, {"host": "127.0.0.1:8000"}, False),
        ("127.0.0.1", {}, {"host": "viseme-dev.localhost:8000"}, False),  # the bucket in the host's name
        ("127.0.0.1", {}, {"host": "rebound.example"}, True),
        ("127.0.0.1", {}, {}, True),
        ("127.0.0.1", {"allowed_hosts": ("box.lan",)}, {"host": "box.lan"}, False),
        ("0.0.0.0", {}, {"host": "box.lan"}, False),
        ("0.0.0.0", {"allowed_hosts": ("box.lan",)}, {"host": "other.lan"}, True),
        ("192.0.2.5", {"allowed_hosts": ("box.lan",)}, {"host": "192.0.2.5:8000"}, False),  # the account itself
        ("2001:db8::5", {"allowed_hosts": ("box.lan",)}, {"host": "[2001:db8::5]:8000"}, False),
        ("127.0.0.1", {}, {"host": "localhost", "origin": "https://other.example"}, True),
        ("127.0.0.1", {}, {"host": "localhost", "origin": "null"}, True),
        ("127.0.0.1", {}, {"host": "localhost", "origin": "http://localhost:3000"}, False),
        ("127.0.0.1", {"token": "t"}, {"host": "localhost", "origin": "https://other.example"}, True),
        (
            "127.0.0.1",
            {"allowed_origins": ("https://other.example",)},
            {"host": "localhost", "origin": "https://other.example"},
            False,
        ),
    ],
)
def test_which_requests_are_denied(
    host: str, settings: dict[str, object], headers: dict[str, str], is_denied: bool, tmp_path: Path
):
    check = make_access_check(Settings(data_dir=tmp_path, **settings), host)
    assert (check(list(headers.items())) is not None) == is_denied
