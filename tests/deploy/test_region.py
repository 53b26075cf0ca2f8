"""The region of a command comes from the caller, and is never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.endpoint import main
from deploy.errors import DeployError, WrongRequest
from deploy.region import REGION_VARIABLES, choose_region


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set no region but that of a profile named `work`."""
    for name in REGION_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text("[profile work]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("ap-south-1", {"AWS_REGION": "eu-west-1"}, "ap-south-1"),
        (None, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2", "AWS_PROFILE": "work"}, "eu-west-1"),
        (None, {"AWS_DEFAULT_REGION": "eu-west-2", "AWS_PROFILE": "work"}, "eu-west-2"),
        (None, {"AWS_PROFILE": "work"}, "eu-north-1"),
    ],
)
@pytest.mark.usefixtures("profile")
def test_the_nearest_one_counts(monkeypatch: pytest.MonkeyPatch, given: str | None, environment: dict, expected: str):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_region(given) == expected


@pytest.mark.usefixtures("profile")
def test_without_one_nothing_is_called(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(WrongRequest):
        choose_region(None)
    for action in (["--role-arn", "arn:aws:iam::123456789012:role/X"], ["--delete"]):
        assert main(["--endpoint-name", "viseme", *action]) == 2
        assert "--region: missing; pass it, set AWS_REGION, or run" in capsys.readouterr().err


@pytest.mark.usefixtures("profile")
def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "home")
    with pytest.raises(DeployError, match="home"):
        choose_region(None)
