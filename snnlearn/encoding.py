"""From numbers to spikes or currents. Results are time-major, (T, *shape); every random draw takes a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from snnlearn import _checks


def _unit_interval(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
    if x.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()) or bool((x < 0).any()) or bool((x > 1).any()):
        raise ValueError(
            f"{name} must lie in 0..1, got {x.min().item():g}..{x.max().item():g}; scale it, for example x / x.max()"
        )


def on_off(x: Tensor) -> Tensor:
    """An ON channel, x, and an OFF channel, 1 - x, side by side: (..., N) to (..., 2N). x in 0..1."""
    _unit_interval("x", x)
    return torch.cat([x, 1 - x], -1)


def latency(x: Tensor, steps: int, *, last: float = 0.8, silent: float = 0.1) -> Tensor:
    """One spike each, the earlier the larger the value: step round((1 - x) * last * steps).

    Args:
        x: values in 0..1, any shape.
        steps: T, at least 1.
        last: share of the sequence by which the weakest has fired, in (0, 1].
        silent: values up to this do not fire.

    Returns:
        Spikes 0 or 1, (T, *x.shape), in the dtype of x.

    Raises:
        ValueError, TypeError: x is empty, not floating point or leaves 0..1; an argument is out of range.
    """
    _unit_interval("x", x)
    _checks.whole("steps", steps, least=1)
    if not 0 < last <= 1:
        raise ValueError(f"last is a share of the sequence and lies in (0, 1], got {last}")
    if not 0 <= silent < 1:
        raise ValueError(f"silent is a value of x and lies in [0, 1), got {silent}")
    when = ((1 - x) * last * steps).round().long().clamp(max=steps - 1)
    step = torch.arange(steps, device=x.device).view(-1, *(1,) * x.dim())
    return ((step == when) & (x > silent)).to(x.dtype)


def poisson(rate: Tensor, steps: int, *, dt: float = 1e-3, generator: torch.Generator) -> Tensor:
    """Spike trains of given rates: in each step a spike with probability rate * dt, independently.

    Args:
        rate: spikes per second, any shape, >= 0.
        steps: T, at least 1.
        dt: time step, seconds.
        generator: source of the draws, on the device of ``rate``.

    Returns:
        Spikes 0 or 1, (T, *rate.shape), in the dtype of rate.

    Raises:
        ValueError: a rate is negative, NaN, or above 1/dt, which one spike a step cannot carry.
    """
    if not isinstance(rate, Tensor) or not rate.is_floating_point():
        kind = rate.dtype if isinstance(rate, Tensor) else type(rate).__name__
        raise TypeError(f"rate must be a floating-point tensor of spikes per second, got {kind}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    _checks.whole("steps", steps, least=1)
    _checks.positive("the time step dt", dt, "seconds")
    p = rate * dt
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(f"rates must lie in 0..1/dt = {1 / dt:g} Hz, got {rate.min():g}..{rate.max():g}")
    drawn = torch.rand((steps, *rate.shape), dtype=rate.dtype, device=rate.device, generator=generator)
    return (drawn < p).to(rate.dtype)


def current(
    x: Tensor,
    steps: int,
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The same current at every step, plus Gaussian noise.

    Args:
        x: currents, any shape.
        steps: T, at least 1.
        noise: standard deviation of independent noise at each step; needs a generator if not 0.
        generator: source of the draws, on the device of x.

    Returns:
        Currents, (T, *x.shape).
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor, got {kind}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds NaN or infinity; look at the data first")
    _checks.whole("steps", steps, least=1)
    if noise < 0:
        raise ValueError(f"noise is a standard deviation and not negative, got {noise}")
    a = x.expand(steps, *x.shape).clone()
    if noise > 0:
        if generator is None:
            raise TypeError("noise needs a generator: torch.Generator().manual_seed(0)")
        a += noise * torch.randn(a.shape, dtype=x.dtype, device=x.device, generator=generator)
    return a
