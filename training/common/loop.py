"""The training loop: resume a run from its checkpoint, train in rounds, score, save and log."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.common.checkpoint import load_checkpoint, save_checkpoint

GRADIENT_NORM = 1.0  # gradients are clipped to this norm
WARM_UP = 0.08  # share of the run in which the learning rate rises
LOWEST_RATE = 0.002  # learning rate at both ends of the run, over its peak
ROUND_STRIDE = 100_003  # keeps the random draws of a round apart from those of other seeds and rounds


@dataclass
class Progress:
    """How far a run is; saved in its checkpoint.

    best: the best score so far. Higher is better; tuples are compared from the left.
    """

    n_rounds: int = 0
    n_steps: int = 0
    best: tuple[float, ...] = (-math.inf,)


class Training(ABC):
    """One run: its networks, its optimisers, and how far it is."""

    progress: Progress

    def __init__(self, run: Path, progress: Progress, device: torch.device | str = "cpu") -> None:
        self.run, self.progress, self.device = run, progress, torch.device(device)

    @abstractmethod
    def part_done(self) -> float:
        """Return the share of the run that is over, 0..1."""

    @abstractmethod
    def run_round(self) -> dict[str, object]:
        """Train for one round and score; return the fields of its log line."""

    @abstractmethod
    def stateful_parts(self) -> Mapping[str, nn.Module | Optimizer]:
        """Return the networks and optimisers to save, by their names in the checkpoint."""

    def describe_start(self) -> dict[str, object]:
        """Return the fields of a log line before the first round; empty for no line."""
        return {}

    def is_best(self, *score: float) -> bool:
        """Return whether a score is the best yet, and record it if it is."""
        if not score > self.progress.best:  # a score of NaN is not the best
            return False
        self.progress.best = score
        return True

    def save(self) -> None:
        """Write the checkpoint."""
        state = {name: part.state_dict() for name, part in self.stateful_parts().items()}
        save_checkpoint(self.run, {**state, "progress": asdict(self.progress)})

    def resume(self) -> None:
        """Restore the last checkpoint, if there is one."""
        state = load_checkpoint(self.run, self.device)
        if state is None:
            return
        for name, part in self.stateful_parts().items():
            part.load_state_dict(state[name])
        self.progress = type(self.progress)(**state["progress"])


def prepare_run(run: Path, n_threads: int) -> None:
    """Create the folder of a run and limit the threads of PyTorch. OpenCV's would only compete with them.

    Delete what a killed run had not finished writing.
    """
    torch.set_num_threads(n_threads)
    cv2.setNumThreads(1)
    run.mkdir(parents=True, exist_ok=True)
    for partial in run.glob(".*.partial*"):
        partial.unlink()


def run_to_end(training: Training) -> None:
    """Train to the end of the run, from its last checkpoint if there is one."""
    training.resume()
    if training.progress.n_rounds == 0 and (start := training.describe_start()):
        log_line(training.run, {"round": 0, **start})
    while training.part_done() < 1:
        began = time.monotonic()
        fields = training.run_round()
        training.save()
        line = {"round": training.progress.n_rounds, "part_done": round(training.part_done(), 4), **fields}
        log_line(training.run, {**line, "took_s": round(time.monotonic() - began, 1)})


def log_line(run: Path, line: Mapping[str, object]) -> None:
    """Print one line of JSON and append it to the log of a run, log.jsonl."""
    text = json.dumps(line)
    with (run / "log.jsonl").open("a") as file:
        file.write(text + "\n")
    print(text, flush=True)


def round_rng(seed: int, n_rounds: int) -> np.random.Generator:
    """Return the random generator of the round after `n_rounds`, so that a resumed run draws as an unbroken one."""
    return np.random.default_rng((seed, ROUND_STRIDE + n_rounds))


def learning_rate_at(part: float) -> float:
    """Return the learning rate over its peak at a part of the run: a linear rise, then half a cosine down."""
    if part < WARM_UP:
        return LOWEST_RATE + (1 - LOWEST_RATE) * part / WARM_UP
    fall = (part - WARM_UP) / (1 - WARM_UP)
    return LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * fall)) / 2


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def minimise(optimiser: Optimizer, loss: Tensor) -> None:
    """Take one step of an optimiser down the gradient of a loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    clip_and_step(optimiser)


def clip_and_step(optimiser: Optimizer) -> float:
    """Clip the gradients and take a step, unless a gradient is not finite. Return their norm before clipping."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(weights, GRADIENT_NORM)
    if torch.isfinite(norm):
        optimiser.step()
    return norm.item()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, n_steps: int) -> None:
    """Move the moving average of a network's weights towards the network.

    decay: share of the average that stays, less during the first steps. n_steps: steps taken so far.
    """
    share = min(decay, n_steps / (n_steps + 10))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - share)
