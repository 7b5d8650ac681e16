"""The exercises of tutorial 08: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise


def _first_of(got: Tensor, wanted: Tensor, slips: dict[str, float]) -> str | None:
    """The sentence of the first slip that gives what we got and is not right by accident."""

    def like(a: Tensor, b: float) -> bool:
        return math.isclose(a.item(), b, rel_tol=1e-6, abs_tol=1e-9)

    return next((text for text, value in slips.items() if like(got, value) and not like(wanted, value)), None)


def spike_time(w: Tensor, t: Tensor, theta: float) -> Tensor:
    """The spike time from weights and times of the causal inputs, (n,), in units of tau_syn."""
    z = torch.exp(t)
    return torch.log((w * z).sum() / (w.sum() - theta))


def _explain_time(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    w, t, theta = arguments
    z, total = torch.exp(t), float(w.sum())
    top = float((w * z).sum())
    slips = {
        "That is z_out: the time is its logarithm": top / (total - theta),
        "The threshold is missing below": math.log(top / total),
        "The sign of the threshold: the weights must exceed it": math.log(top / (total + theta)),
        "The threshold belongs to z_out, so below the line, not above": math.log(abs(top - theta) / total),
        "Average z, not t: the crossing is linear in z = exp(t)": float((w * t).sum()) / (total - theta),
    }
    return _first_of(got, wanted, slips)


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


time_exercise = Exercise(
    "the spike time",
    spike_time,
    [(_numbers(0.8, 0.7, 0.5), _numbers(0, 0.7, 1.4), 1.0), (_numbers(1.5, -0.4, 1.6), _numbers(0.2, 0.5, 0.6), 1.3)],
    [
        "Put z = exp(t). At the spike, the sum of w_i * (1 - z_i / z) is theta. Multiply by z.",
        "Then z * (sum of w - theta) = sum of w z. Solve for z; t is its logarithm.",
        "torch.log((w * torch.exp(t)).sum() / (w.sum() - theta))",
    ],
    _explain_time,
)


def causal_size(w: Tensor, t: Tensor, theta: float) -> int:
    """How many inputs come before the spike, 0 if there is none; w and t (n,) in order of arrival, t in tau_syn."""
    z = torch.exp(t)
    for n in range(1, len(w) + 1):
        over = w[:n].sum() - theta
        following = z[n] if n < len(w) else math.inf
        if over > 0 and (w[:n] * z[:n]).sum() / over <= following:
            return n
    return 0


def _sizes(w: Tensor, t: Tensor, theta: float) -> tuple[list[bool], list[bool]]:
    """For each size: whether the weights exceed theta, and whether the crossing comes before the next input."""
    z, n = torch.exp(t), len(w)
    over = w.cumsum(0) - theta
    out = (w * z).cumsum(0) / over
    following = torch.cat([z[1:], _numbers(math.inf)])
    return (over > 0).tolist(), [bool(out[i] <= following[i]) for i in range(n)]


def _explain_size(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    w, t, theta = arguments
    strong, early = _sizes(w, t, theta)

    def first(conditions: list[bool]) -> int:
        return next((i + 1 for i, holds in enumerate(conditions) if holds), 0)

    slips = {
        "Counted from 0? The set of the first input alone has the size 1": float(wanted) - 1 if wanted > 0 else -1.0,
        "Weights above theta are not enough: the next input may come before the crossing": float(first(strong)),
        "A z_out from weights below theta is no crossing": float(first(early)),
        "Inputs after the spike have no part in it": float(len(w)),
    }
    return _first_of(got, wanted, slips)


_LATE = _numbers(0, 0.5, 1.0, 1.5)
set_exercise = Exercise(
    "the causal set",
    causal_size,
    [
        (_numbers(0.8, 0.7, -0.2, 0.5), _LATE, 1.0),  # 1.5 > theta after two, but the third and fourth come first
        (_numbers(1.2, -0.5, 0.2, 3.0), _LATE, 1.0),  # 1.2 > theta after one, but 0.7 after two
        (_numbers(3.0, 0.5, 0.5, 0.5), _LATE, 1.0),
        (_numbers(0.3, 0.3, 0.1, 0.1), _LATE, 1.0),
    ],
    [
        "Try the first input alone, then the first two, and so on. The first size that works is the answer.",
        "Two conditions: the weights of the set exceed theta, and its z_out is not later than the next input's z.",
        "Behind the last input nothing follows, so only the first condition counts. If no size works: 0.",
    ],
    _explain_size,
)


def after_jump(lV: float, error: float, current: float, theta: float) -> float:
    """lV just before a spike, from lV just after it, dL/dt of the spike, and I at the spike."""
    return lV + (theta * lV + error) / (current - theta)


def _explain_jump(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    lV, error, current, theta = arguments
    jump = (theta * lV + error) / (current - theta)
    slips = {
        "That is the jump alone: add it to lV": jump,
        "The way through the reset is missing: theta * lV": lV + error / (current - theta),
        "The membrane rises with I - theta at the spike, not with I": lV + (theta * lV + error) / current,
        "Divide by the slope: a membrane that rises fast moves its spike little": lV
        + (theta * lV + error) * (current - theta),
        "The sign: going backwards, the jump is added": lV - jump,
        "The reset takes off theta, not 1": lV + (lV + error) / (current - theta),
    }
    return _first_of(got, wanted, slips)


jump_exercise = Exercise(
    "the jump of lV",
    after_jump,
    [(0.0, -2.0, 3.5, 1.0), (0.6, 1.5, 4.0, 1.2), (-0.4, 0.0, 2.0, 0.8)],
    [
        "Two ways lead from V before the spike to the loss: the spike itself moves, and so does the membrane after it.",
        "The first gives error / (I - theta), the second lV * I / (I - theta). Add them.",
        "(current * lV + error) / (current - theta), or: lV plus a jump of (theta * lV + error) / (current - theta)",
    ],
    _explain_jump,
)
