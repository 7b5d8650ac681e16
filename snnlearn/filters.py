"""Filters in time, for losses, eligibilities and postsynaptic currents. State goes in and comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from snnlearn import _checks


class Filter(Protocol):
    """A causal linear filter that runs along a stream in constant memory."""

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """The state at rest for entries like x."""

    def step(self, state: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        """The state after x has come in."""

    def value(self, state: tuple[Tensor, ...]) -> Tensor:
        """What comes out."""


def check_filter(filter: object) -> None:
    """Refuse what is neither None nor a filter."""
    if filter is None:
        return
    if isinstance(filter, type) or not all(hasattr(filter, part) for part in ("start", "step", "value")):
        raise TypeError(f"filter must be one such as filters.Exponentials.double(...), got {filter!r}")


def filtered(filter: Filter, x: Tensor) -> Tensor:
    """A sequence x (T, ...) through a filter from rest, same shape; differentiable."""
    state, out = filter.start(x[0]), []
    for x_n in x.unbind(0):
        state = filter.step(state, x_n)
        out.append(filter.value(state))
    return torch.stack(out)


@dataclass(frozen=True)
class Exponentials:
    """A sum of exponentials, eps[k] = sum_i weights[i] * decays[i]**k for k >= 0.

    Args:
        decays: decay over a step of each exponential, in [0, 1).
        weights: one each.
    """

    decays: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.decays) != len(self.weights) or not self.decays:
            raise ValueError(
                f"want as many weights as decays, at least one; got {len(self.decays)} decays and "
                f"{len(self.weights)} weights"
            )
        if not all(0 <= d < 1 for d in self.decays) or not all(map(math.isfinite, self.weights)):
            raise ValueError(f"decays lie in 0..1, 1 excluded, and weights are finite; got {self}")

    @classmethod
    def double(cls, *, tau_rise: float, tau_decay: float, dt: float = 1e-3) -> Self:
        """exp(-t/tau_decay) - exp(-t/tau_rise), scaled so that its largest sample is 1; eps[0] = 0.

        The error filter of SuperSpike (tutorial Eq. 13, Zenke & Ganguli 2018).

        Args:
            tau_rise, tau_decay: seconds, tau_rise < tau_decay.
            dt: time step, seconds.
        """
        for name, value in (("tau_rise", tau_rise), ("tau_decay", tau_decay), ("dt", dt)):
            _checks.positive(name, value, "seconds")
        if not tau_rise < tau_decay:
            raise ValueError(f"tau_rise must be shorter than tau_decay, got {tau_rise:g} and {tau_decay:g} s")
        fall, rise = math.exp(-dt / tau_decay), math.exp(-dt / tau_rise)
        top = math.log(tau_decay / tau_rise) / (dt / tau_rise - dt / tau_decay)  # where its derivative is 0, in steps
        peak = max(fall**k - rise**k for k in (math.floor(top), math.ceil(top), 1))
        return cls((fall, rise), (1 / peak, -1 / peak))

    @classmethod
    def postsynaptic(cls, tau_s: float) -> Self:
        """eps[k] = (1 - 1/tau_s)**k / tau_s, the postsynaptic current of TSSL-BP (its code), tau_s >= 1 in steps."""
        _checks.positive("tau_s", tau_s, "steps")
        if tau_s < 1:
            raise ValueError(f"tau_s is in steps and at least 1, got {tau_s:g}")
        return cls((1 - 1 / tau_s,), (1 / tau_s,))

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """One zero for each exponential."""
        return tuple(torch.zeros_like(x) for _ in self.decays)

    def step(self, state: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        """Each exponential decays and takes x in."""
        return tuple(torch.add(x, y, alpha=decay) for decay, y in zip(self.decays, state, strict=True))

    def value(self, state: tuple[Tensor, ...]) -> Tensor:
        """The weighted sum."""
        first, *rest = (weight * y for weight, y in zip(self.weights, state, strict=True))
        return sum(rest, first)


IDENTITY = Exponentials((0.0,), (1.0,))
"""The filter that does nothing."""


@dataclass(frozen=True)
class Cascade:
    """Two leaks, one behind the other, as in a neuron that does not fire: P = alpha*P + x, Q = beta*Q + P.

    Args:
        alpha, beta: decays over a step, numbers or tensors that broadcast to what is filtered.
        scale: factor on Q, which comes out.
    """

    alpha: float | Tensor
    beta: float | Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            decay = getattr(self, name)
            if not isinstance(decay, Tensor) and not (isinstance(decay, float | int) and 0 <= decay <= 1):
                raise ValueError(f"{name} is a decay over one step and lies in 0..1, got {decay!r}")

    @classmethod
    def normalised(cls, alpha: float, beta: float) -> Self:
        """With scale = (1 - alpha) * (1 - beta), so that a constant passes unchanged; decays in [0, 1)."""
        if not all(isinstance(decay, float | int) and 0 <= decay < 1 for decay in (alpha, beta)):
            raise ValueError(f"decays lie in 0..1, 1 excluded, got alpha={alpha}, beta={beta}")
        return cls(alpha, beta, (1 - alpha) * (1 - beta))

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """P = Q = 0."""
        return torch.zeros_like(x), torch.zeros_like(x)

    def step(self, state: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        """P and Q after x."""
        P = self.alpha * state[0] + x
        return P, self.beta * state[1] + P

    def value(self, state: tuple[Tensor, ...]) -> Tensor:
        """scale * Q."""
        return state[1] if self.scale == 1 else self.scale * state[1]
