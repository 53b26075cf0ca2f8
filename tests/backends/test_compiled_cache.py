from __future__ import annotations

import errno
import fcntl
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest

from inference.backends import GraphRecipe, OpenVinoNetwork, compiled_cache
from inference.backends.compiled_cache import locked, machine_key, open_folder, prune
from inference.backends.openvino_network import compile_model

ONES = np.ones((1, 4), np.float32)


def make_graph(factor: float) -> openvino.Model:
    ops = openvino.opset13
    x = ops.parameter([1, 4], np.float32)
    weights = ops.constant(np.full((4, 4), factor, np.float32))
    return openvino.Model([ops.relu(ops.matmul(x, weights, False, False))], [x], "test")


def run(root: Path, factor: float = 1) -> float:
    return float(OpenVinoNetwork(make_graph(factor), compiled=root)(ONES)[0][0, 0])


def blobs(root: Path) -> list[Path]:
    return sorted(root.glob("*/*"))


def run_recipe(root: Path, factor: float, build: Callable[[], openvino.Model]) -> float:
    return float(OpenVinoNetwork(GraphRecipe(f"key{factor}", build), compiled=root)(ONES)[0][0, 0])


def must_not_build() -> openvino.Model:
    raise AssertionError("the graph was built")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "compiled"


def test_a_network_is_compiled_once(root: Path):
    assert run(root) == 4
    (blob,) = blobs(root)
    written = blob.stat()
    assert run(root) == 4
    assert blobs(root) == [blob]
    assert blob.stat().st_mtime_ns == written.st_mtime_ns
    assert blob.parent.name == machine_key()
    assert {oct(path.stat().st_mode)[-3:] for path in (root, blob.parent)} == {"700"}


def test_other_weights_are_another_network(root: Path):
    assert [run(root, factor) for factor in (1, 2, 1)] == [4, 8, 4]
    assert len(blobs(root)) == 2


@pytest.mark.parametrize("n_bytes", [0, 10, 500])
def test_a_file_that_was_cut_off_is_compiled_again(root: Path, n_bytes: int):
    run(root)
    (blob,) = blobs(root)
    blob.chmod(0o600)
    os.truncate(blob, n_bytes)
    assert run(root) == 4


def test_a_recipe_that_was_compiled_needs_no_graph(root: Path):
    for factor in (1, 2):
        assert run_recipe(root, factor, lambda factor=factor: make_graph(factor)) == 4 * factor
    assert [run_recipe(root, factor, must_not_build) for factor in (2, 1)] == [8, 4]
    assert len(blobs(root)) == 2


def make_wide_graph() -> openvino.Model:
    """Its weights are used in place, in the mapped file."""
    ops = openvino.opset13
    x = ops.parameter([-1, 65536], np.float32)
    return openvino.Model([ops.add(x, ops.constant(np.ones((1, 65536), np.float32)))], [x], "wide")


def test_a_recipes_network_outlives_its_file(root: Path):
    OpenVinoNetwork(GraphRecipe("wide", make_wide_graph), compiled=root)
    network = OpenVinoNetwork(GraphRecipe("wide", must_not_build), compiled=root)
    (blob,) = blobs(root)
    blob.unlink()
    gc.collect()
    assert network(np.ones((1, 65536), np.float32))[0][0, 65535] == 2


@pytest.mark.parametrize("n_bytes", [0, 10, 500])
def test_a_recipes_file_that_was_cut_off_is_compiled_again(root: Path, n_bytes: int):
    run_recipe(root, 1, lambda: make_graph(1))
    (blob,) = blobs(root)
    os.truncate(blob, n_bytes)
    assert run_recipe(root, 1, lambda: make_graph(1)) == run_recipe(root, 1, must_not_build) == 4


def test_a_recipes_file_that_is_damaged_is_compiled_again(root: Path, caplog: pytest.LogCaptureFixture):
    run_recipe(root, 1, lambda: make_graph(1))
    (blob,) = blobs(root)
    blob.write_bytes(b"x" * 4096 + compiled_cache.END)
    assert run_recipe(root, 1, lambda: make_graph(1)) == 4
    assert caplog.records[0].message == "a compiled network can't be loaded"


def test_a_file_is_not_read_again_until_it_changes(root: Path, tmp_path: Path):
    path = tmp_path / "graph.xml"
    for factor, time_s, expected in ((1, 1, 1), (3, 1, 1), (2, 2, 2)):  # the second has the same size and time
        openvino.save_model(make_graph(factor), path)
        os.utime(path, (time_s, time_s))
        assert OpenVinoNetwork(path, compiled=root)(ONES)[0][0, 0] == 4 * expected


def replace_by_link(root: Path) -> None:
    (root.parent / "theirs").mkdir(mode=0o700)
    root.symlink_to(root.parent / "theirs")


def open_to_all(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)


def replace_by_file(root: Path) -> None:
    root.touch()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (replace_by_link, "is a link or a file"),
        (open_to_all, "mode 777: other users may write to it"),
        (replace_by_file, "File exists"),
    ],
)
def test_a_folder_that_others_may_change_is_not_used(
    spoil: Callable[[Path], None], reason: str, root: Path, caplog: pytest.LogCaptureFixture
):
    spoil(root)
    with caplog.at_level(logging.WARNING):
        assert run(root) == run(root) == 4
    assert blobs(root) == []
    (record,) = caplog.records  # one line, though two networks were compiled
    assert record.message.startswith("compiled networks are not cached")
    assert reason in record.reason


def test_the_folder_of_another_user_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch):
    root.mkdir(mode=0o700)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert open_folder(root) is None


def test_a_read_only_folder_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert run(root) == 4
    assert "is read-only" in caplog.records[0].reason


def test_a_file_is_written_and_mapped_by_one_process_at_a_time(root: Path):
    attempts = []

    class WatchedCore:
        def compile_model(self, graph: openvino.Model, device: str, config: dict[str, object]) -> object:
            other = os.open(str(config["CACHE_DIR"]), os.O_RDONLY)
            try:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                attempts.append(config)
            finally:
                os.close(other)
            return openvino.Core().compile_model(graph, device, config)

    compile_model(WatchedCore(), make_graph(1), {}, root)
    assert len(attempts) == 1
    with locked(root / machine_key()):  # is free again
        pass


def test_a_folder_that_cannot_be_locked_is_not_used(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert run(root) == 4
    assert blobs(root) == []
    assert "No locks available" in caplog.records[0].reason


def test_a_folder_that_stays_locked_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(compiled_cache, "LOCK_TIMEOUT_S", 0.05)
    folder = open_folder(root)
    assert folder is not None
    with locked(folder):
        assert run(root) == 4
    assert blobs(root) == []
    assert caplog.records[0].reason == "another process has locked it for 0.05 s"


def test_a_full_disk_does_no_harm(full_disk: Path):
    assert run(full_disk / "compiled") == run(full_disk / "compiled") == 4
    assert run_recipe(full_disk / "compiled", 1, lambda: make_graph(1)) == 4


def test_the_oldest_files_are_deleted(root: Path):
    for i, factor in enumerate((1, 2, 3)):
        run(root, factor)
        for blob in blobs(root):
            if blob.stat().st_mtime > 1000:
                os.utime(blob, (i, i))
    oldest, *others = sorted(blobs(root), key=lambda path: path.stat().st_mtime)
    prune(root, sum(path.stat().st_size for path in others))
    assert sorted(others) == blobs(root)
    assert not oldest.exists()
    assert [run(root, factor) for factor in (1, 2, 3)] == [4, 8, 12]
