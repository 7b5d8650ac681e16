"""The exercises of tutorial 12: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of, normal


def learning_signal(B: Tensor, y: Tensor, label: int) -> Tensor:
    """L_j = sum_k B_jk (pi_k - pi*_k) of outputs y (K,), with pi their softmax and pi* 1 for the label; (H,)."""
    error = torch.softmax(y, 0)
    error[label] -= 1
    return B @ error


def _explain_signal(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    B, y, label = arguments
    wish = torch.zeros_like(y)
    wish[label] = 1
    pi = torch.softmax(y, 0)
    slips = {
        "The sign is turned: the error is output minus target": -wanted,
        "The outputs are compared as they are; cross-entropy compares their softmax": B @ (y - wish),
        "The target is missing: subtract 1 at the label": B @ pi,
        "B is transposed: row j of B belongs to hidden neuron j": B.T @ (pi - wish) if B.shape[0] == B.shape[1] else pi,
    }
    return first_of(got, wanted, slips)


signal_exercise = Exercise(
    "the learning signal",
    learning_signal,
    [
        (torch.tensor([[1.0, 0.0], [0.5, -2.0]]).double(), torch.tensor([1.0, -1.0]).double(), 1),
        (normal(3, 3, seed=1), normal(3, seed=2), 2),
    ],
    [
        "Two steps: the error of each output, then what each hidden neuron is told of it.",
        "The error is torch.softmax(y, 0), with 1 subtracted at the label.",
        "return B @ error: a sum over the outputs k for each row j",
    ],
    _explain_signal,
)


def slow_step(eps: Tensor, q: Tensor, f: Tensor, rho: float, strength: float) -> tuple[Tensor, Tensor]:
    """The eligibility (H, N) of this step, and eps^a of the next; eps (H, N) of this step, q (N,), f (H,)."""
    eligibility = f[:, None] * (q - strength * eps)  # Eq. 25
    return eligibility, rho * eps + eligibility  # Eq. 24


def _explain_slow(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    eps, q, f, rho, strength = arguments
    fast, wanted_now = f[:, None] * q, wanted[0]
    new = rho * eps + wanted_now
    slips = {
        "The sign: a higher threshold makes the neuron fire less, so eps is subtracted": (
            f[:, None] * (q + strength * eps),
            rho * eps + f[:, None] * (q + strength * eps),
        ),
        "The eligibility knows the fast part alone; the moving threshold is missing": (fast, rho * eps + fast),
        "eps grows by the whole eligibility, not by its fast part: a spike less lifts the threshold less": (
            wanted_now,
            rho * eps + fast,
        ),
        "eps has to decay by rho": (wanted_now, eps + wanted_now),
        "That is the new eps in the eligibility: this step's threshold was made by spikes before it": (
            f[:, None] * (q - strength * new),
            new,
        ),
        "The strength is missing: eps counts spikes, strength turns them into threshold": (
            f[:, None] * (q - eps),
            rho * eps + f[:, None] * (q - eps),
        ),
    }
    return first_of(got, wanted, {text: torch.stack(pair) for text, pair in slips.items()})


slow_exercise = Exercise(
    "a step of the slow eligibility",
    slow_step,
    [
        (*(torch.tensor(v).double() for v in ([[0.5]], [1.0], [0.4])), 0.9, 0.5),
        (normal(2, 3, seed=3).abs(), normal(3, seed=4).abs(), normal(2, seed=5).abs(), 0.8, 1.5),
    ],
    [
        "First the eligibility of this step, with the eps that the spikes before it have left; then the next eps.",
        "eligibility = f[:, None] * (q - strength * eps)",
        "return eligibility, rho * eps + eligibility",
    ],
    _explain_slow,
)


def recurrent_step(q: Tensor, before: Tensor, now: Tensor, f: Tensor, beta: float) -> Tensor:
    """The matrix f_j q_i of this step, (H, H), post by pre, from the trace q (H,) of the step before.

    ``before`` and ``now`` are the layer's spikes of the step before and of this one; there is no synaptic current.
    """
    q = beta * q + before
    return f[:, None] * q


def _explain_recurrent(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    q, before, now, f, beta = arguments
    slips = {
        "Those are the spikes of this step: they arrive a step later": torch.outer(f, beta * q + now),
        "The trace has to decay by beta": torch.outer(f, q + before),
        "The trace is missing: that is the last step alone": torch.outer(f, before),
        "The matrix is transposed: a row for each receiving neuron, a column for each sender": wanted.T,
        "The slope is missing: each row is multiplied by f of its neuron": torch.outer(
            torch.ones_like(f), beta * q + before
        ),
    }
    return first_of(got, wanted, slips)


recurrent_exercise = Exercise(
    "the eligibility of recurrent weights",
    recurrent_step,
    [
        (*(torch.tensor(v).double() for v in ([0.5, 0.2], [1.0, 0.0], [0.0, 1.0], [0.4, 0.1])), 0.5),
        (normal(3, seed=6).abs(), *((normal(3, seed=i) > 0).double() for i in (9, 8)), normal(3, seed=10).abs(), 0.9),
    ],
    [
        "A recurrent synapse is a synapse: its input is the spikes of its own layer, and they come with a lag of one.",
        "q = beta * q + before. The spikes `now` are for the next step.",
        "return f[:, None] * q: a row for each receiving neuron",
    ],
    _explain_recurrent,
)
