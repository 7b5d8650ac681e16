"""The computations of "The derivative that is not there": no pictures, only numbers.

Much is made so that many cases cost little more than one: all weights of a sweep run side by side; the deep
network's spikes do not depend on the surrogate, so only the backward recursion is run again; the small networks are
trained as slices of one tensor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnlearn import surrogate as surrogates
from snnlearn.encoding import poisson
from snnlearn.lessons.missing_derivative_training import outcome_table as outcome_table
from snnlearn.lessons.missing_derivative_training import train as train
from snnlearn.neurons import lif
from snnlearn.surrogate import FastSigmoid, StraightThrough, Surrogate

Array = NDArray[np.float64]

# One neuron, one weight (sections 1 and 3).


@dataclass(frozen=True, eq=False)
class Problem:
    """A LIF neuron with one weight, w, that should fire as a target spike train says.

    Args:
        x: input spikes 0 or 1, (T,).
        target: spikes wanted, (T,).
        beta: decay of the membrane over a step of 1 ms.
        gamma: decay of the trace by which spike trains are compared.
        theta: threshold, in units of the membrane.
    """

    x: Tensor
    target: Tensor
    beta: float = math.exp(-1 / 20)
    gamma: float = math.exp(-1 / 10)
    theta: float = 1.0


class Sweep(NamedTuple):
    """What comes of each of W weights: loss and gradient (W,), membranes and outputs (T, W)."""

    loss: Tensor
    gradient: Tensor
    U: Tensor
    s: Tensor


def sweep(problem: Problem, w: Tensor, surrogate: Surrogate, *, smooth: bool = False) -> Sweep:
    """Loss and gradient for every weight of w at once, forward in time; nothing is left to autograd.

    The loss is that of van Rossum, L = 1/2 sum_n r[n]**2 with r[n] = gamma r[n-1] + s[n] - target[n]. Beside each
    variable runs its derivative by w, in which the slope stands for the derivative of the firing.

    Args:
        problem: the neuron, its input and its target.
        w: weights, (W,).
        surrogate: its slope is the derivative of the firing in the gradient.
        smooth: fire by the surrogate's primitive instead of the step; then the gradient is the loss's own.
    """
    U = s = r = torch.zeros_like(w)
    dU = ds = dr = loss = gradient = U
    Us, ss = [], []
    for x, target in zip(problem.x.tolist(), problem.target.tolist(), strict=True):
        U = problem.beta * U - problem.theta * s + w * x  # Eq. 8, the reset kept
        dU = problem.beta * dU - problem.theta * ds + x
        above = U - problem.theta
        s = surrogate.primitive(above) if smooth else (above >= 0).to(w.dtype)
        ds = surrogate.slope(above) * dU
        r = problem.gamma * r + s - target
        dr = problem.gamma * dr + ds
        loss = loss + 0.5 * r * r
        gradient = gradient + r * dr
        Us.append(U)
        ss.append(s)
    return Sweep(loss, gradient, torch.stack(Us), torch.stack(ss))


@functools.cache
def problem() -> Problem:
    """The problem of sections 1 and 3: 40 ms of input, and as target what the neuron does at w = 0.6."""
    draw = torch.Generator().manual_seed(0)
    x = (torch.rand(40, dtype=torch.float64, generator=draw) < 0.25).double()
    silent = Problem(x, torch.zeros_like(x))
    made = sweep(silent, torch.tensor([0.6], dtype=torch.float64), FastSigmoid())
    return Problem(x, made.s[:, 0])


WEIGHTS = torch.linspace(0.2, 1.2, 401, dtype=torch.float64)
"""The weights that are swept."""


def downhill(w: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """What the true loss does first when w is moved against the gradient: -1 it falls, 1 it rises, 0 neither.

    Args:
        w: increasing weights, (W,).
        loss: the staircase at these weights.
        gradient: what is followed.

    Returns:
        (W,); 0 also where the gradient is zero or the loss stays as it is up to the end of the range.
    """
    count = len(w)
    index = torch.arange(count)
    new = torch.cat([torch.tensor([True]), loss[1:] != loss[:-1]])
    start = torch.where(new, index, 0).cummax(0).values  # first weight of the stair on which each lies
    last = torch.cat([new[1:], torch.tensor([True])])
    end = torch.where(last, index, count).flip(0).cummin(0).values.flip(0)
    goal = torch.where(gradient > 0, start - 1, end + 1)
    inside = (goal >= 0) & (goal < count) & (gradient != 0)
    return torch.where(inside, (loss[goal.clamp(0, count - 1)] - loss).sign(), torch.zeros_like(loss))


def edge(task: Problem, low: float, high: float) -> float:
    """The weight between two at which the true loss jumps, by bisection down to neighbouring numbers.

    Raises:
        ValueError: the loss is the same at both.
    """

    def loss(w: float) -> float:
        return sweep(task, torch.tensor([w], dtype=torch.float64), FastSigmoid()).loss.item()

    below = loss(low)
    if below == loss(high):
        raise ValueError(f"the loss is {below:g} at {low:g} and at {high:g}; choose weights on two stairs")
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if loss(middle) == below else (low, middle)
    return high


def descend(
    task: Problem, start: Sequence[float], surrogate: Surrogate, *, smooth: bool, rate: float, updates: int
) -> Tensor:
    """Weights visited by plain gradient descent, from several starts side by side, (updates + 1, starts).

    Args:
        task: the neuron, its input and its target.
        start: the weights to begin with.
        surrogate: its slope is used, and with ``smooth`` its primitive too: see `sweep`.
        smooth: follow the gradient of the smoothed loss instead of the surrogate gradient.
        rate: the learning rate.
        updates: number of steps.
    """
    path = [torch.tensor(start, dtype=torch.float64)]
    for _ in range(updates):
        path.append(path[-1] - rate * sweep(task, path[-1], surrogate, smooth=smooth).gradient)
    return torch.stack(path)


# Shapes (section 2).


def library_defaults() -> list[tuple[str, Surrogate]]:
    """Other libraries' surrogates at their defaults, threshold 1, and the tutorial authors' own."""
    return [
        ("Norse super(alpha=100), the tutorial's notebooks", surrogates.norse_superspike()),
        ("snnTorch fast_sigmoid(slope=25)", surrogates.snntorch_fast_sigmoid()),
        ("snnTorch sigmoid(slope=25)", surrogates.snntorch_sigmoid()),
        ("snnTorch atan(alpha=2), its neurons' default", surrogates.snntorch_atan()),
        ("SpikingJelly ATan(alpha=2)", surrogates.spikingjelly_atan()),
        ("Sinabs SingleExponential(0.5), its default", surrogates.sinabs_single_exponential()),
        ("SpikingJelly Sigmoid(alpha=4), its default", surrogates.spikingjelly_sigmoid()),
        ("SpikingJelly SuperSpike(alpha=1)", surrogates.spikingjelly_superspike()),
    ]


def measured(surrogate: Surrogate, *, points: int = 200_001) -> tuple[float, float, float]:
    """Peak, half width at half maximum and area, read off the slope's graph and knowing nothing of its formula.

    The area is that within 500 widths, by the trapezoidal rule on points that lie denser near the threshold.
    """
    z = torch.linspace(-1, 1, points, dtype=torch.float64)
    x = 500 * surrogate.width * z**3  # dense where the slope is steep
    f = surrogate.slope(x)
    peak = f.max().item()
    width = x[f >= peak / 2].max().item()
    return peak, width, torch.trapezoid(f, x).item()


def scaled(shape: type[Surrogate], width: float, equal: str) -> Surrogate:
    """A shape at this width with peak 1, or with area 1 if ``equal`` is "area" and its area is finite."""
    if shape is StraightThrough:
        return StraightThrough()
    return shape(width).with_area(1.0) if equal == "area" else shape(width)


# Carries, by hand (section 4).


def carries(U: Sequence[float], surrogate: Surrogate, beta: float, theta: float = 1.0) -> list[float]:
    """The factor dU[n+1]/dU[n] of one neuron at each membrane, with a reset by subtraction that is kept."""
    f = surrogate.slope(torch.tensor(U, dtype=torch.float64) - theta)
    return (beta - theta * f).tolist()


# Vanishing and exploding (section 4).


@dataclass(frozen=True, eq=False)
class Deep:
    """Layers of LIF neurons after a forward pass, and an error at the top.

    Args:
        U: membranes, one array (T, N) a layer, the lowest first.
        s: spikes, likewise.
        W: weights from each layer to the next, (N, N), one fewer than layers.
        error: dL/ds of the top layer at every step, (T, N).
        beta: decay of the membrane over a step.
        theta: threshold, in units of the membrane.
    """

    U: tuple[Array, ...]
    s: tuple[Array, ...]
    W: tuple[Array, ...]
    error: Array
    beta: float
    theta: float


@functools.cache
def deep_network(layers: int = 6, neurons: int = 40, steps: int = 60, seed: int = 3) -> Deep:
    """A random feedforward network that stays active in every layer; membranes leak with 20 ms, dt = 1 ms.

    The weights have a mean of 1.1 / neurons and a standard deviation of 0.8 / sqrt(neurons).
    """
    draw = torch.Generator().manual_seed(seed)
    neuron = lif(tau_mem=20e-3, dt=1e-3)
    x = poisson(torch.full((1, neurons), 150.0, dtype=torch.float64), steps, dt=1e-3, generator=draw)
    W = [
        1.1 / neurons + 0.8 / math.sqrt(neurons) * torch.randn(neurons, neurons, dtype=torch.float64, generator=draw)
        for _ in range(layers)
    ]
    U, s = [], [x]
    for weights in W:
        trace = neuron.simulate(s[-1] @ weights.T)
        U.append(trace.U[:, 0].numpy())
        s.append(trace.s)
    error = torch.randn(steps, neurons, dtype=torch.float64, generator=draw).numpy()
    spikes = tuple(layer[:, 0].numpy() for layer in s[1:])
    return Deep(tuple(U), spikes, tuple(w.numpy() for w in W[1:]), error, float(neuron.beta), float(neuron.theta))


def slopes(net: Deep, surrogate: Surrogate) -> list[Array]:
    """f[n] = sigma'(U[n] - theta) of every layer, (T, N) each."""
    return [surrogate.slope(torch.from_numpy(U) - net.theta).numpy() for U in net.U]


def layer_norms(net: Deep, surrogate: Surrogate, kept: bool) -> Array:
    """The norm of dL/da over all neurons and steps of each layer, the lowest first, (layers,).

    lam[n] = f[n] * e[n] + c[n] * lam[n+1], with the carry c[n] = beta - theta * f[n] where the reset is kept and
    beta where it is detached; the error of the layer below is W^T lam.
    """
    e, norms = net.error, []
    for i, f in reversed(list(enumerate(slopes(net, surrogate)))):
        driven = f * e
        carry = net.beta - net.theta * f if kept else np.full_like(f, net.beta)
        lam = np.zeros_like(f)
        above = np.zeros(f.shape[1])
        for n in range(len(f) - 1, -1, -1):
            above = driven[n] + carry[n] * above
            lam[n] = above
        norms.append(np.linalg.norm(lam))
        e = lam @ net.W[i - 1] if i else lam
    return np.array(norms[::-1])


def memory(net: Deep, surrogate: Surrogate, kept: bool, layer: int = 0) -> Array:
    """Root mean square over a layer's neurons of dU[T-1]/dU[T-1-k], for k = 0..T-1 steps back, (T,).

    It is the product of the carries between the two steps, so no loop is needed: logarithms add up.
    """
    f = slopes(net, surrogate)[layer]
    carry = np.abs(net.beta - net.theta * f) if kept else np.full_like(f, net.beta)
    with np.errstate(divide="ignore"):  # a carry may be exactly zero: a memory of nothing
        log = np.cumsum(np.log(carry[-2::-1]), axis=0)
    back = np.vstack([np.zeros(f.shape[1]), log])
    return np.sqrt(np.exp(2 * back).mean(axis=1))
