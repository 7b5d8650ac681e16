"""The exercises of tutorial 11: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of, normal


def trace_step(P: Tensor, Q: Tensor, x: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """P and Q of this step from those of the step before and this step's input x; all (inputs,)."""
    P = alpha * P + (1 - alpha) * Q
    Q = beta * Q + (1 - beta) * x
    return P, Q


def _explain_trace(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    P, Q, x, a, b = arguments
    new = b * Q + (1 - b) * x
    old_P = a * P + (1 - a) * Q
    slips = {
        "P takes in the Q of the step before, so update P first": (a * P + (1 - a) * new, new),
        "The factors 1 - alpha and 1 - beta are missing: a constant input would not pass unchanged": (
            a * P + Q,
            b * Q + x,
        ),
        "P takes in Q, not the spikes themselves": (a * P + (1 - a) * x, new),
        "P decays with alpha and Q with beta, not the other way round": (
            b * P + (1 - b) * Q,
            a * Q + (1 - a) * x,
        ),
        "Return P first, then Q": (new, old_P),
    }
    return first_of(got, wanted, {text: torch.stack(pair) for text, pair in slips.items()})


trace_exercise = Exercise(
    "one step of P and Q",
    trace_step,
    [
        (*(torch.tensor([v]).double() for v in (0.2, 0.4, 1.0)), 0.9, 0.5),
        (*(normal(3, seed=i).abs() for i in range(3)), 0.95, 0.8),
    ],
    [
        "Two leaks, one behind the other; P is the second. Each keeps its share of itself and takes in the rest.",
        "P = alpha * P + (1 - alpha) * Q with the Q of the step before. Then Q takes in x likewise, with beta.",
        "P_new = alpha * P + (1 - alpha) * Q; Q_new = beta * Q + (1 - beta) * x; return P_new, Q_new",
    ],
    _explain_trace,
)


def local_error(G: Tensor, s: Tensor, U: Tensor, y: Tensor, k: float) -> Tensor:
    """delta (N,): what a critic G (classes, N) with half-square loss tells neurons that fired s (N,) at membranes U."""
    error = G @ s - y
    return (G.T @ error) / (1 + k * U.abs()) ** 2


def _explain_error(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    G, s, U, y, k = arguments
    error, f = G @ s - y, 1 / (1 + k * U.abs()) ** 2
    slips = {
        "The sign is turned: the error is readout minus target": -wanted,
        "The slope is missing: each neuron multiplies what it is told by sigma'(U)": G.T @ error,
        "The target is missing: that is the derivative for y = 0": (G.T @ (G @ s)) * f,
        "That is what silent layers would be told: the critic reads s": (G.T @ -y) * f,
        "The critic reads the spikes s, not the membranes": (G.T @ (G @ U - y)) * f,
        "A silent neuron is told its error, too: do not multiply by s": wanted * s,
        "The slope takes abs(U)": (G.T @ error) / (1 + k * U) ** 2,
    }
    return first_of(got, wanted, slips)


error_exercise = Exercise(
    "a local error",
    local_error,
    [
        (normal(3, 4, seed=1), torch.tensor([1.0, 0, 0, 1]).double(), normal(4, seed=2), torch.eye(3)[1].double(), 5.0),
        (normal(2, 3, seed=3), torch.tensor([0.0, 1, 1]).double(), normal(3, seed=4), torch.eye(2)[0].double(), 2.0),
    ],
    [
        "What the critic says is r = G s. Its error is r - y. It reaches neuron i through the same weights, G[:, i].",
        "G.T @ (G @ s - y), and then each neuron's own slope 1 / (1 + k abs(U))**2.",
        "return (G.T @ (G @ s - y)) / (1 + k * U.abs()) ** 2",
    ],
    _explain_error,
)


def reached(local: bool, critic: int, layers: int) -> Tensor:
    """For each of so many layers, 1 if the loss told at layer `critic` (from 0) changes its weights, else 0."""
    below = [0 if local and i < critic else 1 for i in range(critic)]
    return torch.tensor([*below, 1, *[0] * (layers - critic - 1)], dtype=torch.float64)


def _explain_reached(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    _, critic, layers = arguments
    at = torch.arange(layers)
    slips = {
        "A loss does not reach the layers above it: they do not change what it measures": (at >= critic),
        "With local errors nothing goes down: the layers below do change the loss, but they are not told": (
            at <= critic
        ),
        "Backpropagation goes on through all the layers below": at == critic,
        "The layer of the critic itself learns, too": at < critic,
        "Not everybody is told: look at who lies above, and at where the way down is cut": at >= 0,
    }
    return first_of(got, wanted, {text: value.double() for text, value in slips.items()})


reached_exercise = Exercise(
    "who is told",
    reached,
    [(True, 1, 3), (False, 1, 3), (True, 3, 4), (False, 3, 5), (True, 0, 2)],
    [
        "Whose weights change the loss at all? And to whom of those does the error find a way?",
        "With backpropagation: the critic's layer and all below it. With local errors: its own layer alone.",
        "local: torch.arange(layers) == critic; else torch.arange(layers) <= critic",
    ],
    _explain_reached,
)
