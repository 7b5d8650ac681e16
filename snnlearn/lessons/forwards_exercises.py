"""The exercises of tutorial 04: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise


def _first_of(got: Tensor, wanted: Tensor, slips: dict[str, Any]) -> str | None:
    """The sentence of the first slip that gives what we got and is not right by accident."""

    def like(a: Tensor, b: Any) -> bool:
        b = torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in b]) if isinstance(b, tuple) else b
        return torch.allclose(a, torch.as_tensor(b, dtype=torch.float64), rtol=1e-6, atol=1e-12)

    return next((s for s, value in slips.items() if like(got, value) and not like(wanted, value)), None)


def influence_step(
    P_I: Tensor, P_U: Tensor, x: Tensor, f: Tensor, alpha: float, beta: float, theta: float
) -> tuple[Tensor, Tensor]:
    """dI[n]/dw and dU[n]/dw from those of step n-1; x is x[n], f the slope at n-1."""
    P_I = alpha * P_I + x
    P_U = (beta - theta * f) * P_U + P_I
    return P_I, P_U


def _explain_influence(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    P_I, P_U, x, f, alpha, beta, theta = arguments
    new, carried = alpha * P_I + x, (beta - theta * f) * P_U
    slips = {
        "U[n] takes the current of the same step: the new P_I belongs into P_U, not the old one": (new, carried + P_I),
        "The reset is missing: U[n] holds -theta * s[n-1], and s[n-1] depends on w through f and P_U": (
            new,
            beta * P_U + new,
        ),
        "The reset lowers the membrane: its part is -theta * f * P_U": (new, (beta + theta * f) * P_U + new),
        "The reset subtracts theta, not 1": (new, (beta - f) * P_U + new),
        "The current leaks too: alpha * P_I": (P_I + x, carried + P_I + x),
        "The memory of the current is missing: alpha * P_I": (x + 0 * P_I, carried + x),
        "The direct part is missing: at step n the weight acts with x[n]": (alpha * P_I, carried + alpha * P_I),
        "The current does not reach the membrane: P_U needs + P_I": (new, carried),
    }
    return _first_of(got, wanted, slips)


def _case(*shape: int, seed: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    P_I, P_U = (torch.randn(shape, dtype=torch.float64, generator=draw) for _ in range(2))
    x, f = (torch.rand(shape, dtype=torch.float64, generator=draw) for _ in range(2))
    return P_I, P_U, x, f


influence_exercise = Exercise(
    "one step of RTRL for a neuron with two states",
    influence_step,
    [(*_case(seed=1), 0.8, 0.95, 1.0), (*_case(3, 4, seed=2), 0.7, 0.9, 1.3)],
    [
        "Differentiate both equations by w, term by term. What is the derivative of w x[n]?",
        "s[n-1] depends on w through U[n-1]: its derivative is f * P_U, with the old P_U.",
        "First P_I = alpha * P_I + x, then P_U = (beta - theta * f) * P_U + P_I, with the new P_I.",
    ],
    _explain_influence,
)


def influence_size(neurons: int, inputs: int, states: int, recurrent: bool, batch: int) -> int:
    """Entries of P: a row for every state, a column for every weight, and all of that for each sample."""
    weights = neurons * inputs + (neurons * neurons if recurrent else 0)
    return batch * neurons * states * weights


def _explain_size(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    N, K, states, recurrent, batch = arguments
    weights = N * K + (N * N if recurrent else 0)
    slips = {
        "Every sample has a P of its own: times batch": N * states * weights,
        "A neuron has several states, each with a row of its own": batch * N * weights,
        "The recurrent weights are parameters too: N * N more columns": batch * N * states * N * K,
        "Without recurrence there are no recurrent weights": batch * N * states * (N * K + N * N),
        "That is the number of weights; P has a row for every state besides": weights,
    }
    return _first_of(got, wanted, slips)


size_exercise = Exercise(
    "how large is P?",
    influence_size,
    [(6, 5, 1, True, 1), (100, 100, 2, True, 1), (100, 700, 2, False, 32)],
    [
        "P holds dh/dw for every state h and every weight w.",
        "States: neurons times states. Weights: neurons * inputs, and neurons * neurons if the layer is recurrent.",
        "batch * (neurons * states) * (neurons * inputs + neurons * neurons)",
    ],
    _explain_size,
)


def break_even(neurons: int) -> int:
    """The smallest T at which BPTT keeps more numbers than P has.

    A recurrent layer of N neurons with one state each and N inputs: BPTT keeps U, s and x of every step.
    """
    P = neurons * 2 * neurons**2
    per_step = 3 * neurons
    return P // per_step + 1


def _explain_break_even(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    (N,) = arguments
    slips = {
        "At that T the two are still equal, or BPTT keeps less: want the first T at which it keeps more": (
            2 * N**3 // (3 * N)
        ),
        "The recurrent weights are missing: P has N * (N*N + N*N) entries": N**3 // (3 * N) + 1,
        "BPTT keeps three numbers a neuron and step, U, s and the input": 2 * N**3 // N + 1,
        "BPTT keeps three numbers a neuron and step; the input belongs to them": 2 * N**3 // (2 * N) + 1,
    }
    return _first_of(got, wanted, slips)


break_even_exercise = Exercise(
    "from which T on is RTRL smaller?",
    break_even,
    [(3,), (10,), (100,)],
    [
        "BPTT keeps 3 N numbers a step. P has N rows; how many columns?",
        "P has N * 2 N**2 entries, whatever T is. Solve 3 N T > 2 N**3 for a whole T.",
        "2 * N**3 // (3 * N) + 1",
    ],
    _explain_break_even,
)
