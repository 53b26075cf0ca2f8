from __future__ import annotations

import pytest
import torch

from training.common import mixed_precision as module
from training.common.mixed_precision import mixed_precision


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_used_if_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, dtype):
    monkeypatch.setattr(module, "has_bfloat16", lambda _: has_bfloat16)
    with mixed_precision():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("machine", "instructions", "expected"),
    [("x86_64", True, True), ("x86_64", False, False), ("aarch64", False, True)],
)
def test_an_x86_processor_that_emulates_bfloat16_does_not_use_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, instructions: bool, expected: bool
):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    monkeypatch.setattr(module, "has_bfloat16_instructions", lambda: instructions)
    assert module.has_bfloat16("cpu") is expected
    assert module.has_bfloat16("cuda")
