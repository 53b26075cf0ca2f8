"""Networks run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.backends.device import Device

Array = npt.NDArray[Any]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class TorchNetwork:
    """A module ready to run: call it with one float array per input, get one float32 array per output."""

    def __init__(self, module: nn.Module, device: Device) -> None:
        self._device = torch.device(device.name)
        self._dtype = DTYPES[device.precision]
        # Convolutions are a fifth faster with the channels last in memory.
        is_3d = any(weights.dim() == 5 for weights in module.parameters())
        memory_format = torch.channels_last_3d if is_3d else torch.channels_last
        self._module = module.eval().to(self._device).to(memory_format=memory_format)  # type: ignore[call-overload]

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        tensors = [torch.from_numpy(np.ascontiguousarray(x)).to(self._device) for x in inputs]
        autocast = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        # Full float32 on a GPU: cuDNN would keep ten of the fraction's 23 bits (TF32).
        full_f32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), autocast, full_f32:
            outputs = self._module(*tensors)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        return [x.float().cpu().numpy() for x in outputs]
