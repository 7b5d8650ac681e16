"""The exercises of tutorial 07: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of


def _before(U: Tensor, s: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=U.dtype), (U * (1 - s))[:-1]])


def slope_of_spikes(U: Tensor, s: Tensor, largest: float) -> Tensor:
    """f[n] of Eq. 12, all (T,), the neuron at rest before."""
    left = U * (1 - s)  # after the reset
    rise = U - torch.cat([torch.zeros(1, dtype=U.dtype), left[:-1]])
    return torch.where(s > 0, (1 / rise).clamp(max=largest), 0.0)


def _explain_slope(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    U, s, largest = arguments
    rise, unreset = U - _before(U, s), U - torch.cat([torch.zeros(1, dtype=U.dtype), U[:-1]])
    slips = {
        "The sign: Eq. 12 has -1/u', but the code's gradient works with +1/u'": -wanted,
        "The limit is missing": torch.where(s > 0, 1 / rise, 0.0),
        "Steps without a spike have no firing time: f is 0 there": (1 / rise).clamp(0, largest),
        "Take the rise from the membrane after the reset: it starts from 0 behind a spike": torch.where(
            s > 0, (1 / unreset).clamp(0, largest), 0.0
        ),
        "That is u' itself: dt/du is one over it": torch.where(s > 0, rise.clamp(max=largest), 0.0),
    }
    return first_of(got, wanted, slips)


_U = torch.tensor([0.8, 1.2, 1.4, 0.96, 1.01, 0.5, 0.45], dtype=torch.float64)
_S = (_U > 1).double()
slope_exercise = Exercise(
    "f, how far a spike moves",
    slope_of_spikes,
    [(_U, _S, 8.0), (_U, _S, 2.0)],
    [
        "u' is the rise over one step: U[n] minus what was left of U[n-1] after the reset, U[n-1] * (1 - s[n-1]).",
        "At n = 0 nothing was there before: the rise is U[0]. Where s = 0, f = 0, whatever the rise.",
        "torch.where(s > 0, (1 / rise).clamp(max=largest), 0.0)",
    ],
    _explain_slope,
)


def carry_of_spikes(U: Tensor, s: Tensor, f: Tensor, tau_m: float) -> Tensor:
    """c[n] of the intra-neuron recursion, all (T,)."""
    return (1 - 1 / tau_m) * (1 - s) + f * U / tau_m


def _explain_carry(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    U, s, f, tau_m = arguments
    beta = 1 - 1 / tau_m
    slips = {
        "A spike cuts the leak: beta belongs to the silent steps only": torch.full_like(U, beta) + f * U / tau_m,
        "The way through the firing time is missing: f * U / tau_m at a spike": beta * (1 - s),
        "At silent steps the credit leaks with beta": f * U / tau_m,
        "The reset takes away U, not 1: the code resets to zero": beta * (1 - s) + f / tau_m,
        "dnu/dt has the factor 1/tau_m": beta * (1 - s) + f * U,
        "The sign: the reset comes earlier, so more of it has leaked away": beta * (1 - s) - f * U / tau_m,
        "That is the carry of BPTT with a reset to zero": beta * (1 - s) - beta * U * f,
    }
    return first_of(got, wanted, slips)


_F = slope_of_spikes(_U, _S, 8.0)
carry_exercise = Exercise(
    "the carry of firing times",
    carry_of_spikes,
    [(_U, _S, _F, 4.0), (_U, _S, _F, 10.0)],
    [
        "Between two spikes Eq. 13's factor is beta**(p-m-1): which number per silent step makes that product?",
        "At a spike it is dnu/dt_m * dt_m/du: minus U/tau_m, times minus f.",
        "beta * (1 - s) + f * U / tau_m",
    ],
    _explain_carry,
)


HEURISTICS = ("limit", "fallback", "intra", "leak")


def weight_gets_credit(without: str) -> bool:
    """Whether the weights of a neuron that never fires have a gradient when this heuristic is switched off."""
    # s = 0 everywhere, so f = 0 and lam = 0: limit, intra and leak all act on nothing.
    return without != "fallback"


def _explain_silent(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    (without,) = arguments
    reasons = {
        "fallback": "No spike, no firing time: f = 0, so lam = 0 at every step. Only the fallback is left",
        "leak": "The leak hands the credit of a later spike back in time, and there is no later spike",
        "intra": "The intra-neuron term joins two spikes, and there is none",
        "limit": "The limit makes f smaller, and f is 0 already",
    }
    return reasons[without]


silent_exercise = Exercise(
    "who wakes a silent neuron?",
    weight_gets_credit,
    [(name,) for name in HEURISTICS],
    [
        "What is f[n] of a neuron that never fires? And lam[n], from the last step to the first?",
        "Which of the four does not multiply f or lam?",
        'The fallback alone: return without != "fallback"',
    ],
    _explain_silent,
)
