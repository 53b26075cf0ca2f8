from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inference.lip_sync import LipSyncer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: on a busy machine torch's threads wait seconds for one another, for networks of milliseconds."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def syncer(checkpoints: list[Path], weights_cache: Path) -> LipSyncer:
    return LipSyncer(checkpoints[:1], device="cpu", precision="f32")
