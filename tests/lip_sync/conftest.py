from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden_weights import seeded_state

from inference.lip_sync import LipSyncer
from inference.models import Wav2Lip, Wav2LipWidths

# As upstream's network in everything but size. Its weights are drawn at random: what it says means nothing.
NARROW = Wav2LipWidths((4, 6, 8, 10, 12, 14, 16), (3, 5, 7, 9, 11), (13, 12, 10, 8, 6, 5, 4), 7)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for one another for seconds, over networks of milliseconds."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two in upstream's forms: an old pickle with `module.` before each name, a zip without; optimizer and all."""
    folder = tmp_path_factory.mktemp("checkpoints")
    found = []
    for name, prefix, gain, is_zip in (("wav2lip", "module.", 0.9, False), ("wav2lip_gan", "", 1.3, True)):
        state = {f"{prefix}{key}": value for key, value in seeded_state(Wav2Lip(NARROW), gain).items()}
        whole = {"state_dict": state, "optimizer": {"state": {}}, "global_step": 3, "global_epoch": 1}
        path = folder / f"{name}.pth"
        torch.save(whole, path, _use_new_zipfile_serialization=is_zip)
        found.append(path)
    return found


@pytest.fixture(scope="session")
def syncer(checkpoints: list[Path], weights_cache: Path) -> LipSyncer:
    return LipSyncer(checkpoints[:1], device="cpu", precision="f32")
