"""The numbers behind tutorial 03, and its exercises: mostly one neuron backwards in time.

Forward, with the decays alpha and beta, the threshold theta, and the weight w of one input x:

    I[n] = alpha * I[n-1] + w * x[n]
    U[n] = beta * U[n-1] - theta * s[n-1] + I[n]       or another reset
    s[n] = 1 where U[n] reaches theta

Backward, with the slope f[n] = sigma'(U[n] - theta) and the error e[n] = dL/ds[n] that arrives from outside:

    lam[n] = f[n] * e[n] + c[n] * lam[n+1]             dL/dU[n]
    kap[n] = lam[n] + alpha * kap[n+1]                 dL/dI[n];  dL/dw = sum_n kap[n] * x[n]

The panels call these functions at every move of a slider, so they work on numpy arrays in double precision.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from snnlearn.datasets import Split
from snnlearn.lessons.exercise import Exercise, first_of, normal
from snnlearn.network import Network
from snnlearn.resets import Update, subtract, to_zero
from snnlearn.rule import Rule
from snnlearn.surrogate import FastSigmoid
from snnlearn.tasks import Task
from snnlearn.temporal import Reset

Array = NDArray[np.float64]

UPDATES: dict[str, Update] = {"subtract θ (Eq. 8)": subtract, "to zero": to_zero}


class Run(NamedTuple):
    """One neuron forward in time: current, membrane, spikes, (T,) each."""

    I: Array
    U: Array
    s: Array


class Credit(NamedTuple):
    """The same neuron backward in time: dL/dU and dL/dI, (T,) each."""

    lam: Array
    kap: Array


def forward(x: ArrayLike, w: float, alpha: float, beta: float, theta: float = 1.0, update: Update = subtract) -> Run:
    """The neuron from rest under the input x (T,); the input acts at its own step."""
    membrane: Any = update  # written for tensors; the arithmetic of floats is the same
    I = U = s = 0.0
    states = []
    for drive in (w * np.asarray(x, float)).tolist():
        I = alpha * I + drive
        U = membrane(U, s, I, beta, theta)
        s = float(theta <= U)
        states.append((I, U, s))
    return Run(*np.array(states).T)


def carry(run: Run, f: Array, beta: float, theta: float, update: Update, seen: Reset) -> Array:
    """c[n] = dU[n+1]/dU[n], through the spike s[n] too where the gradient sees the reset; (T,).

    Raises:
        ValueError: the reset is neither `subtract` nor `to_zero`.
    """
    if update not in (subtract, to_zero):
        raise ValueError(f"the carry is written out for subtract and to_zero, not for {update!r}")
    if seen is Reset.IGNORED:
        return np.full_like(f, beta)
    through_membrane = np.full_like(f, beta) if update is subtract else beta * (1 - run.s)
    if seen is Reset.DETACHED:
        return through_membrane
    return through_membrane - f * (theta if update is subtract else beta * run.U)


def backward(f: Array, e: Array, c: Array, alpha: float) -> Credit:
    """The reverse recursion, from the last step to the first; all (T,)."""
    lam = kap = 0.0
    found = []
    for f_n, e_n, c_n in zip(f[::-1].tolist(), e[::-1].tolist(), c[::-1].tolist(), strict=True):
        lam = f_n * e_n + c_n * lam
        kap = lam + alpha * kap
        found.append((lam, kap))
    return Credit(*np.array(found[::-1]).T)


# The case that panel A shows: one input, 100 steps of 1 ms.

STEPS = 100
INPUT_STEPS = (3, 8, 11, 14, 22, 25, 27, 30, 34, 41, 47, 52, 55, 57, 61, 66, 70, 73, 76, 79, 84, 90, 95)


class Wave(NamedTuple):
    """All that panel A draws, (STEPS,) each."""

    x: Array
    run: Run
    f: Array
    e: Array
    c: Array
    credit: Credit


@lru_cache(maxsize=8)  # Play moves the cursor only
def wave(w: float, width: float, tau_mem: float, tau_syn: float, pulse: int, update: str, seen: Reset) -> Wave:
    """The neuron forward, and backward from an error e = 1 at the step `pulse` alone.

    Args:
        w: input weight, threshold units per step.
        width: half width of the fast sigmoid's slope, threshold units; its peak is 1.
        tau_mem, tau_syn: ms, at 1 ms a step.
        pulse: step of the error, 0..STEPS-1.
        update: one of `UPDATES`.
        seen: what the gradient sees of the reset.
    """
    x = np.zeros(STEPS)
    x[list(INPUT_STEPS)] = 1
    alpha, beta, theta = math.exp(-1 / tau_syn), math.exp(-1 / tau_mem), 1.0
    run = forward(x, w, alpha, beta, theta, UPDATES[update])
    f = FastSigmoid(width=width).slope(torch.from_numpy(run.U - theta)).numpy()
    e = np.zeros(STEPS)
    e[pulse] = 1
    c = carry(run, f, beta, theta, UPDATES[update], seen)
    return Wave(x, run, f, e, c, backward(f, e, c, alpha))


# What panel B shows: a network reads digits.


class Record(NamedTuple):
    """What a network did for every sample of a split; arrays, so that a panel only has to draw."""

    pixels: np.ndarray  # (N, 8, 8), 0..1
    inputs: np.ndarray  # (N, T, inputs), 0 or 1
    hidden: np.ndarray  # (N, T, hidden), 0 or 1
    out: np.ndarray  # (N, T, classes), the readouts' membranes
    scores: np.ndarray  # (N, classes)
    label: np.ndarray  # (N,)

    @property
    def answer(self) -> np.ndarray:
        """The class of the largest score, (N,)."""
        return self.scores.argmax(1)

    @property
    def mistakes(self) -> np.ndarray:
        """Which samples were answered wrongly, ascending."""
        return np.flatnonzero(self.answer != self.label)


def record(net: Network, rule: Rule, task: Task, split: Split) -> Record:
    """Run a two-layer network on 8 x 8 images, (N, 64) in the split, and keep what panel B draws."""
    with torch.no_grad():
        x = task.encode(split.x.to(next(net.parameters()).dtype))
        hidden, out = net(x, rule)
        scores = task.loss.scores(out.s)
    by_sample = [v.transpose(0, 1).numpy() for v in (x, hidden.s, out.s)]
    return Record(
        split.x.reshape(-1, 8, 8).numpy(),
        by_sample[0].astype(bool),
        by_sample[1].astype(bool),
        by_sample[2].astype(np.float32),
        scores.numpy(),
        split.y.numpy(),
    )


def strongest_other(scores: np.ndarray, label: int) -> int:
    """The class other than the label's with the largest score; scores (classes,)."""
    others = scores.astype(float)
    others[label] = -np.inf
    return int(others.argmax())


# Exercises: the references, and the slips that a wrong answer is compared with.


def reverse_step(f: Tensor, e: Tensor, lam_next: Tensor, beta: float, theta: float) -> Tensor:
    """lam[n] of a neuron that subtracts theta when it spikes."""
    return f * e + (beta - theta * f) * lam_next


def _explain_step(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    f, e, lam_next, beta, theta = arguments
    slips = {
        "That is credit for the same step only: what reaches U[n] from U[n+1] is missing": f * e,
        "The path through the reset is missing: s[n] also lowers U[n+1], by theta": f * e + beta * lam_next,
        "The reset lowers the membrane: its derivative is -theta": f * e + (beta + theta * f) * lam_next,
        "The reset subtracts theta, not 1": f * e + (beta - f) * lam_next,
        "The spike depends on U[n] through the slope: e[n] has to be multiplied by f[n]": e
        + (beta - theta * f) * lam_next,
    }
    return first_of(got, wanted, slips)


step_exercise = Exercise(
    "one step of the reverse recursion",
    reverse_step,
    [
        (torch.tensor(0.6).double(), torch.tensor(1.0).double(), torch.tensor(-0.5).double(), 0.9, 1.0),
        (normal(4, 3, seed=0).abs(), normal(4, 3, seed=1), normal(4, 3, seed=2), 0.95, 1.3),
    ],
    [
        "U[n] reaches the loss by two ways: through its own spike s[n], and through the next membrane U[n+1].",
        "U[n+1] = beta * U[n] - theta * s[n] + I[n+1] holds U[n] twice: as it is, and in s[n], whose slope is f[n].",
        "f * e + (what U[n+1] changes with U[n]) * lam_next",
    ],
    _explain_step,
)


def weight_gradient(kap: Tensor, x: Tensor) -> Tensor:
    """dL/dW, (out, in), from kap (T, B, out) and x (T, B, in)."""
    return torch.einsum("nbi,nbj->ij", kap, x)


def _explain_weight(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    kap, x = arguments
    T, B = x.shape[:2]
    slips = {
        "That is the last step only: W is the same at every step, so the steps add up": kap[-1].T @ x[-1],
        "That is the mean over the steps: they add up, because W is used at every one of them": wanted / T,
        "That is the mean over the batch: the loss has already been averaged, so samples add up here": wanted / B,
        "That is the mean over steps and batch: both add up": wanted / (T * B),
        "Sums over time were taken before the product: multiply step by step, then add": (
            kap.sum((0, 1)).outer(x.sum((0, 1)))
        ),
    }
    return first_of(got, wanted, slips)


weight_exercise = Exercise(
    "the gradient of the weights",
    weight_gradient,
    [(normal(5, 3, 2, seed=3), normal(5, 3, 4, seed=4)), (normal(1, 1, 3, seed=5), normal(1, 1, 2, seed=6))],
    [
        "The same W is used at every step and by every sample: each use adds its share.",
        "One step of one sample gives the outer product of kap[n, b] and x[n, b].",
        'torch.einsum("nbi,nbj->ij", kap, x), or the sum over n of kap[n].T @ x[n].',
    ],
    _explain_weight,
)


def carry_to_zero(U: Tensor, s: Tensor, f: Tensor, beta: float, kept: bool) -> Tensor:
    """c[n]; kept: does the gradient see the spike in (1 - s)?"""
    return beta * (1 - s) - (beta * U * f if kept else 0.0)


def _explain_carry(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    U, s, f, beta = arguments[:4]
    slips = {
        "That is the carry for subtraction with theta = 1; here U itself is multiplied by (1 - s)": beta - f,
        "A spike cuts the memory: beta * U * (1 - s) has the derivative beta * (1 - s) in U": beta - beta * U * f,
        "With the spike taken for a constant, (1 - s) still multiplies U": torch.full_like(U, beta),
        "kept=True wants the way through s[n] too: the derivative of (1 - s) is -f, times beta * U": beta * (1 - s),
        "kept=False takes the spike for a constant: no f then": beta * (1 - s) - beta * U * f,
        "The way through s[n] carries beta too": beta * (1 - s) - U * f,
        "The way through s[n] carries U[n]: that much is lost when it spikes": beta * (1 - s) - beta * f,
    }
    return first_of(got, wanted, slips)


_U = torch.tensor([0.4, 0.95, 1.2, 1.0, -0.3], dtype=torch.float64)
_F = torch.tensor([0.1, 0.8, 0.5, 1.0, 0.05], dtype=torch.float64)
carry_exercise = Exercise(
    "the carry of a reset to zero",
    carry_to_zero,
    [(_U, (_U >= 1).double(), _F, 0.9, False), (_U, (_U >= 1).double(), _F, 0.9, True)],
    [
        "Differentiate beta * U * (1 - s) by U, first with s a constant.",
        "Then let s depend on U: the product rule adds a second term, and ds/dU is the slope f.",
        "beta * (1 - s), and for kept=True also - beta * U * f",
    ],
    _explain_carry,
)


def mean_error(out: Tensor, y: Tensor) -> Tensor:
    """e = dL/dout, (T, B, C), for scores that are means over time."""
    T, B, C = out.shape
    p = torch.softmax(out.mean(0), 1)
    e = (p - torch.eye(C, dtype=out.dtype)[y]) / (B * T)
    return e.expand(T, B, C)


def _explain_mean(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    out, y = arguments
    T, B, C = out.shape
    label = torch.eye(C, dtype=out.dtype)[y]
    slips = {
        "The factor 1/T is missing: each step has only a T-th part in the mean": wanted * T,
        "The factor 1/B is missing: the loss is averaged over the batch": wanted * B,
        "The factors 1/T and 1/B are missing": wanted * T * B,
        "The sign is turned: the error is the probability minus the label": -wanted,
        "The softmax is taken of the mean, not of every step": (torch.softmax(out, 2) - label) / (B * T),
        "The label is missing: subtract 1 from the probability of the right class": (wanted + label / (B * T)),
    }
    return first_of(got, wanted, slips)


mean_exercise = Exercise(
    "the error at a readout that is averaged over time",
    mean_error,
    [
        (normal(6, 2, 3, seed=7), torch.tensor([2, 0])),
        (normal(4, 5, 10, seed=8), torch.tensor([1, 9, 0, 3, 3])),
    ],
    [
        "The derivative of the cross-entropy by the scores is: probabilities minus the one-hot label.",
        "The score is the mean of out over the T steps, so each step gets 1/T of that. The batch is averaged: 1/B.",
        "softmax(out.mean(0)) - one_hot(y), divided by B * T, the same for all T steps: expand it to (T, B, C).",
    ],
    _explain_mean,
)
