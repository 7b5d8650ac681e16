"""Tutorial 08's training: temporal XOR with first spikes, exactly and on a time grid, many seeds at once.

The networks of all seeds lie side by side in one, whose second layer is block-diagonal: they share nothing, and each
does what it would do alone. Times are in seconds, as the library wants them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from snnlearn.events import Events
from snnlearn.firstspike import FirstSpike, FirstSpikeCrossEntropy, silence_cost
from snnlearn.lessons.spike_times_numbers import first_spike_steps
from snnlearn.network import Layer, Network
from snnlearn.neurons import Neuron
from snnlearn.rule import Rule
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Adjoint, Reset

EARLY, LATE = 0.0, 10e-3
TAU_SYN, HORIZON, SOFTNESS = 5e-3, 30e-3, 2e-3
HIDDEN, CLASSES = 4, 2
LEVEL = 1.5  # summed weight that a silent neuron is asked for; 1 is the threshold

PATTERNS = torch.tensor([[EARLY, EARLY], [EARLY, LATE], [LATE, EARLY], [LATE, LATE]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0])  # 1: one early and one late
NAMES = ("early, early", "early, late", "late, early", "late, late")


def start(seed: int, mean: float = 1.0, std: float = 0.5) -> tuple[Tensor, Tensor]:
    """Weights (4, 2) and (2, 4), drawn from N(mean, std**2) by a generator of their own."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((HIDDEN, 2), (CLASSES, HIDDEN))
    first, second = (mean + std * torch.randn(shape, dtype=torch.float64, generator=draw) for shape in shapes)
    return first, second


class History(NamedTuple):
    """Training of several networks, recorded every few steps. With K records and S seeds:"""

    steps: np.ndarray  # (K,)
    first: np.ndarray  # (K, S, 4, 2), weights
    second: np.ndarray  # (K, S, 2, 4)
    loss: np.ndarray  # (K, S), cross-entropy, without the cost of silence
    solved: np.ndarray  # (K, S), whether for all patterns the right output fires alone or first
    silent: np.ndarray  # (K, S), share of hidden neurons that fire for no pattern


def answers(out: Tensor) -> Tensor:
    """Which output fires first, -1 for a tie or no spike; times (..., 2) to (...)."""
    a, b = out.unbind(-1)
    near = 1e-9  # s; on a grid a tie is a tie in spite of rounding
    return torch.where(a < b - near, 0, torch.where(b < a - near, 1, -1))


Forward = Callable[[], tuple[Tensor, Tensor, Tensor]]


def _train(
    layers: tuple[nn.Linear, nn.Linear], forward: Forward, seeds: int, steps: int, rate: float, wake: float, mean: float
) -> History:
    """Adam on what `forward` returns: hidden and output spike times (inf for silence), and scores; (4, ...)."""
    first, second = layers
    begin = [start(seed, mean) for seed in range(seeds)]
    with torch.no_grad():
        first.weight.copy_(torch.cat([W for W, _ in begin]))
        second.weight.copy_(torch.block_diag(*(V for _, V in begin)))
    blocks = torch.block_diag(*torch.ones(seeds, CLASSES, HIDDEN, dtype=torch.float64))
    optimizer = torch.optim.Adam([first.weight, second.weight], lr=rate)
    labels = LABELS[:, None].expand(4, seeds)
    records = []
    for step in range(steps + 1):
        hidden, out, scores = forward()
        losses = nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
        losses = losses.view(4, seeds).mean(0)
        if step % 4 == 0 or step == steps:
            W = first.weight.detach().view(seeds, HIDDEN, 2).clone()
            places = torch.arange(seeds)
            V = second.weight.detach().view(seeds, CLASSES, seeds, HIDDEN)[places, :, places].clone()
            solved = (answers(out.view(4, seeds, CLASSES)) == labels).all(0)
            silent = hidden.isinf().all(0).view(seeds, HIDDEN).double().mean(1)
            records.append((torch.tensor(step), W, V, losses.detach(), solved, silent))
        total = losses.sum()
        if wake:
            total = total + wake * silence_cost(first, PATTERNS, hidden, LEVEL)
            total = total + wake * silence_cost(second, hidden, out, LEVEL)
        optimizer.zero_grad()
        total.backward()
        second.weight.grad.mul_(blocks)  # type: ignore[union-attr]
        optimizer.step()
    return History(*(torch.stack(part).numpy() for part in zip(*records, strict=True)))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    synapse: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, dtype=torch.float64)
    return synapse


def train_exactly(
    seeds: int = 20, steps: int = 200, *, rate: float = 0.05, wake: float = 1.0, mean: float = 1.0
) -> History:
    """`FirstSpike` layers, the exact gradient of the spike times.

    Args:
        seeds: networks, whose weights are `start` (0), (1), ...
        steps, rate: of Adam; every step sees all four patterns.
        wake: factor on `silence_cost`, 0 for none.
        mean: of the weights at the start.
    """
    first, second = _linear(2, HIDDEN * seeds), _linear(HIDDEN * seeds, CLASSES * seeds)
    lower, upper = FirstSpike(first, tau_syn=TAU_SYN), FirstSpike(second, tau_syn=TAU_SYN)
    loss = FirstSpikeCrossEntropy(HORIZON, SOFTNESS)

    def forward() -> tuple[Tensor, Tensor, Tensor]:
        hidden = lower(PATTERNS)
        out = upper(hidden)
        scores = loss.scores(Events.from_times(out.view(-1, CLASSES)))
        return hidden, out, scores.view(4, seeds, CLASSES)

    return _train((first, second), forward, seeds, steps, rate, wake, mean)


def _grid(first: nn.Linear, second: nn.Linear, dt: float) -> tuple[Network, Tensor]:
    """The neurons of Eq. 18 on a grid of dt (seconds), reset by subtraction, and the patterns (T, 4, 2)."""
    neuron = Neuron(math.exp(-dt / TAU_SYN))  # beta = 1: no leak
    net = Network(*(Layer(synapse, neuron, gain=1 - math.exp(-dt / TAU_SYN)) for synapse in (first, second)))
    steps = (PATTERNS / dt).round().long()
    return net, nn.functional.one_hot(steps, round(HORIZON / dt)).permute(2, 0, 1).double()


def grid_objective(first: nn.Linear, second: nn.Linear, dt: float) -> Tensor:
    """The summed output spike times of one network on a grid, with the graph of a surrogate gradient."""
    net, x = _grid(first, second, dt)
    return dt * first_spike_steps(net(x, Rule(FastSigmoid(width=0.1), Adjoint(Reset.KEPT)))[-1].s).sum()


def train_on_grid(
    seeds: int = 20,
    steps: int = 200,
    *,
    width: float = 0.1,
    dt: float = 1e-3,
    rate: float = 0.05,
    wake: float = 1.0,
    mean: float = 1.0,
) -> History:
    """The same neurons on a time grid, the same loss on the step of the first spike, a surrogate gradient (reset kept).

    A neuron here may fire again, after its reset by subtraction.

    Args:
        width: of the fast sigmoid.
        dt: step, seconds.
        seeds, steps, rate, wake, mean: as `train_exactly`.
    """
    first, second = _linear(2, HIDDEN * seeds), _linear(HIDDEN * seeds, CLASSES * seeds)
    net, x = _grid(first, second, dt)
    rule = Rule(FastSigmoid(width=width), Adjoint(Reset.KEPT))

    def forward() -> tuple[Tensor, Tensor, Tensor]:
        hidden, out = net(x, rule)
        scores = -dt * first_spike_steps(out.s).view(4, seeds, CLASSES) / SOFTNESS
        lower, upper = (
            torch.where(layer.s.any(0), dt * first_spike_steps(layer.s.detach()), math.inf) for layer in (hidden, out)
        )
        return lower, upper, scores

    return _train((first, second), forward, seeds, steps, rate, wake, mean)


class Responses(NamedTuple):
    """Spike times of a trained network for the four patterns, seconds, inf for silence."""

    hidden: np.ndarray  # (4, 4)
    out: np.ndarray  # (4, 2)


@torch.no_grad()
def respond(W: np.ndarray, V: np.ndarray) -> Responses:
    """First spikes of the network with weights W (4, 2) and V (2, 4)."""
    lower, upper = (FirstSpike(_linear(w.shape[1], w.shape[0]), tau_syn=TAU_SYN) for w in (W, V))
    lower.synapse.weight.copy_(torch.from_numpy(W))
    upper.synapse.weight.copy_(torch.from_numpy(V))
    hidden = lower(PATTERNS)
    return Responses(hidden.numpy(), upper(hidden).numpy())
