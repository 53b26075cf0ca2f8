"""The avatars that this server speaks with: loaded when they are first asked for, dropped when their folders go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from inference.errors import AvatarError, AvatarNotFound
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

LOG = logging.getLogger("viseme.live")
# Networks run one at a time, by all cores; the other threads decode, encode and wait for them.
N_THREADS = 8
# Of them, for frames that are asked for by their number: however many ask, sessions get to the network in time.
N_NUMBERED = 2
LOOK_S = 2.0  # between looks at the folder

P = ParamSpec("P")
T = TypeVar("T")
# What tells a package from another one in the same place: when its manifest was written, its inode, its size.
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class AvatarInfo:
    """A package, as its manifest describes it."""

    name: str
    frames: int
    fps: int
    width: int
    height: int


class Held:
    """A package in memory, or on its way there. It is closed when it is dropped and nobody uses it any more."""

    def __init__(self, stamp: Stamp, loading: asyncio.Task[AvatarPackage]) -> None:
        self.stamp = stamp
        self.loading = loading
        self.n_users = 0
        self.is_dropped = False

    def close_if_unused(self) -> None:
        is_loaded = self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None
        if self.is_dropped and self.n_users == 0 and is_loaded:
            self.loading.result().close()


class Avatars:
    """Packages by name, shared by every door of the server. To be used in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: dict[str, Held] = {}
        self._threads = ThreadPoolExecutor(N_THREADS, "viseme-live")
        self._numbered = asyncio.Semaphore(N_NUMBERED)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in a thread: whatever decodes, encodes or runs a network, so that /ping stays quick."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def run_numbered(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a frame that is asked for by its number: who asks waits in line, with all who do."""
        async with self._numbered:
            return await self.run(function, *args, **kwargs)

    async def known(self) -> list[AvatarInfo]:
        """Every package that could be asked for now."""
        return await self.run(describe_all, self._settings)

    @property
    def loaded(self) -> list[str]:
        """The names of those in memory."""
        return sorted(name for name, held in self._held.items() if held.loading.done())

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[AvatarPackage]:
        """The package of that name, which stays usable as long as it is leased.

        Raises: AvatarNotFound, BadPackage, and what else `AvatarPackage.load` does.
        """
        held = self._held.get(name) or await self._hold(name)
        held.n_users += 1
        try:
            # Shielded: who waits may go away, and others wait for the same.
            yield await asyncio.shield(held.loading)
        finally:
            held.n_users -= 1
            held.close_if_unused()

    async def check(self, name: str) -> None:
        """Raises: AvatarNotFound where there is no such package; whether it is sound shows when it is loaded."""
        if name not in self._held:
            await self.run(stamp_of, name, self._settings)

    async def load_all(self) -> None:
        """Load what is known now, so that no caller waits for it. One that cannot be loaded is logged."""
        for info in await self.known():
            try:
                async with self.lease(info.name):
                    pass
            except AvatarError as err:
                LOG.warning("an avatar could not be loaded", extra={"avatar": info.name, "reason": str(err)})

    async def _hold(self, name: str) -> Held:
        stamp = await self.run(stamp_of, name, self._settings)
        held = self._held.get(name)  # somebody else may have asked for it meanwhile
        if held is None:
            held = Held(stamp, asyncio.create_task(self._load(name)))
            self._held[name] = held
        return held

    async def _load(self, name: str) -> AvatarPackage:
        try:
            package = await self.run(load_package, name, self._settings)
        except BaseException:
            self._held.pop(name, None)  # asked for again, it is tried again
            raise
        LOG.info("an avatar was loaded", extra={"avatar": name, "frames": package.n_frames})
        return package

    async def keep_looking(self) -> None:
        """Drop packages whose folders are gone, or hold another one, until canceled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Drop what is gone. Sessions that speak with it end as they would have."""
        for name, held in list(self._held.items()):
            if not held.loading.done():
                continue
            stamp: Stamp | None = None
            with contextlib.suppress(AvatarNotFound):
                stamp = await self.run(stamp_of, name, self._settings)
            if stamp != held.stamp and self._held.get(name) is held:
                LOG.info("an avatar was dropped", extra={"avatar": name})
                self._drop(name)

    def _drop(self, name: str) -> None:
        held = self._held.pop(name)
        held.is_dropped = True
        held.close_if_unused()

    async def close(self) -> None:
        """Drop everything. What a thread still does is waited for."""
        for held in self._held.values():
            held.loading.cancel()
        for name in list(self._held):
            self._drop(name)
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)


def load_package(name: str, settings: Settings) -> AvatarPackage:
    """Raises: AvatarNotFound, BadPackage, and what else `AvatarPackage.load` does."""
    from inference.avatar import AvatarPackage

    # Which lip reading and lip sync know, and avatars do not.
    precision = "auto" if settings.precision == "int8" else settings.precision
    return AvatarPackage.load(find_package(name, settings), settings.device, precision, settings)


def find_packages(settings: Settings) -> dict[str, Path]:
    from inference.avatar import list_avatars

    return list_avatars(settings)


def find_package(name: str, settings: Settings) -> Path:
    """By its name, never by a path: callers are not to choose which folder is read. Raises: AvatarNotFound."""
    from inference.avatar import find_named

    return find_named(name, settings)


def stamp_of(name: str, settings: Settings) -> Stamp:
    """Raises: AvatarNotFound."""
    from inference.avatar.manifest import MANIFEST

    folder = find_package(name, settings)
    try:
        stat = (folder / MANIFEST).stat()
    except OSError as err:
        raise AvatarNotFound(f"avatar {name!r}: its folder has just gone") from err
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def describe_all(settings: Settings) -> list[AvatarInfo]:
    """Those whose manifests can be read; the log names the others."""
    from inference.avatar.manifest import read_manifest

    found: list[AvatarInfo] = []
    for name, folder in find_packages(settings).items():
        try:
            one = read_manifest(folder)
        except AvatarError as err:
            LOG.warning("a folder of avatars holds a broken one", extra={"avatar": name, "reason": str(err)})
            continue
        found.append(AvatarInfo(name, one.frames, one.fps, one.width, one.height))
    return found
