"""The exercises of tutorial 10: the references, and the slips that a wrong answer is compared with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of, normal


def blame(kap_above: Tensor, G: Tensor, f: Tensor) -> Tensor:
    """delta[n] = f[n] * G^T kap_above[n] at every step, (T, B, hidden)."""
    e = kap_above @ G  # (T, B, above) times (above, hidden)
    return f * e


def _explain_blame(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    kap, G, f = arguments
    slips = {
        "The slope is missing: the error is multiplied by f, neuron by neuron": kap @ G,
        "The sign is turned": -wanted,
        "The error of the step before came down: e[n] is made from kap_above[n]": f * (kap.roll(1, 0) @ G),
        "The error was added up over time; every step has its own": f * (kap.sum(0, keepdim=True) @ G),
    }
    if G.shape[0] == G.shape[1]:
        slips["G is turned round: it has the shape of W, (above, hidden), and the error goes from above to hidden"] = (
            f * (kap @ G.T)
        )
    return first_of(got, wanted, slips)


error_exercise = Exercise(
    "the error through G",
    blame,
    [
        (normal(4, 2, 3, seed=0), normal(3, 3, seed=1), normal(4, 2, 3, seed=2).abs()),
        (normal(5, 2, 2, seed=3), normal(2, 4, seed=4), normal(5, 2, 4, seed=5).abs()),
    ],
    [
        "Sec. V-A, at each step: a sum over the neurons k above, of kap_k times G_ki, and then times the slope.",
        "kap_above is (T, B, above) and G is (above, hidden): a matrix product over the last axis of the first.",
        "f * (kap_above @ G)",
    ],
    _explain_blame,
)


def alignment_angle(W: Tensor, G: Tensor) -> Tensor:
    """The angle between W and G in degrees, both taken as one long vector."""
    cosine = (W * G).sum() / (W.norm() * G.norm())
    return torch.rad2deg(torch.acos(cosine))


def _explain_angle(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    W, G = arguments
    cosine = (W * G).sum() / (W.norm() * G.norm())
    rows = torch.cosine_similarity(W, G, dim=1)
    slips = {
        "That is the cosine; its arc cosine is the angle": cosine,
        "That is in radians: times 180 / pi": cosine.acos(),
        "The angle is a mean over rows; take the whole matrix as one vector": torch.rad2deg(rows.acos()).mean(),
        "That is a mean of the rows' cosines; take the whole matrix as one vector": torch.rad2deg(rows.mean().acos()),
        "An angle above 90 degrees means the wrong sign: do not take the absolute value": torch.rad2deg(
            cosine.abs().acos()
        ),
        "The norms are squared: divide by the product of the norms": torch.rad2deg(
            ((W * G).sum() / (W.square().sum() * G.square().sum())).clamp(-1, 1).acos()
        ),
        "Divide by the norms of both": torch.rad2deg(((W * G).sum() / W.square().sum()).clamp(-1, 1).acos()),
    }
    if W.shape[0] == W.shape[1]:
        slips["One of the two is transposed: G has the shape of W"] = torch.rad2deg(
            ((W * G.T).sum() / (W.norm() * G.norm())).acos()
        )
    return first_of(got, wanted, slips)


angle_exercise = Exercise(
    "the angle between W and G",
    alignment_angle,
    [
        (normal(3, 3, seed=10), -0.4 * normal(3, 3, seed=10) + normal(3, 3, seed=11)),
        (normal(2, 5, seed=12), 2.5 * normal(2, 5, seed=12) + normal(2, 5, seed=13)),
    ],
    [
        "The cosine of the angle between two vectors is their scalar product over the product of their lengths.",
        "(W * G).sum() is the scalar product, W.norm() the length of the whole matrix.",
        "torch.rad2deg(torch.acos((W * G).sum() / (W.norm() * G.norm())))",
    ],
    _explain_angle,
)


def kolen_pollack(
    W: Tensor, G: Tensor, kap: Tensor, s_below: Tensor, rate: float, decay: float
) -> tuple[Tensor, Tensor]:
    """W and G after one step: the same gradient for both, and the same decay."""
    change = torch.einsum("nbi,nbj->ij", kap, s_below)  # sum over steps and batch
    shrink = 1 - rate * decay
    return shrink * W - rate * change, shrink * G - rate * change


def _explain_kolen_pollack(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    W, G, kap, s, rate, decay = arguments
    change = torch.einsum("nbi,nbj->ij", kap, s)
    shrink = 1 - rate * decay
    right = shrink * W - rate * change
    mean = change / kap.shape[1]
    slips = {
        "G did not learn: it takes the same step as W": (right, G),
        "G did not decay: both shrink by 1 - rate * decay": (right, G - rate * change),
        "Nothing decayed, so the difference between W and G stays for ever": (W - rate * change, G - rate * change),
        "G was copied from W: that is the transport of weights which the rule avoids": (right, right),
        "The sign: gradients are subtracted": (shrink * W + rate * change, shrink * G + rate * change),
        "kap is summed over the batch already as it is a gradient: do not average": (
            shrink * W - rate * mean,
            shrink * G - rate * mean,
        ),
        "The decay goes with the rate: 1 - rate * decay": (
            (1 - decay) * W - rate * change,
            (1 - decay) * G - rate * change,
        ),
    }
    if W.shape[0] == W.shape[1]:
        slips["The gradient is turned round: rows are the neurons, columns what lies below"] = (
            shrink * W - rate * change.T,
            shrink * G - rate * change.T,
        )
    return first_of(got, wanted, {text: torch.stack(pair) for text, pair in slips.items()})


kolen_pollack_exercise = Exercise(
    "feedback that learns",
    kolen_pollack,
    [
        (
            *(normal(3, 3, seed=i) for i in (20, 21)),
            normal(4, 2, 3, seed=22),
            (normal(4, 2, 3, seed=23) > 0).double(),
            0.1,
            0.5,
        ),
        (
            *(normal(2, 4, seed=i) for i in (24, 25)),
            normal(6, 3, 2, seed=26),
            (normal(6, 3, 4, seed=27) > 0).double(),
            0.02,
            1 / math.e,
        ),
    ],
    [
        "Both matrices take the same step. What makes them meet is that both forget, too.",
        "change[i, j] is the sum over steps and batch of kap[n, b, i] * s_below[n, b, j].",
        "(1 - rate * decay) * W - rate * change, and (1 - rate * decay) * G - rate * change",
    ],
    _explain_kolen_pollack,
)
