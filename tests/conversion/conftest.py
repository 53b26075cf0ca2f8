"""Networks to convert."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.face_networks import make_s3fd, make_wav2lip, save_networks

from inference.models import S3FD, Wav2Lip


@pytest.fixture(scope="session")
def wav2lip() -> Wav2Lip:
    return make_wav2lip()


@pytest.fixture(scope="session")
def s3fd() -> S3FD:
    return make_s3fd()


@pytest.fixture(scope="session")
def files(wav2lip: Wav2Lip, s3fd: S3FD, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Torch files of both networks, by name."""
    return save_networks(tmp_path_factory.mktemp("checkpoints"), wav2lip, s3fd)
