"""The numbers behind tutorial 06: the implicit function theorem, Eq. 9 of EXODUS, and where gradients explode.

One neuron of T steps, in the letters of the paper with the membrane's decay called beta (the paper's alpha):

    z[n] = sum_m beta**(n-m) a[m]                    the input, filtered (Eq. 6)
    u[n] = z[n] + sum_(k<n) nu[n-1-k] s[k]           membrane (Eq. 7); nu[k] = -theta * beta**k for a LIF
    s[n] = f_s(u[n])                                 spike (Eq. 8)

with the slope f[n] = f_s'(u[n]), the error e[n] = dL/ds[n] and d[n] = dL/da[n]. All in numpy and double precision,
since the panels call these functions at every move of a slider.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from snnlearn.encoding import poisson
from snnlearn.resets import Update, subtract, subtract_decayed, to_zero
from snnlearn.surrogate import Exponential
from snnlearn.temporal import Reset

Array = NDArray[np.float64]

# Two variables: s = logistic(z - v * s).


def logistic_slope(s: ArrayLike) -> Array:
    """The derivative of the logistic function where its value is s."""
    s = np.asarray(s, float)
    return s * (1 - s)


def loop_input(s: ArrayLike, v: float) -> Array:
    """The z at which s = logistic(z - v * s): the other way round the equation is explicit. s in (0, 1)."""
    s = np.asarray(s, float)
    return np.log(s / (1 - s)) + v * s


def loop_slope(s: float, v: float) -> float:
    """ds/dz = -phi_z / phi_s of phi = s - logistic(z - v * s); infinite where phi_s = 1 + v * f is zero."""
    f = float(logistic_slope(s))
    below = 1 + v * f
    return math.inf if abs(below) < 1e-12 else f / below


def rounds(f: float, v: float, count: int) -> Array:
    """What the chain rule adds up to after 0, 1, ... rounds of the loop: f, f - v f**2, ..., (count + 1,)."""
    return f * np.cumsum((-v * f) ** np.arange(count + 1))


# The layer: Eq. 9, and Eqs. 16 to 19 for a LIF.


def toeplitz(kernel: ArrayLike, steps: int, lag: int = 0) -> Array:
    """The matrix that filters: entry [n, m] is kernel[n - m - lag], and 0 above the diagonal, (steps, steps)."""
    kernel = np.asarray(kernel, float)
    late = np.subtract.outer(np.arange(steps), np.arange(steps)) - lag
    return np.where(late >= 0, kernel[np.maximum(late, 0)], 0.0)


def sigma(f: ArrayLike, nu: ArrayLike) -> Array:
    """ds[n]/dz[m] of one neuron, entry [n, m], by forward substitution: row n from the rows above it (Eq. 9).

    Args:
        f: slopes, (T,).
        nu: reset kernel, at least T - 1 long; nu[0] acts one step after the spike.
    """
    f = np.asarray(f, float)
    N = toeplitz(nu, len(f), lag=1)
    found = np.zeros((len(f), len(f)))
    for n in range(len(f)):
        found[n] = f[n] * (N[n, :n] @ found[:n])
        found[n, n] = f[n]
    return found


def sigma_lif(f: ArrayLike, beta: float, theta: float) -> Array:
    """The same for a LIF, by the products of Eqs. 16 and 17."""
    f = np.asarray(f, float)
    found = np.diag(f)
    for m in range(len(f) - 1):
        chi = np.concatenate([[1.0], np.cumprod(beta - theta * f[m + 1 : -1])])  # Eq. 17, n = m+1, m+2, ...
        found[m + 1 :, m] = -theta * f[m + 1 :] * f[m] * chi  # Eq. 16
    return found


def zeta(f: ArrayLike, beta: float, theta: float) -> Array:
    """Eq. 18: entry [n, k] is the product of beta - theta * f[m] over n <= m < k, 1 for k = n and 0 for k < n."""
    f = np.asarray(f, float)
    found = np.eye(len(f))
    for n in range(len(f) - 1):
        found[n, n + 1 :] = np.cumprod(beta - theta * f[n:-1])
    return found


def by_sum(e: ArrayLike, f: ArrayLike, beta: float, theta: float) -> Array:
    """d[n] = sum_(k>=n) e[k] f[k] zeta_n[k] (Eq. 19): T (T+1) / 2 products."""
    return zeta(f, beta, theta) @ (np.asarray(e, float) * np.asarray(f, float))


def by_recursion(e: ArrayLike, f: ArrayLike, c: ArrayLike) -> Array:
    """d[n] = f[n] e[n] + c[n] d[n+1], from the last step to the first: T of them. All (T,)."""
    d, found = 0.0, []
    for e_n, f_n, c_n in zip(*(np.asarray(v, float)[::-1].tolist() for v in (e, f, c)), strict=True):
        d = f_n * e_n + c_n * d
        found.append(d)
    return np.array(found[::-1])


# The dial: what the gradient sees of a reset.

UPDATES: dict[str, Update] = {
    "subtract θ (the paper)": subtract,
    "subtract θ, decayed (its code)": subtract_decayed,
    "to zero": to_zero,
}


def carries(U: Array, s: Array, f: Array, beta: float, theta: float, update: Update, seen: Reset) -> Array:
    """c[n] = dU[n+1]/dU[n]: by the membrane itself, and where the reset is kept also through the spike; (T,).

    Raises:
        ValueError: the reset is none of `UPDATES`.
    """
    if update not in UPDATES.values():
        raise ValueError(f"the carry is written out for the resets {', '.join(UPDATES)}, not for {update!r}")
    if seen is Reset.IGNORED:
        return np.full_like(f, beta)
    through_U = beta * (1 - s) if update is to_zero else np.full_like(f, beta)
    if seen is Reset.DETACHED:
        return through_U
    if update is to_zero:
        return through_U - beta * U * f
    return through_U - (theta if update is subtract else beta * theta) * f


def jacobian(f: Array, c: Array, beta: float) -> Array:
    """ds[n]/dz[m], entry [n, m], for any carry: f[n] (c[m] - beta) c[m+1] ... c[n-1] below the diagonal.

    With c = beta - theta * f it is Eq. 16; with c = beta, SLAYER, nothing is left below the diagonal.
    """
    found = np.zeros((len(f), len(f)))
    row = np.zeros(len(f))  # du[n]/dz[m]
    for n in range(len(f)):
        row[n] = 1.0
        found[n] = f[n] * row
        row = c[n] * row
        row[n] -= beta  # z[n+1] holds beta * z[n], so what u[n] hands on by the leak is not news
    return found


STEPS = 100
LEAKS = {"5 ms": 5.0, "20 ms": 20.0, "100 ms": 100.0, "no leak": math.inf}


@functools.cache
def drive(beta: float) -> Array:
    """An input at which the neuron fires in a fifth of the steps or so, whatever its leak, (STEPS,)."""
    noise = np.random.default_rng(2).standard_normal(STEPS)
    return 0.2 + 0.5 * (1 - beta) + 0.12 * noise


class Run(NamedTuple):
    """One neuron forward in time: membrane and spikes, (T,) each."""

    U: Array
    s: Array


def forward(a: ArrayLike, beta: float, theta: float = 1.0, update: Update = subtract) -> Run:
    """The neuron from rest under the currents a (T,)."""
    membrane: Any = update  # written for tensors; the arithmetic of floats is the same
    U = s = 0.0
    states = []
    for a_n in np.asarray(a, float).tolist():
        U = membrane(U, s, a_n, beta, theta)
        s = float(theta <= U)
        states.append((U, s))
    return Run(*np.array(states).T)


class Dial(NamedTuple):
    """One neuron, its Jacobian at the chosen place of the dial, and the gradient at each of the three."""

    run: Run
    f: Array
    c: Array  # at the chosen place
    sigma: Array  # (T, T)
    d: dict[Reset, Array]  # (T,) each


@functools.lru_cache(maxsize=8)
def dial(seen: Reset, update: str, tau: float, width: float, peak: float, steps: int, error: str) -> Dial:
    """What panel B draws.

    Args:
        seen: what the Jacobian sees of the reset.
        update: one of `UPDATES`.
        tau: ms, at 1 ms a step; infinite for a neuron that does not leak.
        width, peak: of the exponential surrogate.
        steps: T, up to `STEPS`.
        error: "count", L is the number of spikes and e = 1 throughout; "end", e = 1 at the last step alone.
    """
    beta, theta = math.exp(-1 / tau), 1.0
    run = forward(drive(beta)[:steps], beta, theta, UPDATES[update])
    f = Exponential(width, peak).slope(torch.from_numpy(run.U - theta)).numpy()
    e = np.ones(steps) if error == "count" else np.eye(steps)[-1]
    c = {choice: carries(run.U, run.s, f, beta, theta, UPDATES[update], choice) for choice in Reset}
    return Dial(
        run, f, c[seen], jacobian(f, c[seen], beta), {choice: by_recursion(e, f, c[choice]) for choice in Reset}
    )


def count_slope(beta: float, reach: float = 0.05, points: int = 81) -> float:
    """By how much the number of spikes grows with a constant added to the input of `drive`: a line through counts."""
    offsets = np.linspace(-reach, reach, points)
    counts = [forward(drive(beta) + offset, beta).s.sum() for offset in offsets]
    return float(np.polyfit(offsets, counts, 1)[0])


# Where each explodes: six layers.

PEAKS = np.logspace(-1, 1, 41)


class Deep(NamedTuple):
    """Layers of neurons after a forward pass, the lowest first, and an error at the top."""

    U: tuple[Array, ...]  # (T, N) each
    W: tuple[Array, ...]  # from each layer to the next, (N, N), one fewer than layers
    error: Array  # dL/ds of the top layer, (T, N)
    beta: float
    rates: tuple[float, ...]  # spikes per step and neuron


@functools.cache
def deep_network(tau: float, layers: int = 6, neurons: int = 40, rate: float = 0.15, seed: int = 3) -> Deep:
    """A random feedforward network of LIF neurons, theta = 1, whose weights are scaled until each layer has the rate.

    Args:
        tau: ms, at 1 ms a step; infinite for no leak. A neuron that leaks needs larger weights to fire as often.
        layers, neurons, seed: its size, and the random draw.
        rate: spikes per step and neuron, by the scale of a layer's weights.
    """
    draw = torch.Generator().manual_seed(seed)
    beta = math.exp(-1 / tau)
    s = poisson(torch.full((neurons,), 150.0, dtype=torch.float64), STEPS, generator=draw).numpy()
    shape = (neurons, neurons)
    U, W, rates = [], [], []
    for _ in range(layers):
        drawn = 1 / neurons + 0.8 / math.sqrt(neurons) * torch.randn(shape, dtype=torch.float64, generator=draw).numpy()
        low, high = 0.0, 20.0
        for _ in range(14):
            middle = (low + high) / 2
            run = _simulate(s @ (middle * drawn).T, beta)
            low, high = (middle, high) if run.s.mean() < rate else (low, middle)
        U.append(run.U)
        W.append(middle * drawn)
        s = run.s
        rates.append(float(s.mean()))
    error = torch.randn((STEPS, neurons), dtype=torch.float64, generator=draw).numpy()
    return Deep(tuple(U), tuple(W[1:]), error, beta, tuple(rates))


def _simulate(a: Array, beta: float) -> Run:
    """Neurons side by side, currents (T, N), theta = 1."""
    U = s = np.zeros(a.shape[1])
    states = []
    for a_n in a:
        U = beta * U - s + a_n
        s = (U >= 1).astype(float)
        states.append((U, s))
    return Run(*(np.stack(v) for v in zip(*states, strict=True)))


class Norms(NamedTuple):
    """Sizes of gradients for each of the peaks P, as powers of ten, since some leave the range of numbers."""

    layers: Array  # log10 of the norm of dL/da of a layer over the error's, (P, layers)
    memory: Array  # log10 of the root mean square over the neurons of layer 1 of dU[T-1]/dU[T-1-k], (P, T)


@functools.lru_cache(maxsize=4)
def norms(tau: float, width: float, steps: int, kept: bool) -> Norms:
    """The recursion in `deep_network`, for all `PEAKS` of the exponential surrogate side by side.

    Args:
        tau: see `deep_network`.
        width: of the surrogate.
        steps: T; the first T of `STEPS` steps are used.
        kept: whether the gradient sees the reset (EXODUS) or not (SLAYER).
    """
    net = deep_network(tau)
    unit = [Exponential(width).slope(torch.from_numpy(U[:steps] - 1)).numpy() for U in net.U]
    peaks = PEAKS[:, None, None]
    e = net.error[None, :steps] / np.linalg.norm(net.error[:steps])
    log, found = np.zeros(len(PEAKS)), []
    for i in reversed(range(len(unit))):
        f = peaks * unit[i]  # (P, T, N)
        c = net.beta - f if kept else np.broadcast_to(net.beta, f.shape)
        d = f * e
        for n in range(steps - 2, -1, -1):
            d[:, n] += c[:, n] * d[:, n + 1]
        size = np.linalg.norm(d, axis=(1, 2))
        log = log + np.log10(size)
        found.append(log)
        e = d / size[:, None, None]  # else six layers that explode overflow
        e = e @ net.W[i - 1] if i else e
    back = np.cumprod(np.concatenate([np.ones_like(c[:, :1]), c[:, -2::-1]], axis=1), axis=1)
    return Norms(np.stack(found[::-1], axis=1), 0.5 * np.log10((back**2).mean(axis=2)))
