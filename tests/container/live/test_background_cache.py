from __future__ import annotations

import gc
from typing import Any

from container.live.background_cache import BackgroundCache, EncodedBackground


class Package:
    """Stands for a loaded avatar."""


def test_frames_are_cached_by_avatar_within_a_bound():
    cache, first, second = BackgroundCache(max_bytes=100), Package(), Package()
    packages: list[Any] = [first, second]
    a, b = (EncodedBackground.of(bytes([k]) * 40) for k in range(2))
    cache.add(packages[0], 0, a)
    cache.add(packages[1], 0, b)
    assert (cache.get(packages[0], 0), cache.get(packages[1], 0)) == (a, b)
    assert a.etag != b.etag
    cache.add(packages[0], 1, b)  # over the bound: the frame that was requested first is dropped
    assert cache.get(packages[0], 0) is None
    assert cache.get(packages[0], 1) is b
    cache.add(packages[0], 2, EncodedBackground.of(bytes(101)))
    assert cache.get(packages[0], 2) is None
    assert cache.get(packages[0], 1) is b


def test_the_cache_does_not_keep_an_avatar_in_memory_nor_mistake_a_new_one_for_it():
    cache = BackgroundCache()
    package: Any = Package()
    cache.add(package, 0, EncodedBackground.of(b"old"))
    del package
    gc.collect()
    assert len(cache._numbers) == 0
    replacement: Any = Package()
    assert cache.get(replacement, 0) is None
