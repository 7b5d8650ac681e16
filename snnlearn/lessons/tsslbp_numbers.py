"""The numbers behind tutorial 07: credit through firing times (TSSL-BP, Zhang & Li 2020).

Time is in steps. One neuron under currents I, reset to zero (the authors' code), and the current that its spikes cause:

    U[n] = beta * U[n-1] * (1 - s[n-1]) + I[n],  s[n] = 1 where U[n] exceeds theta,  beta = 1 - 1/tau_m
    a[n] = r * a[n-1] + s[n] / tau_s,  r = 1 - 1/tau_s,  that is eps[k] = r**k / tau_s

Backward, with g[k] = dL/da[k], e[n] = sum_(k>=n) eps[k-n] g[k] = dL/ds[n], and u' the rise of U over one step:

    lam[n] = f[n] * e[n] + c[n] * lam[n+1],  f = s * min(1/u', largest),  c = beta * (1 - s) + f * U / tau_m

The panels call these functions at every move of a slider, so they work on numpy arrays in double precision.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
THETA = 1.0


class Run(NamedTuple):
    """One neuron forward in time: membrane, its rise since the reset membrane before, spikes; (T,) each."""

    U: Array
    rise: Array
    s: Array


def forward(I: ArrayLike, tau_m: float, theta: float = THETA) -> Run:
    """The neuron from rest under the currents I (T,)."""
    left, states = 0.0, []
    for I_n in np.asarray(I, float).tolist():
        U = (1 - 1 / tau_m) * left + I_n
        s = float(theta < U)
        states.append((U, U - left, s))
        left = U * (1 - s)
    return Run(*np.array(states).T)


def kernel(tau_s: float, steps: int) -> Array:
    """eps[k] = (1 - 1/tau_s)**k / tau_s, (steps,)."""
    return np.asarray((1 - 1 / tau_s) ** np.arange(steps) / tau_s)


def currents(s: ArrayLike, tau_s: float) -> Array:
    """The postsynaptic current a of the spikes s, (T,)."""
    s = np.asarray(s, float)
    return np.convolve(s, kernel(tau_s, len(s)))[: len(s)]


def errors(g: ArrayLike, tau_s: float) -> Array:
    """e[n] = sum over k >= n of eps[k-n] * g[k], (T,): the filter of `currents`, run backwards."""
    return currents(np.asarray(g, float)[::-1], tau_s)[::-1]


# Credit: by pairs of times as the paper writes it, and by the recursion.


class Heuristics(NamedTuple):
    """What of the authors' code is switched on; `EQUATIONS` is the paper and nothing else."""

    largest: float = 8.0
    fallback: bool = True
    intra: bool = True
    leak: bool = True


CODE = Heuristics()
EQUATIONS = Heuristics(largest=math.inf, fallback=False, leak=False)


def slope(run: Run, largest: float = math.inf) -> Array:
    """f = s * min(1/u', largest), Eq. 12 with the sign of the code; (T,)."""
    f = np.zeros_like(run.U)
    fired = run.s > 0
    f[fired] = np.minimum(1 / run.rise[fired], largest)
    return f


def pairs(run: Run, tau_m: float, tau_s: float, which: Heuristics = EQUATIONS) -> Array:
    """phi(t_k, t_m) of Eqs. 11-14 in row k and column m, (T, T); with the code's leak too if ``which`` has it."""
    T, beta, f, eps = len(run.U), 1 - 1 / tau_m, slope(run, which.largest), kernel(tau_s, len(run.U))
    phi, p = np.zeros((T, T)), None  # p: the next spike
    for m in reversed(range(T)):
        if run.s[m]:
            phi[m:, m] = eps[: T - m] * f[m]  # Eqs. 11-12
            if p is not None and which.intra:
                phi[:, m] += phi[:, p] * beta ** (p - m - 1) * run.U[m] / tau_m * f[m]  # Eq. 13
            p = m
        elif p is not None and which.intra and which.leak:
            phi[:, m] = phi[:, p] * beta ** (p - m)
    return phi


def carry(run: Run, f: Array, tau_m: float) -> Array:
    """c[n], what of the credit of step n+1 comes back to step n; (T,)."""
    return (1 - 1 / tau_m) * (1 - run.s) + f * run.U / tau_m


def recursion(f: ArrayLike, e: ArrayLike, c: ArrayLike) -> Array:
    """lam[n] = f[n] e[n] + c[n] lam[n+1], from the last step to the first; all (T,)."""
    lam, found = 0.0, []
    for f_n, e_n, c_n in zip(*(np.asarray(v, float)[::-1].tolist() for v in (f, e, c)), strict=True):
        lam = f_n * e_n + c_n * lam
        found.append(lam)
    return np.array(found[::-1])


def sigmoid_slope(U: ArrayLike, theta: float = THETA, width: float = 0.2) -> Array:
    """The code's fallback, a sigmoid's derivative of area 1, its argument held within -8 .. 8."""
    z = np.exp(np.clip((theta - np.asarray(U, float)) / width, -8, 8))
    return z / ((1 + z) ** 2 * width)


def credit(run: Run, g: ArrayLike, tau_m: float, tau_s: float, which: Heuristics = CODE) -> Array:
    """dL/dI[n], what each step's input current is given, (T,)."""
    e, f = errors(g, tau_s), slope(run, which.largest)
    lam = recursion(f, e, carry(run, f, tau_m) if which.intra else np.zeros_like(f))
    found = lam if which.leak else lam * run.s
    if which.fallback:
        weak = currents(run.s, tau_s) < 1 / (4 * tau_s)
        found = np.where(weak, sigmoid_slope(run.U) * e, found)
    return found


def surrogate_credit(run: Run, g: ArrayLike, tau_m: float, tau_s: float) -> Array:
    """dL/dI[n] by BPTT with the fallback's sigmoid at every step, the reset kept; (T,)."""
    f, beta = sigmoid_slope(run.U), 1 - 1 / tau_m
    return recursion(f, errors(g, tau_s), beta * (1 - run.s) - beta * run.U * f)


def likeness(a: Array, b: Array) -> tuple[float, float]:
    """The cosine of a and b, and the ratio of their lengths |a| / |b|; 0 for what is zero."""
    length, other = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not length or not other:
        return 0.0, 0.0
    return float(a.ravel() @ b.ravel() / length / other), length / other


# Panel A: a spike moves.

STEPS = 24


class Shift(NamedTuple):
    """One spike, and the same with the membrane raised by a nudge. Without a spike times are inf, currents 0."""

    U: Array  # (STEPS,), without a reset
    step: int | None  # the step at which the discrete neuron fires
    rise: float  # u', per step
    times: tuple[float, float]  # where the membrane, joined up by lines, crosses theta: without and with the nudge
    exact: Array  # (STEPS,), change of the current, averaged over each step, per unit of the membrane
    printed: Array  # (STEPS,), Eqs. 11-12 with their sign
    code: Array  # (STEPS,), Eqs. 11-12 without it


def crossing(U: Array, theta: float = THETA) -> tuple[int | None, float]:
    """The first step with U above theta, and the time at which lines through U cross it; (None, inf) if none does."""
    above = np.flatnonzero(theta < U)
    if not len(above):
        return None, math.inf
    m = int(above[0])
    low = float(U[m - 1]) if m else 0.0
    return m, m - (float(U[m]) - theta) / (float(U[m]) - low)


def waveform(t: ArrayLike, fired: float, tau_s: float) -> Array:
    """eps(t - fired), in continuous time, 0 before the spike."""
    late = np.asarray(t, float) - fired
    return np.where(late >= 0, (1 - 1 / tau_s) ** np.maximum(late, 0) / tau_s, 0.0)


def _per_step(fired: float, tau_s: float) -> Array:
    """`waveform` averaged over n - 1/2 .. n + 1/2 for each step n, (STEPS,)."""
    if not math.isfinite(fired):
        return np.zeros(STEPS)
    r = 1 - 1 / tau_s
    edges = np.maximum(np.arange(STEPS + 1) - 0.5 - fired, 0)
    return -np.diff(r**edges) / (tau_s * -math.log(r))


@functools.lru_cache(maxsize=8)
def shift(w: float, nudge: float, tau_s: float, tau_m: float = 8.0) -> Shift:
    """What panel A draws: one input spike at step 2, by the weight w, onto a membrane that does not reset.

    Args:
        w: weight, units of theta.
        nudge: by which the membrane is raised, units of theta; > 0.
        tau_s, tau_m: steps, tau_s > 1.
    """
    s = np.zeros(STEPS)
    s[2] = 1
    U, beta = np.zeros(STEPS), 1 - 1 / tau_m
    for n, I in enumerate(w * currents(s, tau_s)):
        U[n] = beta * (U[n - 1] if n else 0.0) + I
    m, t = crossing(U)
    _, nudged = crossing(U + nudge)
    exact = (_per_step(nudged, tau_s) - _per_step(t, tau_s)) / nudge
    printed, code, rise = np.zeros(STEPS), np.zeros(STEPS), 0.0
    if m is not None:
        rise = float(U[m] - U[m - 1])
        code[m:] = kernel(tau_s, STEPS - m) / rise
        printed = code * math.log(1 - 1 / tau_s)
    return Shift(U, m, rise, (t, nudged), exact, printed, code)


class Pushes(NamedTuple):
    """dL/du of a spike: what is true when the whole current moves, Eqs. 11-12 as printed, and as in the code."""

    exact: float
    printed: float
    code: float


def pushes(late: float, tau_s: float, rise: float) -> Pushes:
    """For L = 1/2 int (a - a_d)**2 dt, in continuous time, and a spike that is ``late`` steps behind its target.

    Below, A is int eps(t) eps(t + late) dt of eps(t) = exp(-t/tau_s) / tau_s, and L = A(0) - A(late).

    Args:
        late: steps; negative for a spike that comes too early.
        tau_s: steps.
        rise: u', per step.
    """
    A0 = 1 / (2 * tau_s)
    A = A0 * math.exp(-abs(late) / tau_s)
    e = A0 - A  # int over t >= t_m of eps(t - t_m) * (a - a_d)
    return Pushes(-float(np.sign(late)) * A / tau_s / rise, -e / tau_s / rise, e / rise)


# The next spike, for a constant drive in continuous time.


def charged(t: ArrayLike, top: float, tau_m: float) -> Array:
    """A membrane that charges from 0 at t = 0 towards ``top``."""
    return np.asarray(top * -np.expm1(-np.asarray(t, float) / tau_m))


def period(top: float, tau_m: float, theta: float = THETA) -> float:
    """Steps from a reset to the next spike; inf where the drive does not reach theta."""
    return tau_m * math.log(top / (top - theta)) if top > theta else math.inf


def reset_share(top: float, tau_m: float, theta: float = THETA) -> float:
    """dt_p/dt_m by Eq. 13: (dnu[t_p]/dt_m) / -u'(t_p) for nu = -theta exp(-(t_p - t_m)/tau_m). The truth is 1."""
    decay = math.exp(-period(top, tau_m, theta) / tau_m)
    return (theta / tau_m * decay) / (top / tau_m * decay)


# Panel B: one neuron, target [0, 1, 0, 0] again and again.

LENGTH = 40


class Trial(NamedTuple):
    """What panel B draws, (LENGTH,) each."""

    run: Run
    a: Array
    wanted: Array  # the current of the target spikes
    code: Array
    chosen: Array
    bptt: Array


@functools.lru_cache(maxsize=16)
def trial(drive: float, tau_s: float, which: Heuristics, tau_m: float = 6.0) -> Trial:
    """One neuron under a noisy current, and its credit by the code, by the chosen heuristics, and by BPTT.

    Args:
        drive: mean of the current, units of theta per step.
        tau_s, tau_m: steps.
        which: what is switched on.
    """
    noise = np.random.default_rng(3).standard_normal(LENGTH)
    run = forward(drive * (1 + 0.5 * noise), tau_m)
    a = currents(run.s, tau_s)
    wanted = currents(np.arange(LENGTH) % 4 == 1, tau_s)
    g = a - wanted
    code, chosen = (credit(run, g, tau_m, tau_s, h) for h in (CODE, which))
    return Trial(run, a, wanted, code, chosen, surrogate_credit(run, g, tau_m, tau_s))


# A referee: the gradient of the loss with noise on the weights, which exists.


def layer_losses(W: Array, a_in: Array, wanted: Array, tau_m: float, tau_s: float) -> Array:
    """The loss of many neurons at once: W (neurons, in), a_in (T, in), wanted (T,) or (T, neurons), to (neurons,)."""
    beta, r = 1 - 1 / tau_m, 1 - 1 / tau_s
    left, a, total = np.zeros(len(W)), np.zeros(len(W)), np.zeros(len(W))
    for I, target in zip(a_in @ W.T, wanted, strict=True):
        U = beta * left + I
        s = U > THETA
        left, a = U * ~s, r * a + s / tau_s
        total += 0.5 * (a - target) ** 2
    return total


def smoothed_gradient(
    w: Array, a_in: Array, wanted: Array, tau_m: float, tau_s: float, *, noise: float = 0.1, draws: int = 10000
) -> Array:
    """The gradient of the mean loss of w + noise * xi over normal xi, estimated from pairs +xi, -xi; (in,).

    Args:
        w: weights of one neuron, (in,).
        a_in: input currents, (T, in).
        wanted: target current, (T,).
        tau_m, tau_s: steps.
        noise: standard deviation, in the weights' units.
        draws: pairs.
    """
    xi = np.random.default_rng(0).standard_normal((draws, len(w)))
    plus, minus = (layer_losses(w + sign * noise * xi, a_in, wanted, tau_m, tau_s) for sign in (1, -1))
    return (plus - minus) @ xi / (2 * noise * draws)


def mean_likeness(found: Iterable[Array], reference: Iterable[Array]) -> tuple[float, float]:
    """The mean cosine and the median ratio of lengths over several gradients."""
    cosines, ratios = zip(*(likeness(a, b) for a, b in zip(found, reference, strict=True)), strict=True)
    return float(np.mean(cosines)), float(np.median(ratios))
