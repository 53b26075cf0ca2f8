"""What `python -m bench.image_check` does around the build, which itself takes root, Debian and 20 minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import image_check
from bench.image_builder import SETTINGS, Builder, PipSettings
from bench.image_container import ISOLATED, Container


def can_isolate() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*ISOLATED, "--mount-proc", "true"], capture_output=True, check=False).returncode == 0


isolated = pytest.mark.skipif(not can_isolate(), reason="this user may not make namespaces")


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty file that is all of pip's settings."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    path = tmp_path / "own.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    return path


def test_pip_s_settings_go_into_the_build(tmp_path: Path, pip_conf: Path, monkeypatch: pytest.MonkeyPatch):
    """Files are copied, folders are mounted where they are, and everything else stays as it is."""
    index, wheels, certificate = tmp_path / "index" / "simple", tmp_path / "wheels", tmp_path / "ca.crt"
    index.mkdir(parents=True)
    wheels.mkdir()
    certificate.write_text("CERTIFICATE")
    pip_conf.write_text(
        f"[global]\ncert = {certificate}\nfind-links = {wheels}\nextra-index-url = file://{index} /gone\n"
    )
    monkeypatch.setenv("PIP_TIMEOUT", "180")
    found = PipSettings.of_this_machine(tmp_path / "settings")
    assert found.folders == {wheels, index.parent}  # the files of an index lie beside its pages
    lines = found.conf.read_text().splitlines()
    assert lines[0] == "[global]"
    assert {f"cert = {SETTINGS}/ca.crt", f"find-links = {wheels}", "timeout = 180"} <= set(lines)
    assert f"extra-index-url = file://{index} /gone" in lines
    assert (found.conf.parent / "ca.crt").read_text() == "CERTIFICATE"


@pytest.mark.parametrize(
    ("user", "commands", "fault"),
    [
        (1000, {"buildah", "debootstrap", "unshare"}, "needs root on Debian"),
        (0, {"debootstrap", "unshare"}, "missing; apt-get install buildah"),
        (0, set(), "missing; apt-get install buildah debootstrap util-linux"),
        (0, {"buildah", "debootstrap", "unshare"}, None),
    ],
)
@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="not Debian")
def test_what_it_needs(monkeypatch: pytest.MonkeyPatch, user: int, commands: set[str], fault: str | None):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in commands else None)
    assert image_check.find_fault() == fault


def test_a_failed_command_shows_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.image_builder.ISOLATED", ("env",))
    monkeypatch.setattr("bench.image_builder.PROC", ())
    with pytest.raises(SystemExit, match=r"sh failed with exit code 3:\nno network"):
        Builder(tmp_path).run(["sh", "-c", "echo no network; exit 3"])


@isolated
def test_a_command_leaves_no_mount_behind(tmp_path: Path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    script = f"mount -t tmpfs tmpfs {folder} && touch {folder}/inside && ls {folder}"
    assert Builder(tmp_path).run(["sh", "-c", script]) == "inside\n"
    assert list(folder.iterdir()) == []
    assert str(folder) not in Path("/proc/self/mounts").read_text()


@isolated
@pytest.mark.parametrize(("trap", "code"), [("exit 0", None), ("exit 5", 5)])
def test_a_container_is_stopped_by_sigterm(trap: str, code: int | None):
    script = f"trap '{trap}' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen([*ISOLATED, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n"
        container = Container(outer)
        assert container.memory_mib() > 0
        if code is None:
            assert container.stop() >= 0
        else:
            with pytest.raises(SystemExit, match="ended with exit code 5 after SIGTERM; expected 0"):
                container.stop()
