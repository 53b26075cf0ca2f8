from __future__ import annotations

import gc

import pytest

from container.commands.console import without_collections


def test_collections_go_on_after_a_start_that_failed():
    assert gc.isenabled()
    with pytest.raises(ValueError, match="True of the start"), without_collections():
        raise ValueError(f"{not gc.isenabled()} of the start")
    assert gc.isenabled()


def test_collections_leave_out_what_was_loaded():
    with without_collections():
        loaded = [{}]
    assert all(one is not loaded for one in gc.get_objects())
    gc.unfreeze()
    assert any(one is loaded for one in gc.get_objects())
