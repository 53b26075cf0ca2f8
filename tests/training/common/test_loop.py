from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from training.common.loop import (
    LOWEST_RATE,
    WARM_UP,
    Progress,
    Training,
    learning_rate_at,
    minimise,
    prepare_run,
    round_rng,
    run_to_end,
    update_average,
)


class LineFit(Training):
    """A run that fits y = 2 x, with one step a round."""

    def __init__(self, run: Path, n_rounds: int) -> None:
        super().__init__(run, Progress())
        torch.manual_seed(0)
        self.n_rounds = n_rounds
        self.network = nn.Linear(1, 1)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=0.1)

    def part_done(self) -> float:
        return min(self.progress.n_rounds / self.n_rounds, 1.0)

    def run_round(self) -> dict[str, object]:
        x = torch.from_numpy(round_rng(1, self.progress.n_rounds).random((8, 1)).astype("float32"))
        loss = (self.network(x) - 2 * x).square().mean()
        minimise(self.optimiser, loss)
        self.progress.n_rounds += 1
        return {"loss": loss.item(), "is_best": self.is_best(-loss.item())}

    def stateful_parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"network": self.network, "optimiser": self.optimiser}

    def describe_start(self) -> dict[str, object]:
        return {"n_clips": 0}


def read_log(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for run, lengths in ((whole, [4]), (resumed, [2, 4])):
        prepare_run(run, 1)
        for n_rounds in lengths:
            training = LineFit(run, n_rounds)
            run_to_end(training)
    logs = read_log(whole), read_log(resumed)
    assert [line["round"] for line in logs[0]] == [line["round"] for line in logs[1]] == [0, 1, 2, 3, 4]
    assert [line.get("loss") for line in logs[0]] == [line.get("loss") for line in logs[1]]
    assert logs[0][0] == {"round": 0, "n_clips": 0}
    assert logs[0][-1]["part_done"] == 1


def test_a_finished_run_does_nothing(tmp_path: Path):
    for _ in range(2):
        run_to_end(LineFit(tmp_path, 1))
    assert len(read_log(tmp_path)) == 2


def test_the_best_score_survives_in_the_checkpoint(tmp_path: Path):
    training = LineFit(tmp_path, 1)
    assert training.is_best(-0.5, -0.2)
    assert not training.is_best(-0.5, -0.2)
    assert training.is_best(-0.5, -0.1)
    training.save()
    other = LineFit(tmp_path, 1)
    other.resume()
    assert other.progress == training.progress
    assert not other.is_best(-0.6, 0.0)


def test_the_learning_rate_rises_and_falls():
    assert learning_rate_at(0) == learning_rate_at(1) == LOWEST_RATE
    assert learning_rate_at(WARM_UP) == 1
    assert learning_rate_at(WARM_UP / 2) == pytest.approx((1 + LOWEST_RATE) / 2)
    assert learning_rate_at((1 + WARM_UP) / 2) == pytest.approx((1 + LOWEST_RATE) / 2)


def test_a_gradient_that_is_not_finite_is_skipped():
    network = nn.Linear(1, 1)
    before = network.weight.detach().clone()
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    minimise(optimiser, network(torch.full((1, 1), torch.inf)).sum())
    assert torch.equal(network.weight, before)
    minimise(optimiser, network(torch.full((1, 1), 300.0)).sum())
    assert (network.weight - before).abs().item() <= 1  # the gradient of 300 is clipped


def test_the_average_follows_quickly_at_first():
    average, network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(0)
        network.weight.fill_(1)
    update_average(average, network, 0.9, n_steps=1)
    assert average.weight.item() == pytest.approx(10 / 11)
    with torch.no_grad():
        average.weight.fill_(0)
    update_average(average, network, 0.9, n_steps=1000)
    assert average.weight.item() == pytest.approx(0.1)
