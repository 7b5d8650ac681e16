"""The numbers behind tutorial 05: spike trains compared, and the three factors of one synapse.

With x[n] the presynaptic spikes, alpha and beta the decays of current and membrane, f = sigma'(U - theta):

    p[n] = alpha * p[n-1] + x[n]                 dI/dw   (tutorial Eq. 16)
    q[n] = beta * q[n-1] + p[n]                  dU/dw   (Eq. 15 without its last term)
    E[n] = (eps * (f q))[n]                      the eligibility, d(eps * s)/dw   (Eqs. 14 and 17)
    e[n] = (eps * (s - target))[n]               the error of the van Rossum distance   (Eq. 13)
    dL[n]/dw = e[n] * E[n]

The panels call these functions at every move of a slider, so they work on numpy arrays in double precision.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from snnlearn.filters import Exponentials, filtered
from snnlearn.surrogate import FastSigmoid, PiecewiseLinear, Surrogate

Array = NDArray[np.float64]


def error_filter(tau_rise: float = 5.0, tau_decay: float = 10.0) -> Exponentials:
    """eps of the van Rossum distance at 1 ms a step; time constants in ms."""
    return Exponentials.double(tau_rise=tau_rise * 1e-3, tau_decay=tau_decay * 1e-3)


def kernel(filter: Exponentials, steps: int) -> Array:
    """The first samples of a filter's impulse response, (steps,)."""
    impulse = torch.zeros(steps, dtype=torch.float64)
    impulse[0] = 1
    return filtered(filter, impulse).numpy()


def toeplitz(kernel: Array) -> Array:
    """The causal convolution as a matrix, (T, T): ``toeplitz(k) @ x`` is k * x."""
    T = len(kernel)
    lag = np.arange(T)[:, None] - np.arange(T)
    return np.where(lag >= 0, kernel[lag.clip(min=0)], 0.0)


def convolved(kernel: Array, x: ArrayLike) -> Array:
    """The causal convolution of a sequence x (T,) with a kernel (T,)."""
    x = np.asarray(x, float)
    return np.convolve(kernel, x)[: len(x)]


def leaky(decay: float, x: ArrayLike) -> Array:
    """y[n] = decay * y[n-1] + x[n] along the first axis."""
    y, found = 0.0 * np.asarray(x, float)[0], []
    for x_n in np.asarray(x, float):
        y = decay * y + x_n
        found.append(y)
    return np.array(found)


# Panel A: two spike trains.

SPAN = 220  # ms
TARGET = (30, 70, 110, 150, 190)  # ms
MOVED = 2  # which of them moves
_JITTER = np.array([0.9, -0.7, 0.4, -0.3, -1.0])  # ms each, per ms of the slider
REACH = 60  # ms that the spike moves either way


class Distance(NamedTuple):
    """Two spike trains and how far apart they are."""

    s: Array  # (SPAN,)
    target: Array
    filtered: Array  # eps * s
    filtered_target: Array
    e: Array  # their difference
    loss: float
    shifts: Array  # ms, the curve of the distance against the shift
    losses: Array


def trains(times: ArrayLike, steps: int = SPAN) -> Array:
    """Spikes at these steps, (steps,); two at the same step count twice."""
    s = np.zeros(steps)
    np.add.at(s, np.asarray(times, int), 1)
    return s


@lru_cache(maxsize=16)
def _curve(jitter: int, tau_decay: float) -> tuple[Array, Array, Array, Array]:
    """eps, the shifts, the distance at each, and without the spike (last)."""
    eps = kernel(error_filter(tau_decay / 2, tau_decay), SPAN)
    matrix, target = toeplitz(eps), trains(TARGET)
    shifts = np.arange(-REACH, REACH + 1)
    candidates = [output(int(shift), jitter) for shift in shifts]
    losses = 0.5 * np.square(matrix @ (np.stack(candidates, 1) - target[:, None])).sum(0)
    alone = 0.5 * np.square(matrix @ (output(0, jitter, missing=True) - target)).sum()
    return eps, shifts.astype(float), losses, np.array(alone)


def output(shift: int, jitter: int, missing: bool = False) -> Array:
    """The target with its third spike moved by ``shift`` ms or left out, and all moved a little by the jitter."""
    times = np.array(TARGET) + np.rint(jitter * _JITTER).astype(int)
    times[MOVED] += shift
    return trains(np.delete(times, MOVED) if missing else times)


def distance(shift: int, jitter: int, tau_decay: float, missing: bool) -> Distance:
    """The van Rossum distance of `output` and target.

    Args:
        shift: ms, up to `REACH` either way.
        jitter: ms, the largest displacement that is added to the spikes.
        tau_decay: ms; the rise is half as long.
        missing: leave the spike out instead.
    """
    eps, shifts, losses, _ = _curve(jitter, tau_decay)
    s, target = output(shift, jitter, missing), trains(TARGET)
    out, wanted = convolved(eps, s), convolved(eps, target)
    e = out - wanted
    return Distance(s, target, out, wanted, e, 0.5 * float(e @ e), shifts, losses)


def silence(jitter: int, tau_decay: float) -> float:
    """The distance when the third spike is missing."""
    return float(_curve(jitter, tau_decay)[3])


# One synapse.


class Factors(NamedTuple):
    """One synapse over a sequence, (T,) each."""

    x: Array
    p: Array
    q: Array
    U: Array
    s: Array
    target: Array
    f: Array
    raw: Array  # f q
    eligibility: Array  # eps * (f q)
    e: Array
    product: Array  # dL[n]/dw


def three_factors(
    x: ArrayLike,
    drive: ArrayLike,
    target: ArrayLike,
    *,
    alpha: float,
    beta: float,
    surrogate: Surrogate,
    eps: Array,
    theta: float = 1.0,
) -> Factors:
    """What the synapse of x (T,) is told, in a neuron whose synapses together deliver ``drive`` (T,).

    The reset is `subtract`. ``eps`` is the kernel of the error, at least (T,).
    """
    x, target = np.asarray(x, float), np.asarray(target, float)
    T = len(x)
    p = leaky(alpha, x)
    q = leaky(beta, p)
    I = U = s = 0.0
    states = []
    for drive_n in np.asarray(drive, float).tolist():
        I = alpha * I + drive_n
        U = beta * U - theta * s + I
        s = float(theta <= U)
        states.append((U, s))
    membrane, spikes = np.array(states).T
    f = surrogate.slope(torch.from_numpy(membrane - theta)).numpy()
    raw = f * q
    eligibility, e = convolved(eps[:T], raw), convolved(eps[:T], spikes - target)
    return Factors(x, p, q, membrane, spikes, target, f, raw, eligibility, e, e * eligibility)


# By hand: six steps, three input spikes.

HAND: dict[str, Any] = {"alpha": 0.5, "beta": 0.5, "theta": 1.0, "w": 0.8}
HAND_X = (1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
HAND_TARGET = (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
HAND_EPS = 4 * (0.5 ** np.arange(6) - 0.25 ** np.arange(6))  # 0, 1, 3/4, 7/16, ...


def by_hand() -> Factors:
    """The case that the notebook works out on paper; the slope is max(0, 1 - |U - theta|)."""
    return three_factors(
        HAND_X,
        HAND["w"] * np.array(HAND_X),
        HAND_TARGET,
        alpha=HAND["alpha"],
        beta=HAND["beta"],
        theta=HAND["theta"],
        surrogate=PiecewiseLinear(width=0.5),
        eps=HAND_EPS,
    )


# Panel C: 120 ms of one synapse among many.

STEPS = 120  # ms
WATCHED = (12, 30, 34, 62, 85)  # ms, the spikes of the synapse
WANTED = (40, 95)  # ms, the target spikes


@lru_cache(maxsize=1)
def background() -> Array:
    """Spikes a step of all other synapses together, frozen, (STEPS,): forty at 12 Hz."""
    return np.random.default_rng(5).poisson(40 * 12e-3, STEPS).astype(float)


@lru_cache(maxsize=8)  # Play moves the cursor only
def synapse(w: float, width: float, tau_mem: float, tau_syn: float, tau_decay: float) -> Factors:
    """The synapse of panel C.

    Args:
        w: weight of every synapse, the watched one and the others, threshold units per step.
        width: half width of the fast sigmoid's slope, threshold units; its peak is 1.
        tau_mem, tau_syn: ms.
        tau_decay: ms, of the error's filter, whose rise is half as long.
    """
    x = trains(WATCHED, STEPS)
    return three_factors(
        x,
        w * (background() + x),
        trains(WANTED, STEPS),
        alpha=math.exp(-1 / tau_syn),
        beta=math.exp(-1 / tau_mem),
        surrogate=FastSigmoid(width=width),
        eps=kernel(error_filter(tau_decay / 2, tau_decay), STEPS),
    )
