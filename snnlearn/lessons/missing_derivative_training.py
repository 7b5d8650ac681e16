"""Section 5 of tutorial 2: small networks trained under many surrogates at once, as slices of one tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from snnlearn.encoding import latency
from snnlearn.losses import max_over_time
from snnlearn.neurons import lif, readout
from snnlearn.nn import LIF
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import Reset, Unrolled

Array = NDArray[np.float64]


class SideBySide(Surrogate):
    """Several surrogates in one: the features of x, (..., cases, neurons), are split among them case by case.

    Args:
        parts: one surrogate for each equal share of the cases; None for the step's own derivative, which is 0.
    """

    def __init__(self, parts: Sequence[Surrogate | None]):
        object.__setattr__(self, "parts", tuple(parts))

    def slope(self, x: Tensor) -> Tensor:
        """Each part's slope on its share of the cases."""
        shares = zip(self.parts, x.chunk(len(self.parts), -2), strict=True)  # type: ignore[attr-defined]
        return torch.cat([torch.zeros_like(x) if part is None else part.slope(x) for part, x in shares], -2)


class Task(NamedTuple):
    """Latency patterns: spikes (T, samples, inputs) and labels (samples,)."""

    x: Tensor
    y: Tensor


CLASSES, PROTOTYPES, INPUTS, HIDDEN, STEPS = 3, 3, 12, 16, 20


def patterns(seed: int, samples: int = 72) -> Task:
    """Three classes; each has three random latency patterns of 12 inputs, so that no readout of the inputs suffices.

    Every sample is a pattern whose values (0..1) are jittered by 0.08; the larger a value, the earlier its spike.
    """
    draw = torch.Generator().manual_seed(seed)
    prototype = torch.rand(CLASSES * PROTOTYPES, INPUTS, dtype=torch.float64, generator=draw)
    which = torch.arange(samples) % len(prototype)
    jitter = 0.08 * torch.randn(samples, INPUTS, dtype=torch.float64, generator=draw)
    x = (prototype[which] + jitter).clamp(0, 1)
    return Task(latency(x, STEPS, last=1.0, silent=0.0), which % CLASSES)


class Outcome(NamedTuple):
    """After training: training loss and accuracy on new samples, each (parts, seeds)."""

    loss: Array
    accuracy: Array


def train(
    parts: Sequence[Surrogate | None],
    *,
    seeds: int = 3,
    reset: Reset = Reset.KEPT,
    updates: int = 60,
    rate: float = 0.02,
) -> Outcome:
    """Train one small network (12 inputs, 16 LIF, 3 leaky readouts) for each surrogate and seed, all at once.

    Every seed has its own data and initial weights, the same for all surrogates. Half of the samples are for training
    by Adam on the cross-entropy of the largest readout over time.

    Args:
        parts: the surrogates; None for the step's own derivative, so that only the readout learns.
        seeds: how many networks for each.
        reset: what the gradient sees of the reset.
        updates: steps of Adam on the whole training set.
        rate: Adam's learning rate.
    """
    tasks = [patterns(seed) for seed in range(seeds)]
    x = torch.stack([task.x for task in tasks], 2).repeat(1, 1, len(parts), 1)  # (T, samples, cases, inputs)
    y = torch.stack([task.y for task in tasks], 1).repeat(1, len(parts))  # (samples, cases)
    W, V = (w.repeat(len(parts), 1, 1).requires_grad_() for w in _initial_weights(seeds))
    hidden = LIF(lif(tau_mem=10e-3), surrogate=SideBySide(parts), temporal=Unrolled(reset))
    out = LIF(readout(tau_mem=10e-3))

    def losses(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        spikes = hidden(torch.einsum("tbri,rij->tbrj", x, W))
        scores = max_over_time(out(torch.einsum("tbri,rij->tbrj", spikes, V)))
        loss = functional.cross_entropy(scores.movedim(-1, 1), y, reduction="none").mean(0)
        return loss, (scores.argmax(-1) == y).double().mean(0)

    half = len(y) // 2
    adam = torch.optim.Adam([W, V], lr=rate)
    for _ in range(updates):
        adam.zero_grad()
        losses(x[:, :half], y[:half])[0].sum().backward()  # a case's loss depends on its own weights only
        adam.step()
    with torch.no_grad():
        loss, _ = losses(x[:, :half], y[:half])
        _, accuracy = losses(x[:, half:], y[half:])
    return Outcome(*(v.view(len(parts), seeds).numpy() for v in (loss, accuracy)))


def _initial_weights(seeds: int) -> tuple[Tensor, Tensor]:
    """Input and readout weights of each seed, (seeds, INPUTS, HIDDEN) and (seeds, HIDDEN, CLASSES)."""
    W, V = [], []
    for seed in range(seeds):
        draw = torch.Generator().manual_seed(100 + seed)
        W.append((0.5 + torch.randn(INPUTS, HIDDEN, dtype=torch.float64, generator=draw)) / math.sqrt(INPUTS))
        V.append(torch.randn(HIDDEN, CLASSES, dtype=torch.float64, generator=draw) / math.sqrt(HIDDEN))
    return torch.stack(W), torch.stack(V)


def outcome_table(names: Sequence[str], outcome: Outcome) -> str:
    """A line for each surrogate: the loss's mean and range over the seeds, and the mean accuracy on new samples."""
    wide = max(map(len, names))
    lines = [f"{'':{wide}}   training loss: mean (lowest to highest)   accuracy, new samples"]
    for name, loss, right in zip(names, *outcome, strict=True):
        span = f"{loss.mean():.2f}  ({loss.min():.2f} to {loss.max():.2f})"
        lines.append(f"{name:{wide}}   {span:>22} {'':18} {100 * right.mean():3.0f} %")
    return "\n".join(lines)
