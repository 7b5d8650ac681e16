"""The baseline: what one writes without a library, a loop over the steps that autograd differentiates.

It takes the steps apart by ``unbind``, whose backward pass is one stack. A loop that indexes ``a[n]`` makes a gradient
of the size of all of ``a`` at every step, O(T**2) in all; a ratio against that could be made as large as one likes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


class Spike(torch.autograd.Function):
    """A step forward, the slope of a fast sigmoid backward: 1 / (1 + k|x|)**2, where |x| < within."""

    @staticmethod
    def forward(ctx, x, k, within):
        """Spikes for x = U - theta."""
        ctx.save_for_backward(x)
        ctx.k, ctx.within = k, within
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, e):
        """The error of x."""
        (x,) = ctx.saved_tensors
        g = e / (ctx.k * x.abs() + 1) ** 2
        return (g if ctx.within == math.inf else g * (x.abs() < ctx.within)), None, None


def lif_loop(
    a: Tensor,
    beta: float,
    k: float,
    *,
    theta: float = 1.0,
    within: float = math.inf,
    V: Tensor | None = None,
) -> Tensor:
    """Spikes (T, B, N) for currents a (T, B, N); the reset is differentiated.

    Args:
        a: currents.
        beta, theta: decay over a step, threshold.
        k: steepness of the surrogate.
        within: beyond this distance to the threshold its slope is 0.
        V: recurrent weights (N, N), or None.
    """
    U = s = torch.zeros_like(a[0])
    spikes = []
    for a_n in a.unbind(0):
        if V is not None:
            a_n = a_n + functional.linear(s, V)
        U = beta * U - theta * s + a_n
        s = Spike.apply(U - theta, k, within)
        spikes.append(s)
    return torch.stack(spikes)


def leaky_loop(a: Tensor, beta: float) -> Tensor:
    """Membranes (T, B, N) of a readout for currents a (T, B, N)."""
    U = torch.zeros_like(a[0])
    membranes = []
    for a_n in a.unbind(0):
        U = beta * U + a_n
        membranes.append(U)
    return torch.stack(membranes)
