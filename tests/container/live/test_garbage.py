from __future__ import annotations

import gc
import weakref

from container.live.garbage import exclude_loaded_objects


class Node:
    """An object that may be part of a cycle."""

    other: Node


def test_what_is_loaded_is_not_visited_and_dropped_cycles_are_collected_by_the_next_call():
    node = Node()
    node.other = node
    reference = weakref.ref(node)
    try:
        exclude_loaded_objects()
        assert not any(one is node for one in gc.get_objects())
        del node
        gc.collect()
        assert reference() is not None  # it is excluded
        exclude_loaded_objects()
        assert reference() is None
    finally:
        gc.unfreeze()
