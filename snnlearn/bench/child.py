"""A process of its own, for one measurement of memory: ``python -m snnlearn.bench.child JOB`` writes bytes.

A job is a JSON object. ``{"what": "step", "contender": "naive", "T": .., "B": .., "N": ..}`` is a whole step of
learning by one of `STEPS`; ``{"what": "rule", "name": "eligibility", "T": ..}`` the gradient of a sequence by one of
`RULES`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from snnlearn.bench.contenders import Contender, StepProblem, event_step, fused_step, naive_step, uniform
from snnlearn.bench.memory import growth
from snnlearn.losses import OverTime, cross_entropy
from snnlearn.network import Layer, Network
from snnlearn.neurons import lif, readout
from snnlearn.rule import Rule
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Backward, Eligibility, Forward, Unrolled

STEPS: dict[str, Callable[[StepProblem], Contender]] = {
    "naive": naive_step,
    "fused": fused_step,
    "exact": event_step,
    "sparse": event_step,
}
RULES: dict[str, Backward | Forward] = {"eligibility": Eligibility(), "bptt": Unrolled()}


def step(contender: str, T: int, B: int, N: int) -> int:
    """Bytes of a whole step of learning, beyond inputs and weights."""
    problem = StepProblem.make(T, B, N, torch.device("cpu"), sparse=contender == "sparse")
    small = replace(problem, x=problem.x[:60, :2].contiguous(), y=problem.y[:2], packed=[])
    STEPS[contender](small).step()  # what is loaded and set up by a first use is not the step's
    ready = STEPS[contender](problem)
    return growth(ready.step)


def rule(name: str, T: int, B: int = 8, N: int = 128) -> int:
    """Bytes of the gradient of a sequence of T steps, beyond the sequence and the weights."""
    generator = torch.Generator().manual_seed(0)
    net = Network(Layer(nn.Linear(64, N), lif()), Layer(nn.Linear(N, 10), readout()))
    x = (uniform(generator, T, B, 64) < 0.1).float()
    y = torch.randint(10, (B,), generator=generator)
    loss = OverTime(cross_entropy, mean=True)
    way = Rule(FastSigmoid(), RULES[name])
    way.gradients(net, x[:20], y, loss)

    def gradient() -> dict[str, Tensor]:
        return way.gradients(net, x, y, loss)[1]

    return growth(gradient)


def work(job: dict[str, Any]) -> int:
    """Do a job; returns bytes."""
    arguments = dict(job)
    return step(**arguments) if arguments.pop("what") == "step" else rule(**arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(work(json.loads(sys.argv[1])))
