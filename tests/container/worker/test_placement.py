"""Where workers run, on machines that are only described."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.worker.placement import (
    GPU_LANES,
    SERVER_BYTES,
    WORKER_BYTES,
    Machine,
    Placement,
    count_workers,
    list_gpus,
    memory_limit,
    place_workers,
)
from inference.backends.device import cpu_quota
from inference.errors import InvalidRequest
from inference.settings import Settings

GIB = 1 << 30


def settings(**given: object) -> Settings:
    return Settings(data_dir=Path("/nowhere"), **given)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (Machine(8, 64 * GIB), 8),
        (Machine(8, SERVER_BYTES + 3 * WORKER_BYTES), 3),
        (Machine(8, SERVER_BYTES // 2), 1),
        (Machine(48, 192 * GIB, has_gpu=True, gpus=("0", "1", "2", "3")), 4),
        (Machine(8, 32 * GIB, has_gpu=True), 1),  # a GPU that can't be listed
        (Machine(192, 4096 * GIB), 64),
    ],
)
def test_automatic_workers_fit_cores_memory_and_gpus(machine: Machine, expected: int):
    assert count_workers(machine) == expected
    assert len(place_workers(settings(workers="auto"), machine, {})) == expected


def test_worker_i_is_on_gpu_i_modulo_their_number():
    machine = Machine(16, 64 * GIB, has_gpu=True, gpus=("2", "5"))
    places = place_workers(settings(workers=3), machine, {})
    assert [place.environment for place in places] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("2", "5", "2")]
    assert {place.n_lanes for place in places} == {GPU_LANES}


def test_workers_on_a_cpu_divide_its_cores():
    machine = Machine(8, 64 * GIB)
    assert place_workers(settings(workers=3), machine, {}) == [Placement(1, {"OMP_NUM_THREADS": "2"})] * 3
    assert place_workers(settings(workers=1), machine, {}) == [Placement()]
    assert place_workers(settings(workers=2), machine, {"OMP_NUM_THREADS": "8"}) == [Placement()] * 2
    for workers, env in ((1, {}), (3, {}), (2, {"OMP_NUM_THREADS": "8"})):
        found = place_workers(settings(workers=workers, threads=5), machine, env)
        assert found == [Placement(1, {"OMP_NUM_THREADS": "5"})] * workers
    assert place_workers(settings(requests_per_worker=3), machine, {}) == [Placement(3)]


def test_gpus_are_those_that_cuda_may_use(tmp_path: Path):
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert list_gpus(None, tmp_path) == ("0", "1")
    assert list_gpus("3, GPU-8932f937", tmp_path) == ("3", "GPU-8932f937")
    assert list_gpus("-1", tmp_path) == ()


def test_a_container_has_the_cores_and_the_memory_of_its_limits(tmp_path: Path):
    assert memory_limit(tmp_path) > 0
    physical, unlimited = memory_limit(tmp_path), cpu_quota(tmp_path)
    (tmp_path / "memory.max").write_text("268435456\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert (memory_limit(tmp_path), cpu_quota(tmp_path)) == (256 << 20, 2)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert (memory_limit(tmp_path), cpu_quota(tmp_path)) == (physical, unlimited)


def test_the_number_of_workers_is_a_number_or_auto():
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "auto", "VISEME_REQUESTS_PER_WORKER": "4"}
    assert (Settings.from_env(env).workers, Settings.from_env(env).requests_per_worker) == ("auto", 4)
    assert Settings.from_env({"SAGEMAKER_MODEL_SERVER_WORKERS": "3"}).workers == 3
    for value in ("0", "65", "all"):
        with pytest.raises(InvalidRequest, match="SAGEMAKER_MODEL_SERVER_WORKERS"):
            Settings.from_env({"SAGEMAKER_MODEL_SERVER_WORKERS": value})
