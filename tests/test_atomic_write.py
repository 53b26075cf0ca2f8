from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from inference.atomic_write import atomic_file, atomic_folder


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def test_a_file_appears_when_it_is_complete(tmp_path: Path, umask: int):
    path = tmp_path / "clip.mp4"
    path.write_text("old")
    with atomic_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert (partial.parent, partial.suffix) == (tmp_path, ".mp4")
        assert partial.name.startswith(".")
    assert path.read_text() == "new"
    assert permissions(path) == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as partial:
        raise ZeroDivisionError(partial.write_text("new"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_set_and_parents_are_created_on_request(tmp_path: Path):
    path = tmp_path / "a" / "b" / "net.pt"
    with pytest.raises(FileNotFoundError), atomic_file(path) as partial:
        partial.write_text("x")
    with atomic_file(path, mode=0o644, make_parents=True) as partial:
        partial.touch(0o600)
    assert permissions(path) == 0o644


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "x." + "y" * 253, "\u00e4" * 127])
def test_the_longest_name_can_be_written(name: str, tmp_path: Path):
    path = tmp_path / name
    with atomic_file(path) as partial:
        partial.write_text("x")
    assert path.exists()


def test_a_file_that_cannot_be_moved_is_deleted(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError), atomic_file(tmp_path / "taken") as partial:
        partial.write_text("x")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "never written"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_concurrent_writers_do_not_mix(tmp_path: Path):
    path = tmp_path / "shared"

    def write(text: str) -> None:
        for _ in range(20):
            with atomic_file(path) as partial, partial.open("w") as file:
                for letter in text:
                    file.write(letter)
                    file.flush()

    threads = [threading.Thread(target=write, args=(letter * 50,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in {"a" * 50, "b" * 50}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path, umask: int):
    path = tmp_path / "new" / "package"
    with atomic_folder(path) as partial:
        (partial / "file").write_text("x")
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["file"]
    assert permissions(path) == 0o777 & ~umask
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_folder_is_deleted(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "package") as partial:
        raise ZeroDivisionError((partial / "file").write_text("x"))
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_folder_is_replaced(tmp_path: Path):
    path = tmp_path / "package"
    path.mkdir()
    with atomic_folder(path) as partial:
        (partial / "file").write_text("first")
    with pytest.raises(OSError, match="not empty"), atomic_folder(path) as partial:
        (partial / "file").write_text("second")
    assert (path / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
