"""LipCoordNet in stages, so that windows that share frames share the work on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from inference.backends import Device, GraphRecipe, OpenVinoNetwork
from inference.backends.batching import BatchingNetwork
from inference.backends.lazy_network import LazyNetwork
from inference.dimensions.lip_coord_net import CONV_WIDTHS

if TYPE_CHECKING:
    import openvino as ov

    from inference.backends.graphs.lip_coord_net_stages import StageGraphs
    from inference.models import LipCoordNet

Array = npt.NDArray[Any]
Network = Callable[..., Sequence[Array]]


@dataclass(frozen=True)
class StagedNetwork:
    """LipCoordNet: called with video (B, 3, T, 64, 128) and lips (B, T, 20, 2) it returns [logits (B, T, 28)].

    convolutions: (B, C, T, H, W) -> (B, C', T, H', W') each, with zeros before the first frame and after the last; the
    last one gives features, (B, T, 3072). project: features -> what the recurrent layers take of them, (B, T, P).
    recur: that and lips -> logits. hold: (B, 3, T, 64, 128) -> about the features, (B, T, 3072), of a video that shows
    one of the frames throughout. whole: all stages in one call, if that is faster.
    """

    convolutions: tuple[Network, ...]
    project: Network
    recur: Network
    hold: Network
    whole: Network | None = None

    def with_batching(self, max_rows: int) -> StagedNetwork:
        """Return the same network for several threads, whose inputs are batched. max_rows: of one batch."""
        return StagedNetwork(
            tuple(BatchingNetwork(stage, max_rows) for stage in self.convolutions),
            BatchingNetwork(self.project, max_rows),
            BatchingNetwork(self.recur, max_rows),
            BatchingNetwork(self.hold, max_rows),
            self.whole and BatchingNetwork(self.whole, max_rows),
        )

    def __call__(self, video: Array, lips: Array) -> Sequence[Array]:
        if self.whole is not None:
            return self.whole(video, lips)
        x = video
        for stage in (*self.convolutions, self.project):
            (x,) = stage(x)
        return self.recur(x, lips)


def stage_torch(module: LipCoordNet, device: Device) -> StagedNetwork:
    """Run the stages by torch, which multiplies the first GRU's input within its recurrence."""
    from inference.backends.torch_network import TorchNetwork
    from inference.models.lip_coord_net import ConvolutionStage, HeldFrameStage, RecurrenceStage

    convolutions = (TorchNetwork(ConvolutionStage(module, i), device) for i in range(len(module.convolutions)))
    return StagedNetwork(
        tuple(convolutions),
        lambda features: [features],
        TorchNetwork(RecurrenceStage(module), device),
        TorchNetwork(HeldFrameStage(module), device),
        TorchNetwork(module, device),
    )


def stage_openvino(
    build: Callable[[], ov.Model], key: str, precision: str, n_threads: int, compiled: Path | None = None
) -> StagedNetwork:
    """Compile the stages of a graph.

    In bf16 and int8 only the convolutions are: they take most of the time, while the GRUs accumulate every error. The
    recurrence has one thread: its products are small, and a second one would mostly wait.

    build: builds the graph, and is not called if all stages were compiled before. key: a hash of what it builds.
    compiled: folder of compiled networks.
    """

    @cache
    def split() -> StageGraphs:
        from inference.backends.graphs.lip_coord_net_stages import split_stages  # a compiled network needs no graph

        return split_stages(build())

    def compile_stage(
        name: str, choose: Callable[[StageGraphs], ov.Model], hint: str, threads: int, *, is_rare: bool = False
    ) -> Network:
        recipe = GraphRecipe(f"{key}-{hint}-{name}", lambda: choose(split()))
        if is_rare and recipe.is_stored(compiled):
            return LazyNetwork(lambda: OpenVinoNetwork(recipe, hint, threads, compiled))
        return OpenVinoNetwork(recipe, hint, threads, compiled)

    def compile_convolution(i: int) -> Network:
        return compile_stage(f"convolution{i}", lambda graphs: graphs.convolutions[i], precision, n_threads)

    return StagedNetwork(
        tuple(compile_convolution(i) for i in range(len(CONV_WIDTHS))),
        compile_stage("projection", lambda graphs: graphs.projection, "f32", n_threads),
        compile_stage("recurrence", lambda graphs: graphs.recurrence, "f32", 1),
        compile_stage("held", lambda graphs: graphs.held, precision, n_threads, is_rare=True),  # for long videos only
    )
