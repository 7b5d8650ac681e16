"""Resets. A reset is the membrane update itself: U[n] from U[n-1], s[n-1] and I[n].

Each is a plain function of that form, so one of your own needs no more than that. Its partial derivatives are found by
torch where a rule wants them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Constant = float | Tensor
Update = Callable[[Tensor, Tensor, Tensor, Constant, Constant], Tensor]


def subtract(U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
    """Subtract the threshold one step after the spike (tutorial Eq. 8, EXODUS with nu_n = -theta*beta**n)."""
    return beta * U - theta * s + I


def subtract_decayed(U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
    """Subtract at the spike, so that what was subtracted decays too.

    Found in the EXODUS authors' code, not in the paper: nu_n = -theta*beta**(n+1).
    """
    return beta * (U - theta * s) + I


def to_zero(U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
    """Reset the membrane to zero; the step's input still arrives (TSSL-BP's code)."""
    return beta * U * (1 - s) + I


def to_zero_with_input(U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
    """Reset to zero and lose the input of that step as well.

    Found in the tutorial authors' notebooks, not in the paper.
    """
    return (beta * U + I) * (1 - s)


def no_reset(U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
    """Let the membrane run on: a readout, or what SLAYER's gradient sees of a neuron."""
    return beta * U + I


@dataclass(frozen=True)
class Bounded:
    """A reset with a lower bound on the membrane, the same units as theta.

    Args:
        reset: the reset to wrap.
        low: the bound.
        before_input: bound what is left of the membrane and then add the input (Sinabs); otherwise bound the
            sum (EXODUS's kernels).
    """

    reset: Update
    low: float
    before_input: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.low):
            raise ValueError(f"the lower bound must be a finite number, got {self.low}")
        if self.before_input and self.reset is to_zero_with_input:
            raise ValueError(
                "to_zero_with_input loses the input, which before_input=True would add; use before_input=False"
            )

    def __repr__(self) -> str:
        reset = getattr(self.reset, "__name__", self.reset)  # a function's own form holds its address
        return f"Bounded({reset}, low={self.low}, before_input={self.before_input})"

    def __call__(self, U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
        """U[n], not below the bound."""
        if not self.before_input:
            return self.reset(U, s, I, beta, theta).clamp(min=self.low)
        left = self.reset(U, s, torch.zeros_like(I), beta, theta)
        return torch.maximum(left, torch.as_tensor(beta, dtype=U.dtype, device=U.device) * self.low) + I
