from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from container.live import avatar_cache
from container.live.avatar_cache import N_SINGLE_FRAME_THREADS, AvatarCache, PackageList
from inference.avatar import manifest as manifest_module
from inference.avatar.catalogue import list_user_avatars
from inference.avatar.manifest import read_manifest
from inference.settings import Settings

PATIENCE_S = 60.0  # only a guard against hanging


@pytest.fixture
def deployment(tmp_path: Path, avatar_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    folder = tmp_path / "avatars"
    (folder / "drawn").mkdir(parents=True)
    shutil.copy(avatar_folder / "manifest.json", folder / "drawn")
    monkeypatch.setattr(avatar_cache, "find_packages", list_user_avatars)  # without the starter
    return Settings(data_dir=tmp_path, avatars=folder)


def test_a_manifest_is_read_once_and_again_if_it_is_replaced(deployment: Settings, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []

    def read_and_record(folder: Path):
        read.append(folder)
        return read_manifest(folder)

    monkeypatch.setattr(manifest_module, "read_manifest", read_and_record)
    packages = PackageList(deployment)
    assert [info.name for info in packages.describe()] == ["drawn"]
    assert [info.frames for info in packages.describe()] == [75]
    assert len(read) == 1
    assert deployment.avatars is not None
    path = deployment.avatars / "drawn" / "manifest.json"
    path.write_text("{}")
    assert packages.describe() == packages.describe() == []
    assert len(read) == 2


def test_a_list_of_packages_is_shared_until_it_is_old_or_the_folder_changes(
    deployment: Settings, monkeypatch: pytest.MonkeyPatch
):
    described: list[int] = []
    describe = PackageList.describe

    def describe_and_record(self: PackageList):
        described.append(1)
        return describe(self)

    monkeypatch.setattr(PackageList, "describe", describe_and_record)
    monkeypatch.setattr(avatar_cache, "LIST_MAX_AGE_S", 1e9)
    assert deployment.avatars is not None

    async def go() -> None:
        cache = AvatarCache(deployment)
        lists = await asyncio.gather(*(cache.list_packages() for _ in range(50)))
        assert [info.name for info in lists[0]] == ["drawn"]
        assert all(one is lists[0] for one in lists)
        assert len(described) == 1
        (deployment.avatars / "drawn").rename(deployment.avatars / "renamed")
        assert [info.name for info in await cache.list_packages()] == ["renamed"]
        monkeypatch.setattr(avatar_cache, "LIST_MAX_AGE_S", 0.0)
        await cache.list_packages()
        assert len(described) == 3
        await cache.close()

    asyncio.run(go())


def test_a_canceled_call_keeps_its_turn_until_its_thread_is_free(deployment: Settings):
    """Otherwise a client that cancels all its calls would get every thread."""

    async def go() -> None:
        cache, resume, n_running = AvatarCache(deployment), threading.Event(), []

        def run() -> None:
            n_running.append(1)
            resume.wait(PATIENCE_S)

        first = [asyncio.create_task(cache.run_single_frame("client", run)) for _ in range(N_SINGLE_FRAME_THREADS)]
        while len(n_running) < N_SINGLE_FRAME_THREADS:
            await asyncio.sleep(0.01)
        for call in first:
            call.cancel()
        later = [asyncio.create_task(cache.run_single_frame("client", run)) for _ in range(10)]
        later[0].cancel()  # while it waits for its turn: it never runs
        await asyncio.sleep(0.1)
        first[0].cancel()  # again
        await asyncio.sleep(0.1)
        assert len(n_running) == N_SINGLE_FRAME_THREADS
        assert not any(call.done() for call in first)
        resume.set()
        ended = await asyncio.gather(*first, *later, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [True, True, True, *[False] * 9]
        assert len(n_running) == N_SINGLE_FRAME_THREADS + 9
        await cache.close()

    asyncio.run(go())


def test_sessions_have_threads_that_no_other_work_uses(deployment: Settings):
    async def go() -> None:
        cache, done = AvatarCache(deployment), threading.Event()
        busy = [asyncio.create_task(cache.run_in_background(done.wait)) for _ in range(50)]
        frames = [asyncio.create_task(cache.run_single_frame("client", done.wait)) for _ in range(50)]
        await asyncio.sleep(0)
        assert await cache.run_in_thread(lambda: "a frame") == "a frame"
        done.set()
        await asyncio.gather(*busy, *frames)
        await cache.close()

    asyncio.run(go())


class LoadedPackage:
    """In the place of a package."""

    n_frames = 1

    def close(self) -> None:
        pass


def test_loading_excludes_objects_from_collections_unless_a_package_is_used(
    deployment: Settings, monkeypatch: pytest.MonkeyPatch
):
    """What is part of a session would never be collected."""
    excluded: list[str] = []
    assert deployment.avatars is not None
    for name in ("second", "third"):
        shutil.copytree(deployment.avatars / "drawn", deployment.avatars / name)
    monkeypatch.setattr(avatar_cache, "load_package", lambda *_: LoadedPackage())

    async def go() -> None:
        cache = AvatarCache(deployment)
        monkeypatch.setattr(avatar_cache, "exclude_loaded_objects", lambda: excluded.append("now"))
        async with cache.acquire("drawn"):
            assert len(excluded) == 1
            async with cache.acquire("second"):
                assert len(excluded) == 1
        async with cache.acquire("second"):
            assert len(excluded) == 2  # as soon as none was used
        async with cache.acquire("third"):
            assert len(excluded) == 3
        async with cache.acquire("third"):
            assert len(excluded) == 3
        await cache.close()

    asyncio.run(go())


def test_a_session_of_a_replaced_package_counts_as_use(deployment: Settings, monkeypatch: pytest.MonkeyPatch):
    excluded: list[str] = []
    assert deployment.avatars is not None
    manifest = deployment.avatars / "drawn" / "manifest.json"
    monkeypatch.setattr(avatar_cache, "load_package", lambda *_: LoadedPackage())
    monkeypatch.setattr(avatar_cache, "exclude_loaded_objects", lambda: excluded.append("now"))

    async def go() -> None:
        cache = AvatarCache(deployment)
        async with cache.acquire("drawn") as replaced:
            manifest.write_text(manifest.read_text() + " ")
            await cache.refresh()
            async with cache.acquire("drawn") as package:
                assert package is not replaced
            async with cache.acquire("drawn"):
                assert len(excluded) == 1
        async with cache.acquire("drawn"):
            assert len(excluded) == 2
        await cache.close()

    asyncio.run(go())
