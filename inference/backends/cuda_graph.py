"""Networks run by torch on a GPU as one recorded CUDA graph: one launch instead of hundreds in eager mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from inference.backends.device import Device
from inference.backends.torch_network import DTYPES, with_channels_last

Array = npt.NDArray[Any]
BATCH_SIZES = (1, 2, 4, 8)  # batch sizes with a recorded graph; others are padded to the next
N_WARM_UPS = 3  # passes before recording, as torch requires: cuDNN chooses its kernels in them


@dataclass(frozen=True)
class RecordedGraph:
    """A graph and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class CudaGraphNetwork:
    """A module ready to run on a GPU: call it with one array per input, get one array per output.

    Not for several callers at once; see `BatchingNetwork`.
    """

    def __init__(
        self,
        module: nn.Module,
        device: Device,
        examples: tuple[Tensor, ...],
        batch_sizes: Sequence[int] = BATCH_SIZES,
    ) -> None:
        """Record a graph for each batch size.

        examples: one of each input, (1, ...), in the dtypes of later inputs. batch_sizes: in ascending order.
        """
        self._device = torch.device(device.name)
        dtype = DTYPES[device.precision]
        module = with_channels_last(module.eval().to(self._device, dtype))
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            self._recorded = {size: self._record(module, examples, size) for size in batch_sizes}

    def _record(self, module: nn.Module, examples: tuple[Tensor, ...], size: int) -> RecordedGraph:
        inputs = tuple(one.expand(size, *one.shape[1:]).to(self._device).contiguous() for one in examples)
        side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(N_WARM_UPS):
                module(*inputs)
        torch.cuda.current_stream().wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = module(*inputs)
        return RecordedGraph(graph, inputs, (outputs,) if isinstance(outputs, Tensor) else tuple(outputs))

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """Run the network. inputs: (n, ...) each, with n at most the largest batch size. Returns: (n, ...) arrays."""
        n = len(inputs[0])
        recorded = next(one for size, one in self._recorded.items() if size >= n)
        with torch.inference_mode():
            for tensor, array in zip(recorded.inputs, inputs, strict=True):
                tensor[:n].copy_(torch.from_numpy(np.ascontiguousarray(array)))
            recorded.graph.replay()
            return [output[:n].cpu().numpy() for output in recorded.outputs]
