"""Learning spike times, quickly: the whole training of tutorial 05 as arrays.

The input is the same in every epoch, so the presynaptic traces are computed once. The sum over time of the three-factor
rule, sum_n e[n] * (eps * (f q))[n], is the same number as sum_n (eps' e)[n] * f[n] * q[n] with the transposed filter
eps', which needs no (post, pre) trace. The result is that of the library's
`Eligibility`, to rounding; many runs go side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from snnlearn.encoding import poisson
from snnlearn.lessons.superspike_numbers import Array, error_filter, kernel, leaky, toeplitz
from snnlearn.surrogate import FastSigmoid

STEPS = 300  # ms
TAU_MEM, TAU_SYN = 10.0, 5.0  # ms
ALPHA, BETA, THETA = math.exp(-1 / TAU_SYN), math.exp(-1 / TAU_MEM), 1.0
FIVE = (50, 110, 170, 230, 290)  # ms, the target of one neuron

_LETTERS = {
    "S": ("01110", "10001", "10000", "01110", "00001", "10001", "01110"),
    "N": ("10001", "11001", "10101", "10101", "10011", "10001", "10001"),
}


def frozen_noise(seed: int, inputs: int = 100, rate: float = 10.0) -> tuple[Array, torch.Generator]:
    """Poisson spikes (STEPS, inputs) at so many Hz, and the generator to draw weights from."""
    draw = torch.Generator().manual_seed(seed)
    return poisson(torch.full((inputs,), rate, dtype=torch.float64), STEPS, generator=draw).numpy(), draw


def weights(post: int, pre: int, draw: torch.Generator, scale: float = 0.05) -> Array:
    """Normal weights around 0, (post, pre), threshold units."""
    return scale * torch.randn(post, pre, dtype=torch.float64, generator=draw).numpy()


def five_spikes() -> Array:
    """The target of one neuron, (STEPS, 1)."""
    target = np.zeros((STEPS, 1))
    target[list(FIVE)] = 1
    return target


def written() -> Array:
    """The target of seven neurons, (STEPS, 7): their raster reads SNN, a column every 16 ms."""
    rows = ["0".join(_LETTERS[letter][row] for letter in "SNN") for row in range(7)]
    target = np.zeros((STEPS, 7))
    for row, dots in enumerate(rows):
        for column, dot in enumerate(dots):
            target[20 + 16 * column, 6 - row] = float(dot)
    return target


@lru_cache(maxsize=1)
def _eps() -> Array:
    """eps as a matrix, (STEPS, STEPS)."""
    return toeplitz(kernel(error_filter(), STEPS))


def presynaptic(x: Array) -> tuple[Array, Array]:
    """p and q of spikes x (T, ...)."""
    p = leaky(ALPHA, x)
    return p, leaky(BETA, p)


def simulate(I: Array) -> tuple[Array, Array]:
    """Membranes and spikes for currents I (T, ...), from rest, the threshold subtracted after a spike."""
    U, s = np.zeros_like(I[0]), np.zeros_like(I[0])
    membranes, spikes = np.empty_like(I), np.empty_like(I)
    for n, I_n in enumerate(I):
        U = BETA * U - THETA * s + I_n
        s = (THETA <= U).astype(float)
        membranes[n], spikes[n] = U, s
    return membranes, spikes


def rmaxprop(g: Array, v: Array, r0: float | Array, gamma: float) -> tuple[Array, Array]:
    """SuperSpike's learning rate for each parameter: the new v, and what is subtracted from the weights."""
    v = np.maximum(gamma * v, g**2)
    return v, r0 * g / (np.sqrt(v) + 1e-12)


class Fit(NamedTuple):
    """What some runs side by side did in every epoch, before its update."""

    losses: Array  # (epochs, R), van Rossum
    spikes: np.ndarray  # (epochs, R, T, C), bool
    membranes: np.ndarray  # (epochs, R, T, C), float32
    target: Array  # (T, C)
    W: Array  # (R, C, pre), after the last


def fit(
    x: Array,
    W: Array,
    target: Array,
    *,
    epochs: int,
    width: float | Sequence[float] = 0.3,
    r0: float | Sequence[float] = 3e-3,
    gamma: float | None = 0.9,
    reset_kept: bool = False,
) -> Fit:
    """Train one layer, R runs side by side, a whole sequence at each update.

    Args:
        x: input spikes, (R, T, pre), or (T, pre) for all runs.
        W: weights to start from, (R, C, pre).
        target: spikes wanted, (T, C).
        epochs: updates.
        width: of the fast sigmoid's slope, one for all runs or one each.
        r0: learning rate, likewise.
        gamma: of RMaxProp; None for plain gradient descent.
        reset_kept: take the gradient through the reset too, as BPTT does.
    """
    p, q = (np.moveaxis(v, 0, -2) for v in presynaptic(np.moveaxis(x, -2, 0)))  # (R, T, pre)
    W = W.copy()
    eps, v, R = _eps(), np.zeros_like(W), len(W)
    rate = np.broadcast_to(np.asarray(r0, float), (R,))[:, None, None]
    losses, spikes, membranes = [], [], []
    for _ in range(epochs):
        U, s = (np.moveaxis(y, 0, 1) for y in simulate(np.moveaxis(p @ W.transpose(0, 2, 1), 1, 0)))
        difference = eps @ (s - target)
        f = _slopes(U, width)
        lam, trace = f * (eps.T @ difference), q
        if reset_kept:
            lam, trace = _through_resets(lam, f), p
        losses.append(0.5 * np.square(difference).sum((1, 2)))
        spikes.append(s > 0)
        membranes.append(U.astype(np.float32))
        g = lam.transpose(0, 2, 1) @ trace
        if gamma is None:
            W -= rate * g
        else:
            v, change = rmaxprop(g, v, rate, gamma)
            W -= change
    return Fit(np.array(losses), np.array(spikes), np.array(membranes), target, W)


def _slopes(U: Array, width: float | Sequence[float]) -> Array:
    """sigma'(U - theta), with a width for each run where there are several; (R, ...)."""
    x = torch.from_numpy(U - THETA)
    if isinstance(width, int | float):
        return FastSigmoid(width=width).slope(x).numpy()
    return np.stack([FastSigmoid(width=w).slope(x_r).numpy() for w, x_r in zip(width, x, strict=True)])


def _through_resets(source: Array, f: Array) -> Array:
    """lam[n] = source[n] + (beta - theta * f[n]) * lam[n+1]; (R, T, C)."""
    lam, found = np.zeros_like(source[:, 0]), np.empty_like(source)
    for n in reversed(range(source.shape[1])):
        lam = source[:, n] + (BETA - THETA * f[:, n]) * lam
        found[:, n] = lam
    return found


# Many runs.

WIDTHS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Sweep(NamedTuple):
    """The same training at several settings, from several seeds."""

    settings: tuple[float, ...]
    losses: Array  # (epochs, settings, seeds)
    first: np.ndarray  # (settings, T), the membrane of the first seed before training
    q: Array  # (T,), the trace of its busiest input

    @property
    def final(self) -> Array:
        """The mean loss of the last tenth of the epochs, (settings, seeds)."""
        return self.losses[-max(1, len(self.losses) // 10) :].mean(0)


def _many(settings: Sequence[float], seeds: int) -> tuple[Array, Array]:
    """Inputs (R, T, pre) and weights (R, 1, pre): for each setting the same seeds."""
    drawn = [frozen_noise(seed) for seed in range(seeds)]
    x = np.stack([noise for noise, _ in drawn])
    W = np.stack([weights(1, x.shape[2], draw) for _, draw in drawn])
    return np.tile(x, (len(settings), 1, 1)), np.tile(W, (len(settings), 1, 1))


def _sweep(settings: Sequence[float], seeds: int, x: Array, found: Fit) -> Sweep:
    shape = (len(found.losses), len(settings), seeds)
    busiest = int(x[0].sum(0).argmax())
    q = presynaptic(x[0])[1][:, busiest]
    return Sweep(tuple(settings), found.losses.reshape(shape), found.membranes[0, ::seeds, :, 0], q)


def by_width(widths: Sequence[float] = WIDTHS, *, seeds: int = 5, epochs: int = 200) -> Sweep:
    """One neuron trained to five spikes at each width of the surrogate, by RMaxProp."""
    x, W = _many(widths, seeds)
    each = [width for width in widths for _ in range(seeds)]
    return _sweep(widths, seeds, x, fit(x, W, five_spikes(), epochs=epochs, width=each))


def by_rate(rates: Sequence[float], gamma: float | None, *, width: float, seeds: int = 5, epochs: int = 200) -> Sweep:
    """The same at each learning rate, by RMaxProp or, with gamma=None, by plain descent."""
    x, W = _many(rates, seeds)
    each = [rate for rate in rates for _ in range(seeds)]
    return _sweep(rates, seeds, x, fit(x, W, five_spikes(), epochs=epochs, r0=each, gamma=gamma, width=width))


# A hidden layer.


class HiddenFit(NamedTuple):
    """A network with one hidden layer in every epoch, before its update."""

    losses: Array  # (epochs,)
    hidden: np.ndarray  # (epochs, T, H), bool
    spikes: np.ndarray  # (epochs, T, C), bool
    W1: Array  # (epochs, H, pre)
    W2: Array  # (epochs, C, H)


def fit_hidden(
    x: Array,
    W1: Array,
    W2: Array,
    target: Array,
    *,
    epochs: int,
    width: float = 0.3,
    r0: float = 3e-3,
    gamma: float = 0.9,
    both: bool = True,
) -> HiddenFit:
    """Train two layers; the error of a hidden neuron is W2' e, without the slope of the output neurons.

    Args:
        x: input spikes, (T, pre).
        W1, W2: weights to start from, (H, pre) and (C, H).
        target: spikes wanted, (T, C).
        epochs, width, r0, gamma: as in `fit`.
        both: train W1 too, or W2 alone.
    """
    eps = _eps()
    p1, q1 = presynaptic(x)
    W1, W2 = W1.copy(), W2.copy()
    v1, v2 = np.zeros_like(W1), np.zeros_like(W2)
    kept: list[tuple] = []
    for _ in range(epochs):
        U1, s1 = simulate(p1 @ W1.T)
        p2, q2 = presynaptic(s1)
        U2, s2 = simulate(p2 @ W2.T)
        e = eps @ (s2 - target)
        kept.append((0.5 * np.square(e).sum(), s1 > 0, s2 > 0, W1.copy(), W2.copy()))
        g2 = (_slopes(U2, width) * (eps.T @ e)).T @ q2
        if both:
            v1, change = rmaxprop((_slopes(U1, width) * (eps.T @ (e @ W2))).T @ q1, v1, r0, gamma)
            W1 -= change
        v2, change = rmaxprop(g2, v2, r0, gamma)
        W2 -= change
    return HiddenFit(*(np.array(values) for values in zip(*kept, strict=True)))
