"""What is compared: the same problem, solved by the naive loop and by this library.

A contender's ``step`` is one forward and one backward pass, of the public modules, their checks included. Its result is
compared with the baseline's before it is timed: `agree`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnlearn.bench.naive import leaky_loop, lif_loop
from snnlearn.eventlayers import LinearLIF
from snnlearn.eventrecurrent import RecurrentLIF
from snnlearn.neurons import lif, readout
from snnlearn.nn import LIF
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Adjoint

NEURON = lif(tau_mem=20e-3, dt=1e-3)
BETA = float(NEURON.beta)
STEEPNESS = 10.0
NARROW = 100.0
"""Steepness of the surrogate behind a sparse gradient, which is sound for narrow ones only."""

INPUTS, CLASSES = 700, 20
RATE = 0.025
"""Share of steps at which a hidden neuron fires."""
GRID = 2.0**-6
"""Weights are multiples of this: the sums over spikes are then exact, in whatever order they are added."""


class Outcome(NamedTuple):
    """What a step has computed."""

    spikes: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]


@dataclass(frozen=True)
class Contender:
    """A way of doing it.

    Args:
        name: shown in the results.
        step: one forward and backward pass.
        read: what ``step`` returns, as an `Outcome`; is not timed.
        note: what there is to say of it, asked for after the last step.
    """

    name: str
    step: Callable[[], Any]
    read: Callable[[Any], Outcome] = lambda found: Outcome(*found)
    note: Callable[[], str] = lambda: ""

    def outcome(self) -> Outcome:
        """Of one step."""
        return self.read(self.step())


class Disagreement(Exception):
    """A contender that computes something else than the baseline. Its speed means nothing."""


def agree(name: str, found: Outcome, wanted: Outcome, tolerance: float = 1e-4) -> None:
    """Refuse a contender whose spikes differ from the baseline's, or its gradients by more than rounding.

    Args:
        name: of the contender.
        found, wanted: its outcome and the baseline's.
        tolerance: of the norm of the difference, relative to the norm of the gradient.

    Raises:
        Disagreement: says where.
    """
    if not any(bool(s.any()) for s in wanted.spikes) or not all(bool(g.any()) for g in wanted.gradients):
        raise Disagreement("the baseline has no spike or no gradient, so there is nothing to compare")
    for what, ours, theirs in (
        ("spikes", found.spikes, wanted.spikes),
        ("gradients", found.gradients, wanted.gradients),
    ):
        if [x.shape for x in ours] != [x.shape for x in theirs]:
            shapes = [[tuple(x.shape) for x in side] for side in (ours, theirs)]
            raise Disagreement(f"{name} has {what} of other shapes than the baseline: {shapes[0]}, {shapes[1]}")
    for i, (s, t) in enumerate(zip(found.spikes, wanted.spikes, strict=True)):
        if not torch.equal(s, t):
            raise Disagreement(f"{name} fires otherwise than the baseline at {int((s != t).sum())} places of layer {i}")
    for i, (g, h) in enumerate(zip(found.gradients, wanted.gradients, strict=True)):
        error = float((g - h).norm() / h.norm())
        if not error <= tolerance:
            raise Disagreement(f"gradient {i} of {name} is {error:.1e} of its norm away from the baseline's")


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers in [0, 1)."""
    return torch.rand(*shape, generator=generator)


def on_grid(x: Tensor, step: float = GRID) -> Tensor:
    """The nearest multiples of a step."""
    return (x / step).round() * step


# One layer: currents in, spikes out.


@dataclass(frozen=True)
class LayerProblem:
    """Currents a and the error e of the spikes, both (T, B, N); recurrent weights V (N, N), or None."""

    a: Tensor
    e: Tensor
    V: Tensor | None = None

    @classmethod
    def make(
        cls,
        T: int,
        B: int,
        N: int,
        device: torch.device,
        *,
        recurrent: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> LayerProblem:
        """Drawn from a fixed seed; some percent of all steps are spikes."""
        generator = torch.Generator().manual_seed(0)
        a, e = (torch.randn(T, B, N, generator=generator) for _ in range(2))
        a, V = 0.3 * a + 0.03, None
        if recurrent:  # the currents too, since what arrives from other neurons is added to them
            a = on_grid(a)
            V = on_grid(torch.randn(N, N, generator=generator) * 0.5 / math.sqrt(N), GRID / 4)
            V = V.to(device, dtype).requires_grad_()
        return cls(a.to(device, dtype).requires_grad_(), e.to(device, dtype), V)

    @property
    def wanted(self) -> tuple[Tensor, ...]:
        """What the gradient is taken of."""
        return (self.a,) if self.V is None else (self.a, self.V)

    def differentiate(self, s: Tensor) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
        """Spikes and gradients, for the spikes s of a forward pass."""
        return (s.detach(),), torch.autograd.grad(s, self.wanted, self.e)


def naive_layer(problem: LayerProblem) -> Contender:
    """The loop."""
    return Contender("naive", lambda: problem.differentiate(lif_loop(problem.a, BETA, STEEPNESS, V=problem.V)))


def our_layer(problem: LayerProblem) -> Contender:
    """`snnlearn.nn.LIF` with the adjoint."""
    recurrent = None
    if problem.V is not None:
        recurrent = nn.Linear(problem.V.shape[1], problem.V.shape[0], bias=False, device="meta")
        recurrent.weight = nn.Parameter(problem.V.detach())
    layer = LIF(NEURON, temporal=Adjoint(), surrogate=FastSigmoid.from_steepness(STEEPNESS), recurrent=recurrent)
    wanted = (problem.a, *layer.parameters())

    def step() -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
        s = layer(problem.a)
        return (s.detach(),), torch.autograd.grad(s, wanted, problem.e)

    return Contender("ours" if problem.V is None else "LIF(recurrent=)", step)


def our_recurrent(problem: LayerProblem) -> Contender:
    """`snnlearn.eventrecurrent.RecurrentLIF`, whose spikes come out as bits, as the next layer takes them."""
    assert problem.V is not None
    surrogate = FastSigmoid.from_steepness(STEEPNESS)
    layer = RecurrentLIF(len(problem.V), NEURON, surrogate=surrogate, temporal=Adjoint()).to(problem.V)
    with torch.no_grad():
        layer.weight.copy_(problem.V)

    def step() -> tuple[Spikes, tuple[Tensor, ...]]:
        s = layer(problem.a)
        assert s.carrier is not None
        return s, torch.autograd.grad(s.carrier, (problem.a, layer.weight), problem.e)

    return Contender("ours", step, lambda found: Outcome((found[0].dense(problem.a.dtype),), found[1]))


# A whole step of learning: 700 inputs, two hidden layers, a readout of 20.


@dataclass(frozen=True)
class StepProblem:
    """Input spikes x (T, B, 700), labels y (B,), weights of three layers, each (outputs, inputs)."""

    x: Tensor
    y: Tensor
    weights: tuple[Tensor, ...]
    steepness: float = STEEPNESS
    within: float = math.inf
    packed: list = field(default_factory=list, compare=False)  # the input as `Spikes`, made when first asked for

    @classmethod
    def make(
        cls, T: int, B: int, N: int, device: torch.device, *, density: float = 0.02, sparse: bool = False
    ) -> StepProblem:
        """Drawn from a fixed seed; the weights are scaled so that hidden neurons fire at `RATE`.

        Args:
            T, B, N: steps, samples, hidden neurons of each layer.
            device: where.
            density: share of inputs that are spikes.
            sparse: a narrow surrogate, cut off where only some 2 % of the hidden neurons are near enough.
        """
        generator = torch.Generator().manual_seed(0)
        x = (uniform(generator, T, B, INPUTS) < density).float()
        y = torch.randint(CLASSES, (B,), generator=generator)
        below, weights, near = x[: min(T, 200), : min(B, 8)], [], []
        for outputs in (N, N):
            W, below, distance = _scaled(torch.randn(outputs, below.shape[-1], generator=generator), below)
            weights.append(W)
            near.append(distance)
        weights.append(on_grid(torch.randn(CLASSES, N, generator=generator) * 0.1))
        within = round(float(torch.cat(near).quantile(0.02)), 4) if sparse else math.inf
        return cls(
            x.to(device),
            y.to(device),
            tuple(W.to(device).requires_grad_() for W in weights),
            NARROW if sparse else STEEPNESS,
            within,
        )

    @property
    def surrogate(self) -> Surrogate:
        """The fast sigmoid, cut off where the problem says so."""
        inner = FastSigmoid.from_steepness(self.steepness)
        return inner if self.within == math.inf else Near(inner, within=self.within)

    def differentiate(
        self, hidden: Sequence[Any], out: Tensor, weights: Sequence[Tensor] | None = None
    ) -> tuple[tuple, tuple[Tensor, ...]]:
        """Hidden spikes and the gradients of all weights; the loss is the cross-entropy of the outputs' means."""
        loss = functional.cross_entropy(out.mean(0), self.y)
        return tuple(hidden), torch.autograd.grad(loss, list(self.weights if weights is None else weights))


def _scaled(W: Tensor, below: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights on the grid at which the layer fires at `RATE`, its spikes, and a sample of |U - theta|."""
    low, high = 0.01, 10.0
    for _ in range(12):
        scale = math.sqrt(low * high)
        s = lif_loop(functional.linear(below, on_grid(scale * W)), BETA, STEEPNESS)
        low, high = (scale, high) if float(s.mean()) < RATE else (low, scale)
    W = on_grid(scale * W)
    trace = NEURON.simulate(functional.linear(below, W))
    distance = (trace.U - NEURON.theta).abs().flatten()
    return W, trace.s, distance[:: max(1, len(distance) // 100_000)]


def naive_step(problem: StepProblem, *, within: float | None = None, name: str = "naive") -> Contender:
    """Matrix products and loops. The slope is whole, whatever the problem says, or 0 beyond ``within``."""
    limit = math.inf if within is None else within

    def step() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        s, hidden = problem.x, []
        for W in problem.weights[:-1]:
            s = lif_loop(functional.linear(s, W), BETA, problem.steepness, within=limit)
            hidden.append(s)
        return problem.differentiate(hidden, leaky_loop(functional.linear(s, problem.weights[-1]), BETA))

    return Contender(name, step)


def fused_step(problem: StepProblem) -> Contender:
    """`nn.Linear` and `snnlearn.nn.LIF`: fused neurons behind dense matrix products."""
    neurons = [NEURON] * (len(problem.weights) - 1) + [readout(tau_mem=20e-3, dt=1e-3)]
    layers = [LIF(neuron, temporal=Adjoint(), surrogate=problem.surrogate) for neuron in neurons]

    def step() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        s, outputs = problem.x, []
        for W, layer in zip(problem.weights, layers, strict=True):
            s = layer(functional.linear(s, W))
            outputs.append(s)
        return problem.differentiate(outputs[:-1], outputs[-1])

    return Contender("fused", step)


def event_step(problem: StepProblem, name: str = "events") -> Contender:
    """A stack of `LinearLIF`, which packs its spikes as bits; the input comes packed."""
    neurons = [NEURON] * (len(problem.weights) - 1) + [readout(tau_mem=20e-3, dt=1e-3)]
    layers = []
    for W, neuron in zip(problem.weights, neurons, strict=True):
        layer = LinearLIF(
            W.shape[1], W.shape[0], neuron, surrogate=problem.surrogate, temporal=Adjoint(), bias=False
        ).to(W.device)
        with torch.no_grad():
            layer.weight.copy_(W)
        layers.append(layer)
    weights = [layer.weight for layer in layers]
    if not problem.packed:
        problem.packed.append(Spikes.pack(problem.x))

    def step() -> tuple[tuple, tuple[Tensor, ...]]:
        s, outputs = problem.packed[0], []
        for layer in layers:
            s = layer(s)
            outputs.append(s)
        return problem.differentiate(outputs[:-1], outputs[-1], weights)

    def note() -> str:
        reports = [layer.report for layer in layers if layer.report is not None]
        return "paths " + ", ".join(r.path.name.lower() for r in reports)

    return Contender(name, step, lambda found: Outcome(tuple(s.dense() for s in found[0]), found[1]), note)
