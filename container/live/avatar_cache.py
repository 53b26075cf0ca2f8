"""The avatar packages of this server: loaded at their first use, dropped when their folders are removed or replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from container.http.clients import FairQueue
from container.live.garbage import exclude_loaded_objects
from inference.errors import AvatarError, AvatarNotFound
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

logger = logging.getLogger("viseme.live")
# Networks run on all cores: one call at a time, or several of a narrow network. The other threads decode, encode and
# wait for them.
N_THREADS = 8
# Single-frame requests that run at a time, so that any number of them leaves the network free for sessions.
N_SINGLE_FRAME_THREADS = 2
MAX_SINGLE_FRAMES = 256  # single-frame requests of one client that run or wait
N_LOADS = 2  # packages that are loaded at a time
# Threads for everything but sessions, which so have theirs whenever a frame is due: two more check folders.
N_BACKGROUND_THREADS = N_SINGLE_FRAME_THREADS + N_LOADS + 2
REFRESH_INTERVAL_S = 2.0  # between checks of the folders
LIST_MAX_AGE_S = 1.0  # of the list of packages
STALE = (-float("inf"), 0)  # time of a list that must be made again, and modification time of its folder

P = ParamSpec("P")
T = TypeVar("T")
# Identifies what is stored under a name: modification time (ns), inode and size (bytes) of the manifest.
PackageVersion = tuple[int, int, int]


@dataclass(frozen=True)
class AvatarInfo:
    """A package, as its manifest describes it. width and height in pixels. alpha: whether it has mattes."""

    name: str
    frames: int
    fps: int
    width: int
    height: int
    alpha: bool = False


class CacheEntry:
    """A package that is loaded or loading. It is closed once it was dropped and has no users."""

    def __init__(self, version: PackageVersion, loading: asyncio.Task[AvatarPackage]) -> None:
        self.version = version
        self.loading = loading
        self.n_users = 0
        self.is_dropped = False

    def close_if_unused(self) -> None:
        is_loaded = self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None
        if self.is_dropped and self.n_users == 0 and is_loaded:
            self.loading.result().close()


class AvatarCache:
    """The loaded packages by name, shared by all protocols of the server. Use it in one event loop only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: dict[str, CacheEntry] = {}
        self._threads = ThreadPoolExecutor(N_THREADS, "viseme-live")
        self._background_threads = ThreadPoolExecutor(N_BACKGROUND_THREADS, "viseme-background")
        self._single_frames = FairQueue(N_SINGLE_FRAME_THREADS, MAX_SINGLE_FRAMES)
        self._loads = asyncio.Semaphore(N_LOADS)
        self._n_uses = 0  # of loaded packages by sessions and requests, those of dropped packages too
        self._is_exclusion_due = False  # of packages that were loaded, from collections of garbage
        self._exclusion: asyncio.Task[None] | None = None
        self._packages = PackageList(settings)
        self._listing: asyncio.Task[list[AvatarInfo]] | None = None
        self._listed = STALE

    async def run_in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a session's function in a thread: it decodes, encodes or runs a network, and /ping answers at once."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def run_in_background(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread that no session needs."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._background_threads, lambda: function(*args, **kwargs))

    async def run_single_frame(self, client: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function for a single-frame request in a thread, when it is the client's turn.

        If the caller is canceled, its turn lasts until the thread is free again.
        Raises: Overloaded if too many requests of the client wait.
        """
        async with self._single_frames.turn(client):
            return await outlast_cancellation(self.run_in_background(function, *args, **kwargs))

    async def list_packages(self) -> list[AvatarInfo]:
        """List every package that can be requested. Do not change the list.

        It is a second old at most, and describes no folder that was added, removed or renamed since.
        """
        if self._listing is None or (self._listing.done() and not self._is_list_current()):
            self._listing = asyncio.create_task(self._describe_packages())
        return await asyncio.shield(self._listing)  # if this caller is canceled, others still wait for it

    async def _describe_packages(self) -> list[AvatarInfo]:
        self._listed = STALE  # if it fails, the next request tries again
        listed = time.monotonic(), folder_changed_ns(self._settings)
        described = await self.run_in_background(self._packages.describe)
        self._listed = listed
        return described

    def _is_list_current(self) -> bool:
        listed_at, changed_ns = self._listed
        return time.monotonic() - listed_at < LIST_MAX_AGE_S and folder_changed_ns(self._settings) == changed_ns

    @property
    def loaded_names(self) -> list[str]:
        """Names of the packages in memory, sorted."""
        return sorted(name for name, entry in self._entries.items() if entry.loading.done())

    @asynccontextmanager
    async def acquire(self, name: str) -> AsyncIterator[AvatarPackage]:
        """Load the package if necessary, and keep it open inside of the block.

        Raises: AvatarNotFound, BadPackage, and the other errors of `AvatarPackage.load`.
        """
        entry = self._entries.get(name) or await self._load_entry(name)
        entry.n_users += 1
        try:
            # Shielded: if this caller is canceled, others still wait for the same package.
            package = await asyncio.shield(entry.loading)
            while self._exclusion is not None and not self._exclusion.done():
                await asyncio.wait({self._exclusion})
            self._n_uses += 1
            try:
                yield package
            finally:
                self._n_uses -= 1
                self._exclude_if_unused()
        finally:
            entry.n_users -= 1
            entry.close_if_unused()

    async def check_exists(self, name: str) -> None:
        """Check that there is a package of this name; it is not read before it is loaded. Raises: AvatarNotFound."""
        if name not in self._entries:
            await self.run_in_background(read_version, name, self._settings)

    async def load_all(self) -> None:
        """Load all packages, so that no client waits for one. A package that cannot be loaded is logged."""
        for info in await self.list_packages():
            try:
                async with self.acquire(info.name):
                    pass
            except AvatarError as err:
                logger.warning("an avatar could not be loaded", extra={"avatar": info.name, "reason": str(err)})

    async def _load_entry(self, name: str) -> CacheEntry:
        version = await self.run_in_background(read_version, name, self._settings)
        entry = self._entries.get(name)  # another caller may have added it meanwhile
        if entry is None:
            entry = CacheEntry(version, asyncio.create_task(self._load(name)))
            self._entries[name] = entry
        return entry

    async def _load(self, name: str) -> AvatarPackage:
        try:
            async with self._loads:
                package = await self.run_in_background(load_package, name, self._settings)
        except BaseException:
            self._entries.pop(name, None)  # the next request tries again
            raise
        self._is_exclusion_due = True
        self._exclude_if_unused()
        logger.info("an avatar was loaded", extra={"avatar": name, "frames": package.n_frames})
        return package

    def _exclude_if_unused(self) -> None:
        """If it is due and no package is used, start to exclude what was loaded from collections of garbage.

        `acquire` waits for it: what is part of a session would never be collected.
        """
        is_running = self._exclusion is not None and not self._exclusion.done()
        if self._is_exclusion_due and self._n_uses == 0 and not is_running:
            self._exclusion = asyncio.create_task(self._exclude())

    async def _exclude(self) -> None:
        while self._is_exclusion_due:  # again, if another package is loaded meanwhile
            self._is_exclusion_due = False
            await self.run_in_background(exclude_loaded_objects)

    async def watch_folder(self) -> None:
        """Drop packages whose folders are removed or replaced, until canceled."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Drop packages whose folders were removed or replaced. Sessions that use one continue to their end."""
        for name, entry in list(self._entries.items()):
            if not entry.loading.done():
                continue
            version: PackageVersion | None = None
            with contextlib.suppress(AvatarNotFound):
                version = await self.run_in_background(read_version, name, self._settings)
            if version != entry.version and self._entries.get(name) is entry:
                logger.info("an avatar was dropped", extra={"avatar": name})
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._listed = STALE
        entry = self._entries.pop(name)
        entry.is_dropped = True
        entry.close_if_unused()

    async def close(self) -> None:
        """Drop all packages, and wait for the calls that run in threads."""
        for entry in self._entries.values():
            entry.loading.cancel()
        for name in list(self._entries):
            self._drop(name)
        self._is_exclusion_due = False
        if self._exclusion is not None:
            await asyncio.wait({self._exclusion})
        for threads in (self._threads, self._background_threads):
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)


async def outlast_cancellation(awaited: Coroutine[Any, Any, T]) -> T:
    """Return the result. If the caller is canceled meanwhile, first wait for the work: no thread can be interrupted."""
    work = asyncio.create_task(awaited)
    canceled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as err:
            canceled = err
    if canceled is not None:
        with contextlib.suppress(Exception):  # its caller has left
            work.result()
        raise canceled
    return work.result()


def load_package(name: str, settings: Settings) -> AvatarPackage:
    """Load a package. Raises: AvatarNotFound, BadPackage, and the other errors of `AvatarPackage.load`."""
    from inference.avatar import AvatarPackage

    # Lip reading and lip sync have int8 weights; avatars do not.
    precision = "auto" if settings.precision == "int8" else settings.precision
    return AvatarPackage.load(find_package(name, settings), settings.device, precision, settings, is_shared=True)


def find_packages(settings: Settings) -> dict[str, Path]:
    """Return the folder of every package by its name."""
    from inference.avatar import list_avatars

    return list_avatars(settings)


def find_package(name: str, settings: Settings) -> Path:
    """Return the folder of a package.

    The name is never a path: clients must not choose which folder is read. Raises: AvatarNotFound.
    """
    from inference.avatar import find_named

    return find_named(name, settings)


def read_version(name: str, settings: Settings) -> PackageVersion:
    """Return the version of the package that is stored under a name now. Raises: AvatarNotFound."""
    return version_of(name, find_package(name, settings))


def version_of(name: str, folder: Path) -> PackageVersion:
    """Return the version of the package in a folder. Raises: AvatarNotFound."""
    from inference.avatar.manifest import MANIFEST

    try:
        stat = (folder / MANIFEST).stat()
    except OSError as err:
        raise AvatarNotFound(f"avatar {name!r}: its folder was removed just now") from err
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def folder_changed_ns(settings: Settings) -> int:
    """Return when packages were last added, removed or renamed, in ns; 0 if there is no folder of packages."""
    try:
        return 0 if settings.avatars is None else settings.avatars.stat().st_mtime_ns
    except OSError:
        return 0


class PackageList:
    """Describes the packages whose manifests are readable. A manifest is read once, and again if it was replaced."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[tuple[str, PackageVersion], AvatarInfo | None] = {}

    def describe(self) -> list[AvatarInfo]:
        """Describe the packages, and log each invalid manifest once. Call it in one thread at a time."""
        known: dict[tuple[str, PackageVersion], AvatarInfo | None] = {}
        for name, folder in find_packages(self._settings).items():
            with contextlib.suppress(AvatarNotFound):
                key = name, version_of(name, folder)
                known[key] = self._known[key] if key in self._known else describe_package(name, folder)
        self._known = known
        return [info for info in known.values() if info is not None]


def describe_package(name: str, folder: Path) -> AvatarInfo | None:
    """Describe a package, or log that its manifest is invalid and return None."""
    from inference.avatar.manifest import MATTES, read_manifest

    try:
        manifest = read_manifest(folder)
    except AvatarError as err:
        logger.warning("an avatar folder has an invalid manifest", extra={"avatar": name, "reason": str(err)})
        return None
    has_mattes = MATTES in manifest.files
    return AvatarInfo(name, manifest.frames, manifest.fps, manifest.width, manifest.height, has_mattes)
