"""The exercises of tutorial 2, with their reference solutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise


def through(function: type[torch.autograd.Function], U: Tensor, theta: float) -> Tensor:
    """What an autograd function of (U, theta) returns, and below it the gradient of 2 s[0] + s[1] + ... , (2, n)."""
    U = U.clone().requires_grad_()
    s = function.apply(U, theta)
    (gradient,) = torch.autograd.grad(s, U, _errors(U))
    return torch.stack([s.detach(), gradient])


def _errors(U: Tensor) -> Tensor:
    """What `through` sends in from above: 2 for the first spike, 1 for the others."""
    e = torch.ones_like(U)
    e[0] = 2.0
    return e


def _slope_solution(x: Tensor, k: float) -> Tensor:
    # d/dx of x / (1 + k|x|): the quotient rule, and x * sign(x) = |x|, leave 1 above.
    return 1 / (1 + k * x.abs()) ** 2


def _slope_slip(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    x, k = arguments
    if torch.allclose(got, 1 / (1 + k * x.abs())):
        return "The square is missing: the quotient rule squares the denominator."
    if torch.allclose(got, 1 / (1 + k * x) ** 2):
        return "|x| is missing: below threshold it is not x."
    if torch.allclose(got, k * wanted):
        return "There is a factor k too many: the primitive is x / (1 + k|x|), not k x / (1 + k|x|)."
    return None


_x = torch.tensor([-0.5, -0.1, 0.0, 0.02, 0.3], dtype=torch.float64)
slope_exercise = Exercise(
    "the slope of the fast sigmoid",
    _slope_solution,
    [(_x, 10.0), (_x, 100.0)],
    [
        "Take x > 0 first, where |x| = x, and use the quotient rule. Then x < 0.",
        "The numerator becomes (1 + k|x|) − x·k·sign(x), and x·sign(x) = |x|.",
    ],
    _slope_slip,
)


def _peak_solution(width: float) -> float:
    # A triangle of half width at half maximum w reaches zero at 2 w: area = 1/2 * base * height = 1/2 * 4 w * peak.
    return 1 / (2 * width)


def _peak_slip(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    if torch.allclose(got, 2 * wanted):
        return "You took the width for half of the base; it is the half width at half maximum, half of that."
    if torch.allclose(got, wanted / 2):
        return "The area of a triangle has a factor 1/2."
    if torch.allclose(got, 4 * wanted * arguments[0] ** 2):
        return "That is the area at peak 1, A·width; its inverse is the peak for area 1."
    return None


peak_exercise = Exercise(
    "the triangle's peak for area 1",
    _peak_solution,
    [(0.1,), (0.3,), (1.5,)],
    ["How far from the threshold is the triangle zero? At twice the width.", "The base is 4 widths."],
    _peak_slip,
)


class _Reference(torch.autograd.Function):
    """Step forward, triangle of width 0.5 and peak 1 backward."""

    @staticmethod
    def forward(ctx, U, theta):
        ctx.save_for_backward(U)
        ctx.theta = theta
        return (theta <= U).to(U.dtype)

    @staticmethod
    def backward(ctx, e):
        (U,) = ctx.saved_tensors
        slope = (1 - (U - ctx.theta).abs()).clamp(min=0)
        return e * slope, None  # one gradient for each argument of forward; theta is a constant


def _function_solution(U: Tensor, theta: float) -> Tensor:
    # class Spike(torch.autograd.Function):
    #     forward: ctx.save_for_backward(U); ctx.theta = theta; return (U >= theta).to(U.dtype)
    #     backward(ctx, e):
    #         (U,) = ctx.saved_tensors
    #         slope = (1 - (U - ctx.theta).abs()).clamp(min=0)
    #         return e * slope, None
    return through(_Reference, U, theta)


def _function_slip(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    U, theta = arguments
    slope = (1 - (U - theta).abs()).clamp(min=0)
    if not torch.equal(got[0], wanted[0]):
        return "The forward pass must be the step: 1 where U reaches theta, else 0."
    if torch.allclose(got[1], slope):
        return "The slope is right, but what arrives from above, e, is not multiplied in."
    if torch.equal(got[1], _errors(U)):
        return "e is handed on as it came: the slope is missing."
    if torch.allclose(got[1][1:], (1 - U.abs()).clamp(min=0)[1:]):
        return "The triangle must stand at the threshold: take U − theta."
    return None


_U = torch.tensor([0.8, -0.4, 1.0, 0.35, 1.6, 2.5], dtype=torch.float64)
function_exercise = Exercise(
    "a spike with a surrogate gradient",
    _function_solution,
    [(_U, 1.0), (_U, 0.7)],
    [
        "`backward` receives e = dL/ds, shaped like the output, and must return dL/dU.",
        "The chain rule: dL/dU = e · σ′(U − θ), here with the triangle max(0, 1 − |U − θ|).",
    ],
    _function_slip,
)


def _carry_solution(f: Tensor, beta: float, theta: float) -> Tensor:
    # U[n+1] = beta U[n] - theta s[n] + I[n+1]: by the leak beta, and by the spike -theta * ds[n]/dU[n].
    return beta - theta * f


def _carry_slip(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    f, beta, theta = arguments
    if torch.allclose(got, torch.full_like(f, beta)):
        return "That is the reset detached. U[n] acts on U[n+1] through s[n] as well."
    if torch.allclose(got, beta + theta * f):
        return "The sign: a spike takes theta away."
    if torch.allclose(got, beta - f):
        return "theta is missing: the reset subtracts theta * s."
    if torch.allclose(got, beta * (1 - theta * f)):
        return "Eq. 8 does not let the reset decay: beta multiplies U only."
    return None


carry_exercise = Exercise(
    "the factor per step",
    _carry_solution,
    [(torch.tensor([0.0, 0.3, 1.0, 4.0], dtype=torch.float64), 0.9, 1.5)],
    ["Differentiate U[n+1] = β U[n] − θ s[n] + I[n+1] by U[n].", "s[n] depends on U[n] too: ds[n]/dU[n] = f[n]."],
    _carry_slip,
)
