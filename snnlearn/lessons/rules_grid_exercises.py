"""The exercises of tutorial 13: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn import grid
from snnlearn.lessons.exercise import Exercise, first_of, normal


def exact(left_out: str, changed: str, top: bool) -> float:
    """1.0 if the gradient of a layer's weights is the true one: left_out and changed as in `snnlearn.grid`."""
    return float(top or not (left_out or changed))


def _explain_exact(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    left_out, changed, top = arguments
    one = torch.tensor(1.0)
    slips = {
        "Look at the readout: it has no reset, and no layer above it whose error could be wrong": one
        * (not (left_out or changed)),
        "One bias is enough: a hidden layer is exact only if the row and the column both are": one
        * (top or not (left_out and changed)),
    }
    return first_of(got, wanted, {k: v.double() for k, v in slips.items()})


_CASES = [
    (grid.pair(row, column).time.left_out, grid.pair(row, column).space.changed, top)
    for row, column in (
        ("bptt", "transpose"),
        ("slayer", "feedback_alignment"),
        ("slayer", "transpose"),
        ("rtrl", "direct_feedback"),
        ("eligibility", "local_errors"),
    )
    for top in (False, True)
]

exact_exercise = Exercise(
    "exact or not",
    exact,
    _CASES,
    [
        "`left_out` and `changed` are texts, empty where nothing is left out or changed. Begin with a hidden layer.",
        "The readout is a membrane without threshold and without reset, right under the loss. What can go wrong there?",
        "Exact if it is the top layer, or if both texts are empty.",
    ],
    _explain_exact,
)


def break_even(kept: dict[int, float], forward: float) -> float:
    """The T from which a rule that keeps ``forward`` bytes keeps less than one with kept = {T: bytes}, a line."""
    (T1, k1), (T2, k2) = sorted(kept.items())
    slope = (k2 - k1) / (T2 - T1)
    return (forward - (k1 - slope * T1)) / slope


def _explain_break_even(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    kept, forward = arguments
    (T1, k1), (T2, k2) = sorted(kept.items())
    slope = (k2 - k1) / (T2 - T1)
    slips = {
        "The line does not go through 0: something is kept at T = 0 as well": forward / slope,
        "That is one of the bytes for each step; divide the rest by them": slope,
        "The bytes at T = 0 are to be taken away from the forward rule's, not added": (forward + k1 - slope * T1)
        / slope,
        "That is bytes divided by bytes: how many times more, not how many steps": forward / k1,
    }
    return first_of(got, wanted, {text: torch.tensor(float(value)).double() for text, value in slips.items()})


break_even_exercise = Exercise(
    "break-even",
    break_even,
    [({10: 800.0, 20: 1500.0}, 450.0), ({20: 700e3, 80: 2500e3}, 190e3), ({5: 60.0, 50: 510.0}, 1010.0)],
    [
        "What a backward rule keeps is a straight line in T: so much at T = 0, so much more for each step.",
        "The slope is the difference of the bytes over the difference of the two T.",
        "Set (bytes at T = 0) + slope * T equal to what the forward rule keeps, and solve for T.",
    ],
    _explain_break_even,
)


def signs(W: Tensor) -> Tensor:
    """Feedback weights with the signs of W, all of one magnitude: the root of the mean square of W."""
    return W.sign() * W.square().mean().sqrt()


def _explain_signs(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    (W,) = arguments
    slips = {
        "The signs are right; the magnitude is missing": W.sign(),
        "That is the mean of the absolute values; wanted is the root of the mean square": W.sign() * W.abs().mean(),
        "The root is missing": W.sign() * W.square().mean(),
        "That is the norm: divide by the number of entries before the root": W.sign() * W.norm(),
        "These are the weights themselves: that is backpropagation": W,
    }
    return first_of(got, wanted, slips)


signs_exercise = Exercise(
    "a column of your own",
    signs,
    [(normal(3, 4, seed=1),), (2 * normal(5, 2, seed=2),)],
    [
        "`W.sign()` has the signs. All that is missing is one number.",
        "Root of the mean of the squares, from the inside out: square, mean, sqrt.",
        "`W.sign() * W.square().mean().sqrt()`.",
    ],
    _explain_signs,
)
