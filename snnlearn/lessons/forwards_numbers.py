"""The numbers behind tutorial 04: the same gradient taken backwards and forwards in time, and what each way keeps.

One neuron with one weight, and a layer with recurrent weights V; the current acts at its own step:

    U[n] = beta * U[n-1] - theta * s[n-1] + W x[n] + V s[n-1],   s[n] = 1 where U[n] reaches theta

    J[n] = dU[n]/dU[n-1] = beta + (V - theta) * f[n-1],          J_w[n] = dU[n]/dw at fixed U[n-1]
    P[n] = dU[n]/dw = J[n] P[n-1] + J_w[n]                       forwards
    lam[n] = dL/dU[n] = e[n] + J[n+1]^T lam[n+1]                 backwards, e[n] the error at U[n] itself

The panels call these functions at every move of a slider, so they work on numpy arrays in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from snnlearn.losses import OverTime, half_square
from snnlearn.network import Layer, Network
from snnlearn.neurons import lif, readout
from snnlearn.rule import Rule
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Adjoint, Eligibility, Reset, Unrolled

Array = NDArray[np.float64]

THETA = 1.0


def cosine(a: Tensor | Array, b: Tensor | Array) -> float:
    """Of the angle between two arrays of one shape, each taken as one vector."""
    u, v = (torch.as_tensor(x, dtype=torch.float64).flatten() for x in (a, b))
    return float(u @ v / (u.norm() * v.norm()))


def ratio(a: Tensor, b: Tensor) -> float:
    """The length of a over that of b."""
    return float(a.norm() / b.norm())


# One neuron, one weight: every pair of a cause and an effect.

STEPS = 32
AIM = 0.5  # where the loss of the triangle wants the membrane to be


class Pairs(NamedTuple):
    """What the triangle shows. Arrays over the steps, (T,) each, and the credit of every pair, (T, T)."""

    x: Array
    U: Array
    s: Array
    e: Array  # dL/dU[n] at fixed later steps
    J: Array
    P: Array
    lam: Array
    credit: Array  # [n, m]: how far the input at m changed, through the weight, the loss of step n

    @property
    def gradient(self) -> float:
        """dL/dw."""
        return float(self.credit.sum())


def _drive(steps: int) -> Array:
    return np.random.default_rng(3).uniform(0.2, 1.8, steps)


@lru_cache(maxsize=8)  # Play moves the tick only
def pairs(w: float, tau_mem: float, width: float, seen: Reset, steps: int = STEPS) -> Pairs:
    """One LIF neuron under a noisy current, with L = 1/2 sum (U[n] - AIM)**2.

    Args:
        w: the weight, threshold units per step.
        tau_mem: ms, at 1 ms a step.
        width: half width of the fast sigmoid's slope, threshold units; its peak is 1.
        seen: what the gradient sees of the reset.
        steps: T.
    """
    beta, x = math.exp(-1 / tau_mem), _drive(steps)
    U, s = np.zeros(steps), np.zeros(steps)
    for n in range(steps):
        U[n] = w * x[n] + (beta * U[n - 1] - THETA * s[n - 1] if n else 0.0)
        s[n] = U[n] >= THETA
    f = FastSigmoid(width=width).slope(torch.from_numpy(U - THETA)).numpy()
    J = np.concatenate([[0.0], beta - (THETA * f[:-1] if seen is Reset.KEPT else 0.0 * f[:-1])])
    e, P, lam = U - AIM, np.zeros(steps), np.zeros(steps)
    credit, chain = np.zeros((steps, steps)), np.zeros(steps)  # chain[m] = J[n] J[n-1] ... J[m+1]
    for n in range(steps):
        chain *= J[n]
        chain[n] = 1.0
        credit[n] = e[n] * chain * x
        P[n] = chain @ x
    for n in reversed(range(steps)):
        lam[n] = e[n] + (J[n + 1] * lam[n + 1] if n + 1 < steps else 0.0)
    return Pairs(x, U, s, e, J, P, lam, credit)


BACKWARDS, FORWARDS = "backwards (BPTT)", "forwards (RTRL)"


def done(direction: str, tick: int, steps: int = STEPS) -> NDArray[np.bool_]:
    """Which pairs of the triangle have been added up at a tick of the clock; (effect n, cause m).

    Ticks 1..T are the forward pass, T+1..2T the backward pass, which the way forwards does not need.
    """
    n, m = np.indices((steps, steps))
    if direction == FORWARDS:
        return (m <= n) & (n < tick)
    return (m <= n) & (m >= 2 * steps - tick)


def so_far(found: Pairs, direction: str) -> Array:
    """The gradient at each tick 0..2T."""
    T = len(found.x)
    parts = np.zeros(2 * T + 1)
    if direction == FORWARDS:
        parts[1 : T + 1] = found.credit.sum(1)
    else:
        parts[T + 1 :] = found.credit.sum(0)[::-1]
    return parts.cumsum()


def numbers_kept(direction: str, steps: int = STEPS) -> Array:
    """How many numbers have to be remembered at each tick 0..2T, besides the gradient so far.

    Forwards the membrane and P; backwards membrane and input of every step not yet used up, and lam on the way back.
    """
    ticks = np.arange(2 * steps + 1)
    if direction == FORWARDS:
        return np.where((ticks > 0) & (ticks <= steps), 2.0, 0.0)
    waiting = np.where(ticks <= steps, ticks, 2 * steps - ticks)
    return 2.0 * waiting + ((ticks > steps) & (ticks < 2 * steps))


# A layer: P as it runs.

NEURONS, INPUTS, RUN = 6, 5, 80


class Influences(NamedTuple):
    """A recurrent layer and its P, step by step."""

    s: Array  # (T, N)
    P: Array  # (T, N, parameters): W row by row, then V row by row
    own: NDArray[np.bool_]  # (N, parameters): the weights that end at the neuron itself


@lru_cache(maxsize=4)
def influences(strength: float, tau_mem: float, width: float, seen: Reset) -> Influences:
    """P = dU/dw of a layer of `NEURONS` with `INPUTS` random inputs, over `RUN` steps of 1 ms.

    Args:
        strength: standard deviation of the recurrent weights, threshold units per step.
        tau_mem, width, seen: as in `pairs`.
    """
    N, K, draw = NEURONS, INPUTS, np.random.default_rng(1)
    W, V = draw.uniform(0.1, 0.5, (N, K)), draw.standard_normal((N, N)) * strength
    x = (draw.random((RUN, K)) < 0.25).astype(float)
    beta, slope = math.exp(-1 / tau_mem), FastSigmoid(width=width)
    own = np.concatenate([np.repeat(np.eye(N), K, 1), np.repeat(np.eye(N), N, 1)], 1) > 0
    U, s, f, P = np.zeros(N), np.zeros(N), np.zeros(N), np.zeros((N, N * K + N * N))
    spikes, all_P = np.zeros((RUN, N)), np.zeros((RUN, *P.shape))
    through_spike = V - (THETA if seen is Reset.KEPT else 0.0) * np.eye(N)
    for n in range(RUN):
        J = beta * np.eye(N) + through_spike * f
        arrived = np.concatenate([np.tile(x[n], N), np.tile(s, N)])  # what every weight sees at this step
        P = J @ P + own * arrived
        U = beta * U - THETA * s + W @ x[n] + V @ s
        s = (U >= THETA).astype(float)
        f = slope.slope(torch.from_numpy(U - THETA)).numpy()
        spikes[n], all_P[n] = s, P
    return Influences(spikes, all_P, own)


def own_share(P: Array, own: NDArray[np.bool_]) -> float:
    """The share of sum |P| that lies on a neuron's own weights; 1 where P is 0."""
    total = np.abs(P).sum()
    return float(np.abs(P)[own].sum() / total) if total else 1.0


# What is kept, in numbers, for one sample, a layer of N two-state neurons (I, U) and N inputs.

BPTT, RTRL_, TRACES = METHODS = ("BPTT", "RTRL", "eligibility traces")


def parameters(N: int, recurrent: bool) -> int:
    """Weights of a layer of N neurons with N inputs."""
    return N * N * (2 if recurrent else 1)


def kept(method: str, N: int, T: int, recurrent: bool) -> int:
    """Numbers that this library's methods keep, without the inputs, the weights and their gradient.

    BPTT: U and s of every step, and recurrent sums. RTRL: P has four rows a neuron (I, U, s, and s again as what is on
    its way through recurrent weights), and these states themselves. Traces: p and q of every input, of every recurrent
    spike and of a constant 1, and the states. Each also holds the loss, 1.
    """
    if method == BPTT:
        return (3 if recurrent else 2) * N * T + 1
    if method == RTRL_:
        return 4 * N * (parameters(N, recurrent) + 1) + 1
    if method == TRACES:
        return 2 * N * (2 if recurrent else 1) + 2 + 3 * N + 1
    raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")


def work(method: str, N: int, recurrent: bool) -> int:
    """Multiplications a step beyond the forward pass, the largest term, for one state a neuron and N inputs."""
    M = parameters(N, recurrent)
    if method == BPTT:
        return M + (N * N if recurrent else 0)  # outer products, and V^T lam
    if method == RTRL_:
        return (N if recurrent else 1) * N * M  # J P; without recurrence J is diagonal
    if method == TRACES:
        return M  # error times trace
    raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")


# A cue, and a question `lag` steps later.

CUES, CHANNELS, HIDDEN, LENGTH, CUE_STEPS = 2, 12, 20, 80, 3
LAGS = (5, 10, 20, 30, 40)
WINDOWS = (2, 5, 10, 20, 40, 60, 80)
SLOPE = FastSigmoid(width=0.3)


def late_batch(lag: int, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (LENGTH, size, CHANNELS) and targets (2, size): which cue it was, and the step at which that is asked.

    One of the first two channels fires for three steps, at a random moment; the others fire at random throughout.
    """
    x = (torch.rand(LENGTH, size, CHANNELS, generator=draw, dtype=torch.float64) < 0.03).double()
    x[:, :, :CUES] = 0
    cue = torch.randint(CUES, (size,), generator=draw)
    start = torch.randint(2, LENGTH - lag - CUE_STEPS, (size,), generator=draw)
    for k in range(CUE_STEPS):
        x[start + k, torch.arange(size), cue] = 1
    return x, torch.stack([cue, start + lag])


def _asked(out: Tensor, y: Tensor) -> Tensor:
    return out[y[1], torch.arange(out.shape[1])]


def late_loss(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy at the asked step alone; outputs (T, B, 2)."""
    return functional.cross_entropy(_asked(out, y), y[0])


def late_network(draw: torch.Generator) -> Network:
    """Spiking neurons that forget within 10 ms, and two readouts that remember for 60 ms."""
    net = Network(
        Layer(nn.Linear(CHANNELS, HIDDEN, bias=False), lif(tau_mem=10e-3)),
        Layer(nn.Linear(HIDDEN, CUES, bias=False), readout(tau_mem=60e-3)),
    ).double()
    W, R = (layer.synapse.weight for layer in net.layers)
    with torch.no_grad():
        W.copy_(0.2 + 0.5 * torch.randn(W.shape, generator=draw, dtype=torch.float64))  # type: ignore[operator,arg-type]
        R.copy_(0.2 * torch.randn(R.shape, generator=draw, dtype=torch.float64))  # type: ignore[operator,arg-type]
    return net


class Truncated(NamedTuple):
    """Truncated against full gradients of the hidden weights, rows by lag and columns by window."""

    cosine: Array
    ratio: Array
    lags: tuple[int, ...]
    windows: tuple[int, ...]


def truncation(lags: Sequence[int] = LAGS, windows: Sequence[int] = WINDOWS, samples: int = 32) -> Truncated:
    """Cosine and ratio of lengths, truncated BPTT to full, for an untrained network."""
    net = late_network(torch.Generator().manual_seed(0))
    rows = []
    for lag in lags:
        x, y = late_batch(lag, samples, torch.Generator().manual_seed(5))
        full = hidden_gradient(net, x, y, Rule(SLOPE, Adjoint()))
        cut = [hidden_gradient(net, x, y, Rule(SLOPE, Unrolled(window=k))) for k in windows]
        rows.append([(cosine(g, full), ratio(g, full)) for g in cut])
    found = np.array(rows)
    return Truncated(found[..., 0], found[..., 1], tuple(lags), tuple(windows))


def hidden_gradient(net: Network, x: Tensor, y: Tensor, rule: Rule) -> Tensor:
    """Of the hidden layer's weights."""
    return rule.gradients(net, x, y, late_loss)[1]["layers.0.synapse.weight"]


def surviving(lag: int, window: int) -> float:
    """The share of cause-effect pairs at this distance that no cut separates, cuts every `window` steps."""
    return max(0.0, 1 - lag / window)


def train_late(window: int | None, lag: int = 30, steps: int = 40, size: int = 32) -> list[float]:
    """Train with Adam; the share of right answers on 256 fresh samples, before and after."""
    draw = torch.Generator().manual_seed(1)
    net, rule = late_network(draw), Rule(SLOPE, Adjoint() if window is None else Unrolled(window=window))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    shares = [_right(net, rule, lag)]
    for _ in range(steps):
        optimizer.zero_grad()
        rule.backward(net, *late_batch(lag, size, draw), late_loss)
        optimizer.step()
    return [*shares, _right(net, rule, lag)]


def _right(net: Network, rule: Rule, lag: int) -> float:
    x, y = late_batch(lag, 256, torch.Generator().manual_seed(9))
    with torch.no_grad():
        answer = _asked(net(x, rule)[-1].s, y).argmax(1)
    return float((answer == y[0]).double().mean())


def detached(past: Any) -> Any:
    """What a network remembers between two pieces (`Network.run`), cut off from its history."""
    if isinstance(past, Tensor):
        return past.detach()
    parts = [detached(v) for v in past]
    return type(past)(*parts) if hasattr(past, "_fields") else type(past)(parts)


# What is left of the gradient when P is cut down to a trace.


class Leftover(NamedTuple):
    """Eligibility traces against the exact gradient, for one strength of the recurrent weights."""

    strength: float
    kept: float  # cosine to the exact gradient, all weights
    ignored: float  # cosine to the gradient that does not see the reset
    rate: float  # spikes a step and neuron


def leftover(strength: float, N: int = 20, K: int = 30, T: int = 100, samples: int = 8) -> Leftover:
    """A layer that is to fire at given steps; its recurrent weights have the standard deviation strength/sqrt(N)."""
    draw = torch.Generator().manual_seed(2)
    net = Network(Layer(nn.Linear(K, N, bias=False), lif(tau_mem=20e-3), nn.Linear(N, N, bias=False))).double()
    W, V = (p for p in net.parameters())
    with torch.no_grad():
        W.copy_(0.05 + 0.15 * torch.randn(N, K, generator=draw, dtype=torch.float64))
        V.copy_(strength / math.sqrt(N) * torch.randn(N, N, generator=draw, dtype=torch.float64))
    x = (torch.rand(T, samples, K, generator=draw, dtype=torch.float64) < 0.1).double()
    y = (torch.rand(T, samples, N, generator=draw, dtype=torch.float64) < 0.15).double()
    methods = (Eligibility(), Adjoint(), Adjoint(Reset.IGNORED))
    loss = OverTime(half_square, mean=True)
    found = [Rule(SLOPE, method).gradients(net, x, y, loss)[1].values() for method in methods]
    traces, exact, no_reset = (torch.cat([g.flatten() for g in gradients]) for gradients in found)
    with torch.no_grad():
        rate = float(net(x, Rule())[0].s.mean())
    return Leftover(strength, cosine(traces, exact), cosine(traces, no_reset), rate)
