"""Optimisers that the papers use and torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from snnlearn import _checks


class RMaxProp(torch.optim.Optimizer):
    """A learning rate for each parameter, r = lr / sqrt(v) with v = max(gamma * v, g**2) (Zenke & Ganguli 2018).

    SuperSpike's scaling: as RMSprop, but v remembers the largest gradient of late instead of an average, so that a rare
    large step is not taken at the rate that silence had set.

    Args:
        params: as for any torch optimiser.
        lr: r_0.
        gamma: what is left of v after a step, in 0..1; the nearer to 1, the longer a large gradient is remembered.
        eps: added to sqrt(v).
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, gamma: float = 0.999, eps: float = 1e-12):
        _checks.positive("lr", lr)
        _checks.positive("eps", eps)
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma is what is left of v after a step and lies in 0..1, got {gamma}")
        super().__init__(params, {"lr": lr, "gamma": gamma, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """One step along the gradients in ``.grad``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                v = torch.maximum(group["gamma"] * state.get("v", torch.zeros_like(p)), p.grad.square())
                state["v"] = v
                p.sub_(group["lr"] * p.grad / (v.sqrt() + group["eps"]))
        return loss
