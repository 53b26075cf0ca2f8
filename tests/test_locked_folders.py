from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference import locked_folders
from inference.locked_folders import SUFFIX, LockedFolder, locked_folder, remove_orphans

ROOT = Path(__file__).parents[1]
HOLD = (
    "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
    "from inference.locked_folders import locked_folder\n"
    "with locked_folder('viseme-body-') as folder:\n"
    "    (folder / 'body').write_bytes(b'x'); print(folder, flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@contextmanager
def other_process(scratch: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a process that makes a folder with a file, and yield both."""
    command = [sys.executable, "-c", HOLD, str(scratch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_folder_is_deleted_after_its_block(scratch: Path):
    with locked_folder("viseme-body-") as folder:
        (folder / "body").write_bytes(b"x")
        assert folder.parent == scratch
        assert folder.name.startswith("viseme-body-")
        assert remove_orphans() == 0
        assert (folder / "body").exists()
    assert list(scratch.iterdir()) == []


def test_the_folder_of_a_living_process_is_kept_and_that_of_a_killed_one_deleted(scratch: Path):
    with other_process(scratch) as (process, folder):
        assert remove_orphans() == 0
        assert (folder / "body").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / "body").exists()
        assert remove_orphans() == 1
    assert list(scratch.iterdir()) == []


def test_only_folders_of_this_kind_are_deleted(scratch: Path, tmp_path: Path):
    outside = tmp_path / f"viseme-outside{SUFFIX}"
    outside.mkdir()
    (outside / "file").write_bytes(b"x")
    (scratch / f"viseme-link{SUFFIX}").symlink_to(outside)
    (scratch / f"viseme-file{SUFFIX}").write_bytes(b"x")
    (scratch / "viseme-body-older").mkdir()  # of a version that did not lock them
    (scratch / f"another{SUFFIX}").mkdir()
    orphan = scratch / f"viseme-video-a{SUFFIX}"
    orphan.mkdir()
    (orphan / "link").symlink_to(outside)
    before = set(scratch.iterdir())
    assert remove_orphans() == 1
    assert set(scratch.iterdir()) == before - {orphan}
    assert (outside / "file").exists()


def test_the_folder_of_another_user_is_kept(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    (scratch / f"viseme-body-a{SUFFIX}").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert remove_orphans() == 0
    assert len(list(scratch.iterdir())) == 1


def test_a_folder_that_is_deleted_before_it_is_locked_is_made_again(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Path] = []
    opened = locked_folders.open_folder

    def open_first_after_deletion(path: Path) -> int:
        made.append(path)
        lock = opened(path)
        if len(made) == 1:
            path.rmdir()
        return lock

    monkeypatch.setattr(locked_folders, "open_folder", open_first_after_deletion)
    folder = LockedFolder.make("viseme-body-")
    assert [folder.path] == made[1:] == list(scratch.iterdir())
    folder.delete()


def test_without_a_temporary_directory_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert remove_orphans() == 0


@contextmanager
def max_files(n_files: int) -> Iterator[None]:
    """Allow no descriptor from this number on inside of the block; those that are open stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_that_cannot_be_locked_is_not_left_behind(scratch: Path):
    with max_files(0), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        LockedFolder.make("viseme-body-")
    assert list(scratch.iterdir()) == []


def test_a_folder_is_deleted_though_no_other_file_can_be_opened(scratch: Path):
    folder = LockedFolder.make("viseme-body-")
    (folder.path / "body").write_bytes(b"x")
    with max_files(folder.lock + 1):  # all lower ones are in use: the system gives the lowest
        folder.delete()
    assert list(scratch.iterdir()) == []


def test_what_cannot_be_deleted_is_logged_and_left_to_the_next_start(scratch: Path, caplog: pytest.LogCaptureFixture):
    folder = LockedFolder.make("viseme-body-")
    (folder.path / "more").mkdir()
    with max_files(folder.lock + 1):
        folder.delete()
    assert "left to the next start" in caplog.text
    assert remove_orphans() == 1
    assert list(scratch.iterdir()) == []
