"""Networks run by torch on a GPU as one recorded graph: one launch where eager torch makes hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from inference.backends.device import Device
from inference.backends.torch_network import DTYPES

Array = npt.NDArray[Any]
BATCHES = (1, 2, 4, 8)  # sizes that a graph is recorded for; what lies between is filled up
WARM_UPS = 3  # passes before recording, as torch asks for: cuDNN chooses its kernels in them


@dataclass(frozen=True)
class Recorded:
    """A graph, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class CudaGraphNetwork:
    """A module of one output ready to run on a GPU: call it with one array per input, get the output in a list.

    Not for several callers at once; see `SharedNetwork`.
    """

    def __init__(self, module: nn.Module, device: Device, examples: tuple[Tensor, ...]) -> None:
        """examples: one of each input, (1, ...), in the types that inputs will come in."""
        self._device = torch.device(device.name)
        dtype = DTYPES[device.precision]
        module = module.eval().to(self._device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            self._recorded = {size: self._record(module, examples, size) for size in BATCHES}

    def _record(self, module: nn.Module, examples: tuple[Tensor, ...], size: int) -> Recorded:
        inputs = tuple(one.expand(size, *one.shape[1:]).to(self._device).contiguous() for one in examples)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                module(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = module(*inputs)
        return Recorded(graph, inputs, output)

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """inputs: (n, ...) each, n of 8 at most."""
        n = len(inputs[0])
        one = self._recorded[next(size for size in BATCHES if size >= n)]
        with torch.inference_mode():
            for held, given in zip(one.inputs, inputs, strict=True):
                held[:n].copy_(torch.from_numpy(np.ascontiguousarray(given)))
            one.graph.replay()
            return [one.output[:n].cpu().numpy()]
