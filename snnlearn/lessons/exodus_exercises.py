"""The exercises of tutorial 06, with their reference solutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of, normal


def loop_derivative(s: Tensor, v: float) -> Tensor:
    """ds/dz where phi = s - logistic(z - v s) is 0: phi_s = 1 + v f, phi_z = -f."""
    f = s * (1 - s)
    return f / (1 + v * f)


def _explain_loop(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    s, v = arguments
    f = s * (1 - s)
    slips = {
        "The loop is left out: s also stands inside the logistic function": f,
        "The sign inside: s is fed back with -v, so phi_s = 1 + v f": f / (1 - v * f),
        "That is one round of the loop only; it goes round for ever": f - v * f**2,
        "Turned over: that is dz/ds": (1 + v * f) / f,
        "The minus sign of the theorem meets that of phi_z = -f": -wanted,
        "Above the line is -phi_z = f, not 1": 1 / (1 + v * f),
    }
    return first_of(got, wanted, slips)


theorem_exercise = Exercise(
    "ds/dz by the theorem",
    loop_derivative,
    [(torch.tensor([0.1, 0.5, 0.7, 0.95], dtype=torch.float64), v) for v in (2.0, 6.0, -1.5)],
    [
        "Write phi(z, s) = s - logistic(z - v s). The slope of the logistic function is f = s (1 - s).",
        "phi_z = -f. For phi_s both places count in which s stands: phi_s = 1 + v f.",
        "-phi_z / phi_s = f / (1 + v f)",
    ],
    _explain_loop,
)


def exodus(e: Tensor, f: Tensor, beta: float, theta: float) -> Tensor:
    """d = dL/da, (T,), in one pass from the last step to the first."""
    d = torch.zeros_like(e)
    later = torch.zeros(())  # d[T], after the end
    for n in reversed(range(len(e))):
        d[n] = later = f[n] * e[n] + (beta - theta * f[n]) * later
    return d


def _pass(e: Tensor, f: Tensor, c: Tensor) -> Tensor:
    """d[n] = f[n] e[n] + c[n] d[n+1], in whatever order the arguments come."""
    found, later = [], torch.zeros(())
    for n in reversed(range(len(e))):
        later = f[n] * e[n] + c[n] * later
        found.append(later)
    return torch.stack(found[::-1])


def _explain_exodus(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    e, f, beta, theta = arguments
    c = beta - theta * f
    slips = {
        "That is SLAYER: the reset is missing from the carry": _pass(e, f, torch.full_like(f, beta)),
        "The reset lowers the membrane: its part of the carry is -theta * f": _pass(e, f, beta + theta * f),
        "The reset subtracts theta, not 1": _pass(e, f, beta - f),
        "The carry of step n has f[n] (Eq. 18 begins its product at m = n), not f[n+1]": _pass(e, f, c.roll(-1)),
        "f[n] has to multiply e[n] as well (Eq. 19)": _pass(e, torch.ones_like(f), c),
        "Credit runs backward: begin at the last step": _pass(e.flip(0), f.flip(0), c.flip(0)).flip(0),
        "Only the step's own error is there; what comes from d[n+1] is missing": f * e,
    }
    return first_of(got, wanted, slips)


recursion_exercise = Exercise(
    "Eq. 19 in one pass",
    exodus,
    [(normal(9, seed=0), normal(9, seed=1).abs(), 0.9, 1.3), (normal(5, seed=2), normal(5, seed=3).abs(), 1.0, 1.0)],
    [
        "Take the term k = n out of the sum of Eq. 19. What is left begins at k = n+1.",
        "In each of those terms zeta_n[k] = (beta - theta * f[n]) * zeta_(n+1)[k]: the factor comes before the sum.",
        "d[n] = f[n] * e[n] + (beta - theta * f[n]) * d[n+1], from n = T-1 down, with 0 after the end.",
    ],
    _explain_exodus,
)


def three_carries(U: Tensor, s: Tensor, f: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """dU[n+1]/dU[n] of beta U[n] (1 - s[n]) + I[n+1]: kept, detached, absent."""
    detached = beta * (1 - s)  # s is a constant, but it still multiplies U
    kept = detached - beta * U * f  # and through s: d(1 - s)/dU = -f
    absent = torch.full_like(U, beta)  # as if the line read beta U[n] + I[n+1]
    return kept, detached, absent


def _explain_three(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    U, _, f, beta = arguments
    kept, detached, absent = wanted
    named = {
        "kept": (
            got[0],
            kept,
            {
                "beta - f is for subtraction; here U itself is multiplied by (1 - s)": beta - f,
                "the way through s[n] is missing: the product rule adds -beta * U * f": detached,
                "a spike cuts the memory too: beta * (1 - s), not beta": beta - beta * U * f,
                "the way through s[n] carries beta * U[n]": detached - f,
            },
        ),
        "detached": (
            got[1],
            detached,
            {
                "a constant s still multiplies U: after a spike nothing is left": absent,
                "a constant has no slope: no f here": kept,
            },
        ),
        "absent": (got[2], absent, {"as if there were no reset at all: not even the factor (1 - s)": detached}),
    }
    for name, (mine, right, slips) in named.items():
        sentence = first_of(mine, right, slips)
        if sentence:
            return f"{name}: {sentence}"
    return None


_U = torch.tensor([0.4, 0.95, 1.2, 1.6, -0.3], dtype=torch.float64)
_F = torch.tensor([0.1, 0.8, 0.5, 0.3, 0.05], dtype=torch.float64)
to_zero_exercise = Exercise(
    "the three carries of a reset to zero",
    three_carries,
    [(_U, (_U >= 1).double(), _F, 0.9), (_U, (_U >= 1).double(), _F, 0.5)],
    [
        "Detached: differentiate beta * U * (1 - s) by U with s a constant. Absent: there is no (1 - s) at all.",
        "Kept: the product rule. s[n] depends on U[n] with slope f[n], so (1 - s) has the derivative -f.",
        "beta * (1 - s) - beta * U * f, beta * (1 - s), and beta (as large as U: torch.full_like(U, beta)).",
    ],
    _explain_three,
)


def code_carry(f: Tensor, beta: float, theta: float) -> Tensor:
    """dU[n+1]/dU[n] of U[n+1] = beta (U[n] - theta s[n]) + I[n+1]."""
    return beta * (1 - theta * f)


def _explain_code(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    f, beta, theta = arguments
    slips = {
        "That is the paper's reset. Here the spike is subtracted inside the bracket and decays too": beta - theta * f,
        "That is SLAYER's carry: s[n] depends on U[n] as well": torch.full_like(f, beta),
        "theta is missing: the spike takes theta away, not 1": beta * (1 - f),
        "The sign: a spike lowers the membrane": beta * (1 + theta * f),
    }
    return first_of(got, wanted, slips)


code_exercise = Exercise(
    "the carry of the authors' code",
    code_carry,
    [(torch.tensor([0.0, 0.3, 1.0, 4.0], dtype=torch.float64), 0.9, 1.5)],
    ["beta multiplies the whole bracket, U[n] and theta * s[n] alike.", "ds[n]/dU[n] = f[n]: beta * (1 - theta * f)"],
    _explain_code,
)
