"""The numbers behind tutorial 08: when one neuron spikes, and how that moment moves.

Without a leak (tutorial Eq. 18), with z = exp(t / tau_syn) and the causal set C, the inputs that come before the spike:

    U(t) = sum_i w_i * (1 - z_i / z)          z_out = sum_C w_i z_i / (sum_C w_i - theta)

With a leak (current-based LIF), by the adjoint of EventProp; see `snnlearn.eventprop`. Times are in ms here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from snnlearn import recipes
from snnlearn.eventprop import Cell
from snnlearn.events import EventLIF, Events
from snnlearn.neurons import Neuron
from snnlearn.resets import to_zero
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Adjoint, Reset

Array = NDArray[np.float64]

TAU_MEM, TAU_SYN, THETA = 20.0, 5.0, 1.0  # ms, ms, threshold units


# A spike time in closed form.


class Spike(NamedTuple):
    """The first spike of a neuron without a leak. For n inputs:"""

    t: float  # when, inf for never
    causal: NDArray[np.bool_]  # (n,), which inputs come before it and make it; none for a silent neuron
    by_weight: Array  # (n,), dt/dw
    by_time: Array  # (n,), dt/dt_i


def first_spike(w: ArrayLike, t: ArrayLike, tau: float = TAU_SYN, theta: float = THETA) -> Spike:
    """Eq. 18 solved for the first moment at which U = theta.

    Args:
        w, t: weights and times of the inputs, (n,), in any order.
        tau: time constant of the current, in the unit of t.
        theta: threshold.
    """
    w, t = np.asarray(w, float), np.asarray(t, float)
    z: Array = np.exp((t - t.min()) / tau)
    order = np.argsort(t, kind="stable")
    for size in range(1, len(w) + 1):
        C = order[:size]
        over = w[C].sum() - theta
        following = z[order[size]] if size < len(w) else math.inf
        if over > 0 and (z_out := w[C] @ z[C] / over) <= following:
            inside = np.isin(np.arange(len(w)), C)
            by_weight = np.where(inside, tau * (z / z_out - 1) / over, 0.0)
            by_time = np.where(inside, w * z / (over * z_out), 0.0)
            return Spike(t.min() + tau * math.log(z_out), inside, by_weight, by_time)
    return Spike(math.inf, np.zeros(len(w), bool), np.zeros(len(w)), np.zeros(len(w)))


def potential(w: ArrayLike, t: ArrayLike, at: ArrayLike, tau: float = TAU_SYN) -> Array:
    """U of neurons without a leak that never fire: w (..., n), t (n,), at (m,) to (..., m)."""
    since: Array = np.maximum(np.asarray(at, float)[:, None] - np.asarray(t, float), 0)  # (m, n)
    return np.asarray(w, float) @ (1 - np.exp(-since / tau)).T


# One neuron with a leak, forward and backward, event by event.


class Moment(NamedTuple):
    """One event on the way back, and the adjoints just before it as time runs, which is after the jump."""

    t: float
    kind: str  # "in" or "out"
    number: int  # which input, or which output spike
    lV: float
    lI: float
    jump: float  # of lV


class Story(NamedTuple):
    """A neuron with a leak: inputs, its spikes, and the adjoint, collected from the horizon to 0."""

    inputs: Array  # (n,), ms
    w: Array  # (n,)
    spikes: Array  # (m,), ms
    current: Array  # (m,), I at the spikes
    errors: Array  # (m,), dL/dt
    moments: tuple[Moment, ...]  # latest first
    by_weight: Array  # (n,), dL/dw
    loss: float


CELL = Cell(TAU_MEM, TAU_SYN, THETA)
HORIZON = 50.0  # ms


def _layer(W: Tensor, horizon: float = HORIZON) -> EventLIF:
    synapse: nn.Linear = nn.utils.skip_init(nn.Linear, W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
    synapse.weight = nn.Parameter(W.clone())
    return EventLIF(synapse, horizon=horizon, tau_mem=TAU_MEM, tau_syn=TAU_SYN, theta=THETA)


def spikes_of(W: Tensor, inputs: ArrayLike) -> tuple[Events, Tensor]:
    """The spikes of neurons W (N, n) with one spike an input, and the weights they are differentiable in."""
    layer = _layer(W)
    times = torch.as_tensor(np.asarray(inputs, float)[None])
    return layer(0, [Events.from_times(times)], recipes.eventprop()), layer.synapse.weight


def pulse(since: ArrayLike) -> Array:
    """V that one input of weight 1 leaves behind, after a time in ms; 0 before it."""
    d: Array = np.maximum(np.asarray(since, float), 0)
    return TAU_SYN / (TAU_MEM - TAU_SYN) * (np.exp(-d / TAU_MEM) - np.exp(-d / TAU_SYN))


def membrane(w: Array, inputs: ArrayLike, spikes: ArrayLike, at: Array) -> Array:
    """V at some moments: a pulse for each input, and each own spike takes theta off, which decays as V does."""
    since = at[:, None] - np.asarray(spikes, float)
    fallen = np.where(since > 0, np.exp(-np.maximum(since, 0) / TAU_MEM), 0.0).sum(1)
    return pulse(at[:, None] - np.asarray(inputs, float)) @ w - THETA * fallen


@lru_cache(maxsize=4)
def story(w: tuple[float, ...], inputs: tuple[float, ...], targets: tuple[float, ...]) -> Story:
    """Forward, and back from L = 1/2 sum (t - target)**2; a spike without a target costs nothing.

    Args:
        w, inputs: weights, and times in ms, in order.
        targets: of the first spike, the second ..., ms.
    """
    weights, t_in = np.array(w), np.array(inputs)
    t_out = spikes_of(torch.tensor([w], dtype=torch.float64), inputs)[0].times[0].detach().numpy()
    current = np.exp(-np.maximum(t_out[:, None] - t_in, 0) / TAU_SYN) * (t_out[:, None] >= t_in) @ weights
    wanted = np.full(len(t_out), np.nan)
    wanted[: len(targets)] = targets[: len(t_out)]
    errors = np.where(np.isnan(wanted), 0.0, t_out - np.nan_to_num(wanted))

    lV = lI = 0.0
    now, moments, by_weight = HORIZON, [], np.zeros(len(t_in))
    events = [(t, "in", i) for i, t in enumerate(t_in.tolist()) if t < HORIZON]
    events += [(t, "out", k) for k, t in enumerate(t_out.tolist())]
    for t, kind, i in sorted(events, reverse=True):
        lV, lI = adjoint_earlier(lV, lI, now - t)
        now, jump = t, 0.0
        if kind == "in":
            by_weight[i] = -TAU_SYN * lI
        else:
            jump = (THETA * lV + errors[i]) / (current[i] - THETA)
            lV += jump
        moments.append(Moment(t, kind, i, lV, lI, jump))
    return Story(t_in, weights, t_out, current, errors, tuple(moments), by_weight, float(0.5 * errors @ errors))


def adjoint_earlier(lV: float, lI: float, d: float) -> tuple[float, float]:
    """lV and lI a time d (ms) earlier, if nothing happened: tau_mem lV' = -lV, tau_syn lI' = -lI + lV."""
    fall = math.exp(-d / TAU_MEM)
    return lV * fall, lI * math.exp(-d / TAU_SYN) + lV * TAU_MEM / TAU_SYN * float(pulse(d))


def adjoint_curves(told: Story, points: int = 60) -> tuple[Array, Array, Array]:
    """Times, lV and lI from 0 to the horizon, with both ends of every jump; (m,) each."""
    pieces: list[tuple[Array, Array, Array]] = []
    later, lV, lI = HORIZON, 0.0, 0.0
    for t, state in [*((m.t, m) for m in told.moments), (0.0, None)]:
        d = np.linspace(0, later - t, points)
        fall = np.exp(-d / TAU_MEM)
        pieces.append((later - d, lV * fall, lI * np.exp(-d / TAU_SYN) + lV * TAU_MEM / TAU_SYN * pulse(d)))
        if state is not None:
            later, lV, lI = t, state.lV, state.lI
    at, V, I = (np.concatenate(x)[::-1] for x in zip(*pieces, strict=True))
    return at, V, I


# The birth of a spike.

VOLLEYS = (5.0, 8.0, 25.0, 28.0)  # ms: two pairs of inputs; the weight of the first is dragged
FIXED = (2.5, 2.2, 2.2)  # weights of the other three
LOW, HIGH = 0.0, 8.0  # range of the dragged weight


class Exact(NamedTuple):
    """First spike times and their derivative over the dragged weight, (m,) each; silence counts as the horizon."""

    w: Array
    t: Array
    slope: Array
    spikes: NDArray[np.int64]


def exact(w: ArrayLike) -> Exact:
    """The loss L = first spike time (ms) and dL/dw, by EventProp, for dragged weights w (m,)."""
    w = np.atleast_1d(np.asarray(w, float))
    W = torch.tensor([[value, *FIXED] for value in w], dtype=torch.float64)
    out, weight = spikes_of(W, VOLLEYS)
    first = out.first()[0]
    loss = torch.where(first.isinf(), HORIZON, first)
    slope = torch.autograd.grad(loss.sum(), weight)[0][:, 0] if out.times.numel() else torch.zeros(len(w))
    return Exact(w, loss.detach().numpy(), slope.numpy(), out.counts()[0].numpy())


def birth(low: float, high: float) -> float:
    """The weight between low and high at which the first spike time jumps: the smallest above the jump.

    Raises:
        ValueError: the times at both ends do not lie more than 5 ms apart.
    """
    late, early = exact([low, high]).t
    if late - early < 5:
        raise ValueError(f"no jump between w = {low} and {high}: the times are {late:.2f} and {early:.2f} ms")
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        t = float(exact([middle]).t[0])
        low, high = (low, middle) if t - early < late - t else (middle, high)


STEP_SIZES = (1.0, 0.5, 0.25)  # ms


def first_spike_steps(s: Tensor) -> Tensor:
    """Steps before the first spike, T for none: sum_n prod_{m <= n} (1 - s[m]); spikes (T, ...) to (...)."""
    return torch.cumprod(1 - s, 0).sum(0)


def grid_neuron(dt: float) -> tuple[Neuron, float]:
    """The same neuron on a grid of dt (ms), and the gain that makes its membrane exact at the grid's points."""
    alpha, beta = math.exp(-dt / TAU_SYN), math.exp(-dt / TAU_MEM)
    return Neuron(alpha, beta, THETA, reset=to_zero), TAU_SYN / (TAU_MEM - TAU_SYN) * (beta - alpha)


@lru_cache(maxsize=8)
def surrogate_gradient(width: float, dt: float, points: int = 81) -> tuple[Array, Array, Array]:
    """Weights, L = dt * `first_spike_steps` (ms) and its surrogate gradient on a grid, reset kept; (points,) each."""
    w = torch.linspace(LOW, HIGH, points, dtype=torch.float64).requires_grad_()
    neuron, gain = grid_neuron(dt)
    a = torch.zeros(round(HORIZON / dt), points, dtype=torch.float64)
    steps = [round(t / dt) for t in VOLLEYS]
    a[steps[1:]] += gain * torch.tensor(FIXED, dtype=torch.float64)[:, None]
    a = a + gain * w * nn.functional.one_hot(torch.tensor(steps[0]), len(a))[:, None]
    trace = Adjoint(Reset.KEPT).run(neuron, FastSigmoid(width=width), a[:, :, None])
    loss = dt * first_spike_steps(trace.s[..., 0])
    (slope,) = torch.autograd.grad(loss.sum(), w)
    return w.detach().numpy(), loss.detach().numpy(), slope.numpy()


@lru_cache(maxsize=1)
def exact_curves(points: int = 801) -> tuple[tuple[Array, Array, Array], ...]:
    """The pieces between births: weights, L and dL/dw in each."""
    found = exact(np.linspace(LOW, HIGH, points))
    breaks = np.flatnonzero(np.abs(np.diff(found.t)) > 5) + 1
    w, t, slope = (np.split(x, breaks) for x in (found.w, found.t, found.slope))
    return tuple(zip(w, t, slope, strict=True))
