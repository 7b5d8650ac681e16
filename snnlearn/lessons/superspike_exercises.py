"""The exercises of tutorial 05: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of, normal


def _train(steps: int, *times: int) -> Tensor:
    s = torch.zeros(steps, dtype=torch.float64)
    s[list(times)] = 1
    return s


def error_trace(eps: Tensor, s: Tensor, target: Tensor) -> Tensor:
    """e[n] = sum_k eps[k] * (s[n-k] - target[n-k]), all (T,)."""
    T, d = len(s), s - target
    return torch.stack([sum((eps[k] * d[n - k] for k in range(n + 1)), torch.zeros(()).double()) for n in range(T)])


def _explain_trace(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    eps, s, target = arguments
    d = s - target
    slips = {
        "The sign is turned: the error is output minus target": -wanted,
        "That is the difference of the spikes alone: it has to be filtered by eps": d,
        "Only the output is filtered; the target goes through eps as well": error_trace(eps, s, 0 * s) - target,
        "That is the filtered output: the target is missing": error_trace(eps, s, 0 * s),
        "The filter looks into the future: eps[k] belongs to n - k, not to n + k": error_trace(
            eps, d.flip(0), 0 * s
        ).flip(0),
    }
    return first_of(got, wanted, slips)


_EPS = 4 * (0.5 ** torch.arange(9).double() - 0.25 ** torch.arange(9).double())

trace_exercise = Exercise(
    "the error trace",
    error_trace,
    [
        (_EPS[:5], _train(5, 1), _train(5, 2)),
        (_EPS, _train(9, 0, 3, 4), _train(9, 2, 7)),
    ],
    [
        "A spike at step m adds eps[n - m] to every later step n. The filter is linear: filter the difference.",
        "e[n] is a sum over k = 0..n of eps[k] times the difference at step n - k.",
        "two loops: for n in range(T): for k in range(n + 1): e[n] += eps[k] * (s[n - k] - target[n - k])",
    ],
    _explain_trace,
)


def eligibility_step(p: Tensor, q: Tensor, x: Tensor, f: Tensor, alpha: float, beta: float) -> Tensor:
    """f q at this step, (post, pre), from the traces p and q of the step before, (pre,)."""
    p = alpha * p + x
    q = beta * q + p
    return f[:, None] * q


def _explain_eligibility(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    p, q, x, f, alpha, beta = arguments
    new_p = alpha * p + x
    new_q = beta * q + new_p
    one = torch.ones_like(f)
    slips = {
        "The slope is missing: each row is multiplied by f of its neuron": torch.outer(one, new_q),
        "That is the trace of the current, p: the membrane filters it once more": torch.outer(f, new_p),
        "q takes in the p of this step, not of the last one": torch.outer(f, beta * q + p),
        "q takes in p, not the spike itself": torch.outer(f, beta * q + x),
        "p decays with alpha and q with beta, not the other way round": torch.outer(f, alpha * q + beta * p + x),
        "The traces decay before they take something in": torch.outer(f, q + p + x),
    }
    return first_of(got, wanted, slips)


eligibility_exercise = Exercise(
    "the presynaptic trace times the slope",
    eligibility_step,
    [
        (*(torch.tensor([v]).double() for v in (0.5, 0.25, 1.0, 0.4)), 0.5, 0.7),
        (*(normal(n, seed=i).abs() for i, n in enumerate((3, 3, 3, 2))), 0.8, 0.9),
    ],
    [
        "First the current's trace, then the membrane's, then the slope: Eq. 16, Eq. 15, Eq. 14.",
        "p = alpha * p + x, and q = beta * q + p with the new p. Both have one entry for each input.",
        "f[:, None] * q with that new q: a row for each neuron, a column for each input",
    ],
    _explain_eligibility,
)


def rmaxprop_step(g: Tensor, v: Tensor, r0: float, gamma: float) -> tuple[Tensor, Tensor]:
    """The new v, and what to subtract from the weights; all of the same shape."""
    v = torch.maximum(gamma * v, g**2)
    return v, r0 * g / v.sqrt()


def _explain_rmaxprop(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    g, v, r0, gamma = arguments
    new = torch.maximum(gamma * v, g**2)
    mean = gamma * v + (1 - gamma) * g**2
    slips = {
        "That is RMSprop: v is the larger of the two, not their average": (mean, r0 * g / mean.sqrt()),
        "The old v is divided by: update v first": (new, r0 * g / v.sqrt()),
        "The square root is missing": (new, r0 * g / new),
        "The sign: this is what will be subtracted, so it points along g": (new, -r0 * g / new.sqrt()),
        "v has to forget: multiply it by gamma before comparing": (
            torch.maximum(v, g**2),
            r0 * g / torch.maximum(v, g**2).sqrt(),
        ),
        "That is the rate alone; the change is the rate times g": (new, r0 / new.sqrt()),
    }
    return first_of(got, wanted, {text: torch.stack(pair) for text, pair in slips.items()})


rmaxprop_exercise = Exercise(
    "a learning rate for each synapse",
    rmaxprop_step,
    [
        (torch.tensor([3.0, -0.1]).double(), torch.tensor([4.0, 1.0]).double(), 0.01, 0.9),
        (normal(2, 3, seed=7), normal(2, 3, seed=8) ** 2, 0.5, 0.6),
    ],
    [
        "v remembers the largest squared gradient of late. Then the rate is r0 / sqrt(v).",
        "v = torch.maximum(gamma * v, g**2), entry by entry.",
        "return v, r0 * g / v.sqrt() with that new v",
    ],
    _explain_rmaxprop,
)
