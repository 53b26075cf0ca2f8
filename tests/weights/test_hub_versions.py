"""The Hub with each version of huggingface_hub that a deployment has: ours, and the stock image's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.environments import environment
from support.hub_server import LFS_BYTES, HubServer, Repository

from inference.weights.registry import SWIN2SR

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "support" / "hub_fetch.py"
REPOSITORY = SWIN2SR.hub.repository
FILE = SWIN2SR.files[0].name
COMMIT = SWIN2SR.hub.revision
NOT_THE_PUBLISHED = bytes(100)  # its hash is found wrong, which shows that it arrived
VERSIONS = {"ours": "2.4.0", "the stock image's": "0.30.0"}


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """Return a Python, and the version of huggingface_hub that it has."""
    is_ours = request.param == "ours"
    return Path(sys.executable) if is_ours else environment("stock-image"), VERSIONS[request.param]


@pytest.fixture
def hub() -> HubServer:
    with HubServer({REPOSITORY: Repository(COMMIT, {FILE: NOT_THE_PUBLISHED})}) as server:
        yield server


def run(
    python: tuple[Path, str], cache: Path, name: str, endpoint: str, token: str = "", **environ: str
) -> dict[str, object]:
    env = {"PATH": os.environ["PATH"], "HOME": str(cache), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python[0]), str(SCRIPT), name, str(cache), endpoint, token]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=env | environ, cwd=cache
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("version") == python[1]
    return found


@pytest.mark.parametrize("n_bytes", [100, LFS_BYTES])
def test_a_file_arrives_and_its_hash_is_checked(python: tuple[Path, str], hub: HubServer, tmp_path: Path, n_bytes: int):
    hub.repositories[REPOSITORY].files[FILE] = bytes(n_bytes)
    found = run(python, tmp_path, "swin2sr", hub.url, "hf_secret")
    assert found["error"] == "WrongWeights"
    assert f"{n_bytes} bytes with SHA-256" in found["message"]
    tokens = {headers.get("authorization") for method, path, headers in hub.seen if path.startswith("/lfs/")}
    assert tokens == ({None} if n_bytes == LFS_BYTES else set())  # the token does not leave the Hub


def test_an_interrupted_download_resumes(python: tuple[Path, str], hub: HubServer, tmp_path: Path):
    hub.repositories[REPOSITORY].files[FILE] = bytes(2 * LFS_BYTES)
    hub.cuts = [LFS_BYTES + 1]
    found = run(python, tmp_path, "swin2sr", hub.url)
    assert f"{2 * LFS_BYTES} bytes with SHA-256" in found["message"]
    assert ["range" in headers for headers in hub.gets("/lfs/")] == [False, True]


def test_the_files_of_a_repository_are_listed(python: tuple[Path, str], hub: HubServer, tmp_path: Path):
    hub.repositories[REPOSITORY].files["../out.pt"] = b""
    assert run(python, tmp_path, REPOSITORY, hub.url) == {"revision": COMMIT, "files": [FILE]}


FAULTS = {
    "no such repository": "has no repository",
    "private": "or it is private",
    "gated": "is gated; accept its terms",
    "no such revision": "has no such revision",
    "no such file": "has no such file",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_answer_has_its_error(python: tuple[Path, str], hub: HubServer, tmp_path: Path, fault: str):
    repository = hub.repositories[REPOSITORY]
    repository.gated, repository.private = fault == "gated", fault == "private"
    if fault == "no such repository":
        hub.repositories.clear()
    elif fault == "no such revision":
        repository.commit = "a" * 40
    elif fault == "no such file":
        repository.files.clear()
    found = run(python, tmp_path, "swin2sr", hub.url)
    assert (found["error"], FAULTS[fault] in found["message"]) == ("WeightsNotFound", True), found
    if fault in ("no such repository", "private", "gated"):
        assert run(python, tmp_path, REPOSITORY, hub.url) == found | {
            "message": found["message"].replace(f"{FILE} of {REPOSITORY} at {COMMIT[:7]}", REPOSITORY)
        }


def test_no_network_is_a_storage_error(python: tuple[Path, str], tmp_path: Path):
    for name in ("swin2sr", REPOSITORY):
        found = run(python, tmp_path, name, "http://127.0.0.1:9")
        assert (found["error"], "could not be fetched from http://127.0.0.1:9" in found["message"]) == (
            "StorageError",
            True,
        ), found


def test_a_repository_without_a_commit_is_a_storage_error(python: tuple[Path, str], hub: HubServer, tmp_path: Path):
    hub.repositories[REPOSITORY].commit = ""
    found = run(python, tmp_path, REPOSITORY, hub.url)
    assert found == {"error": "StorageError", "message": f"{hub.url} returned no commit of {REPOSITORY}, but ''"}
