"""What moto lacks of SageMaker's endpoints, added as `viseme dev` does, until the test ends."""

from __future__ import annotations

from functools import partial

import pytest

from deploy.dev import moto_account


def complete_sagemaker(patch: pytest.MonkeyPatch) -> None:
    """Add to moto what it lacks, until the patch is undone."""
    moto_account.complete_sagemaker(partial(patch.setattr, raising=False))
