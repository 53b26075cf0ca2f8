"""The Dockerfile as text: the image is built elsewhere, with a Docker daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container.extra_requirements import requirements_of

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "container" / "Dockerfile"
SERVE = ROOT / "container" / "serve"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Return the instructions, one per line, without comments."""
    kept = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [line for line in joined.splitlines() if line]


def of_kind(lines: list[str], kind: str) -> list[str]:
    return [line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")]


def stage(lines: list[str], name: str) -> list[str]:
    start = next(i for i, line in enumerate(lines) if line.startswith("FROM ") and line.endswith(f" AS {name}"))
    rest = lines[start + 1 :]
    end = next((i for i, line in enumerate(rest) if line.startswith("FROM ")), len(rest))
    return rest[:end]


def test_the_base_is_the_builder_s_choice(lines):
    assert lines[0] == "ARG BASE_IMAGE=python:3.11-slim-bookworm"
    assert [line.split(" AS ")[0] for line in of_kind(lines, "FROM")] == ["${BASE_IMAGE}", "libraries", "libraries"]


def test_it_starts_in_exec_form(lines):
    [entry], [command] = of_kind(lines, "ENTRYPOINT"), of_kind(lines, "CMD")
    assert json.loads(entry) == ["/usr/local/bin/serve"]
    assert json.loads(command) == ["serve"]
    assert "COPY --chmod=755 container/serve /usr/local/bin/serve" in lines
    assert os.access(SERVE, os.X_OK)


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ([], ["serve", "--host", "0.0.0.0"]),
        (["serve"], ["serve", "--host", "0.0.0.0"]),
        (["serve", "--aws-routes"], ["serve", "--host", "0.0.0.0", "--aws-routes"]),
        (["--port", "9000"], ["serve", "--host", "0.0.0.0", "--port", "9000"]),
        (["weights", "list"], ["weights", "list"]),
        (["read", "my clip (1).MP4"], ["read", "my clip (1).MP4"]),
    ],
)
def test_docker_run_image_serve(tmp_path, words, run):
    viseme = tmp_path / "viseme"
    viseme.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    viseme.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = subprocess.run([SERVE, *words], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == run


def test_libraries_are_installed_before_the_package_is_copied(lines):
    """A changed line of code rebuilds megabytes, not gigabytes."""
    libraries = stage(lines, "libraries")
    assert of_kind(libraries, "COPY") == ["requirements.txt /opt/viseme/requirements.txt"]
    installs = [line for line in libraries if "pip install" in line]
    assert len(installs) == 2
    assert "torch.txt" in installs[0]
    image = stage(lines, "image")
    order = [line for line in image if line.startswith("COPY") or "pip install" in line]
    assert "EXTRAS" in order.pop()  # empty in most images
    assert order[0] == "COPY --from=ours /opt/viseme/data /opt/viseme/data"  # changes least
    assert "--no-deps" in order[-1]  # the wheel changes most, and installs no library


def test_it_needs_no_network_to_start(lines):
    [fetched] = [line for line in stage(lines, "ours") if "weights fetch" in line]
    assert "VISEME_DATA_DIR=/opt/viseme/data" in fetched
    assert "&& viseme weights fetch mediapipe" in fetched
    assert fetched.endswith("&& viseme avatar info starter")  # draws it
    environment = " ".join(of_kind(stage(lines, "image"), "ENV"))
    assert "VISEME_DATA_DIR=/opt/viseme/data" in environment
    assert "SM_MODEL_DIR=/opt/ml/model" in environment


def test_the_driver_s_libraries_are_asked_for(lines):
    """NVIDIA's container runtime reads these; CUDA's images set them, but our base image does not. video: NVENC."""
    environment = " ".join(of_kind(stage(lines, "image"), "ENV"))
    assert "NVIDIA_VISIBLE_DEVICES=all" in environment
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in environment


@pytest.mark.parametrize("with_torch", ["yes", "no"])
def test_torch_is_installed_if_it_is_wanted(lines, tmp_path, with_torch):
    """The commands as they are, with a pip that records what it is asked for."""
    requirements, asked = tmp_path / "requirements.txt", tmp_path / "asked"
    requirements.write_text((ROOT / "requirements.txt").read_text())
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nfor word in "$@"; do last=$word; done\ncat "$last" >> {asked}\n')
    pip.chmod(0o755)
    for line in of_kind(stage(lines, "libraries"), "RUN"):
        if "pip install" in line:
            command = line.partition("target=/etc/pip.conf")[2].replace("/opt/viseme", str(tmp_path))
            env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WITH_TORCH": with_torch}
            subprocess.run(["sh", "-ec", command], env=env, check=True)
    found = [line for line in asked.read_text().splitlines() if line and not line.startswith("#")]
    expected = [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in found if not line.startswith("torch==")] == [
        line for line in expected if not line.startswith("torch==")
    ]
    assert any(line.startswith("torch==") for line in found) == (with_torch == "yes")
    assert found[0].startswith("torch==") == (with_torch == "yes")  # before what depends on it


@pytest.mark.parametrize(
    ("extras", "asked"),
    [("", None), ("celery", ["celery[redis]"]), ("postgresql,celery", ["celery[redis]", "psycopg[binary]"])],
)
def test_extras_are_installed_without_what_the_package_needs(lines, tmp_path, extras, asked):
    """The command as it is, with a pip that records what it is asked for."""
    [line] = [line for line in of_kind(stage(lines, "image"), "RUN") if "${EXTRAS}" in line]
    command = line.partition("target=/etc/pip.conf")[2].replace("/tmp/", f"{tmp_path}/")
    for name, script in {
        "pip": f'for word in "$@"; do last=$word; done; cp "$last" {tmp_path}/asked',
        "python3": f'exec {sys.executable} "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EXTRAS": extras}
    subprocess.run(["sh", "-ec", command], env=env, check=True, cwd=ROOT)
    found = tmp_path / "asked"
    assert found.exists() == (asked is not None)
    if asked is not None:
        assert [line.partition("==")[0] for line in found.read_text().splitlines()] == asked
    assert not (tmp_path / "extras.txt").exists()


def test_an_extra_that_does_not_exist_fails_the_build():
    with pytest.raises(ValueError, match="no such extra: celerry; expected any of celery, "):
        requirements_of(["postgresql", "celerry"])


def test_labels_declare_capabilities_to_sagemaker(lines):
    labels = " ".join(of_kind(lines, "LABEL"))
    assert "com.amazonaws.sagemaker.capabilities.bidirectional-streaming=true" in labels


def test_it_contains_no_secret_and_no_host(lines):
    text = DOCKERFILE.read_text()
    assert not re.search(r"https?://", text)
    assert not re.search(r"(?i)(token|password|passwd|secret_?key|access_?key)\s*=", text)
    for line in lines:  # build arguments stay in the image history: passwords are mounted files
        if "pip install" in line and "--no-deps" not in line:
            assert "--mount=type=secret,id=pip" in line
    assert not of_kind(lines, "ADD")


def test_only_named_files_reach_the_builder(lines):
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert "**/.*" in rules[rules.index("!inference") :]  # a .env in a folder is excluded
    copied = [word for line in of_kind(lines, "COPY") if "--from" not in line for word in line.split()[:-1]]
    for name in (word for word in copied if not word.startswith("--")):
        assert name.split("/")[0] in let_in, name
        assert (ROOT / name).exists(), name


def test_the_files_of_the_wheel_are_copied(lines):
    """The packages, their requirements, and the licences."""
    copied = " ".join(of_kind(stage(lines, "ours"), "COPY"))
    for name in (
        "pyproject.toml",
        "setup.py",
        "requirements.txt",
        "README.md",
        "LICENSE",
        "NOTICE",
        "inference",
        "container",
        "deploy",
    ):
        assert name in copied


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    assert HADOLINT is not None
    run = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
