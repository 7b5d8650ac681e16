"""Checks of what comes in. Each error says what was wanted, what came, and what to do."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor, nn


def holds(condition: Tensor) -> bool:
    """Whether a condition on values holds everywhere; taken as true where values cannot be looked at.

    Inside ``torch.compile`` and ``torch.func.vmap`` a tensor has no values that Python may branch on.
    """
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition.all())
    except RuntimeError:  # inside vmap
        return True


def finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite; makes no tensor of the size of x. Taken as true where `holds` is."""
    if x.numel() == 0:
        return True
    low, high = torch.aminmax(x.detach())  # NaN wins
    return holds(torch.isfinite(low) & torch.isfinite(high))


def positive(name: str, value: Any, unit: str = "") -> None:
    """Refuse anything but a positive finite number, or a tensor of them."""
    wanted = f"{name} must be a positive, finite number{' of ' + unit if unit else ''}"
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{wanted}, or a floating-point tensor of them; got dtype {value.dtype}")
        if not holds((value > 0) & torch.isfinite(value)):
            raise ValueError(f"{wanted}; the tensor holds {value.detach().min().item():g} as its smallest value")
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{wanted}; got {type(value).__name__}")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{wanted}; got {number:g}")


def flag(name: str, value: Any) -> None:
    """Refuse anything but True and False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def modules(name: str, values: Any) -> None:
    """Refuse anything but a sequence of torch modules."""
    if isinstance(values, Tensor | nn.Module | str) and not isinstance(values, nn.ModuleList):
        raise TypeError(f"{name} must be a list of modules such as nn.Linear, got {type(values).__name__}")
    if not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list of modules such as nn.Linear, got {values!r}")
    for module in values:
        if not isinstance(module, nn.Module):
            raise TypeError(f"{name} must be modules such as nn.Linear, got {type(module).__name__}")


def whole(name: str, value: Any, least: int = 0) -> None:
    """Refuse anything but an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def sequence(name: str, x: Any) -> None:
    """Refuse anything but a finite, floating-point tensor (T, B, *features) with T, B >= 1."""
    shape(name, x)
    if not finite(x):
        raise not_finite(name)


def not_finite(name: str) -> ValueError:
    """The error for data that hold NaN or infinity."""
    return ValueError(f"{name} holds NaN or infinity; look at the data before the network")


def shape(name: str, x: Any) -> None:
    """Refuse anything but a floating-point tensor (T, B, *features) with T, B >= 1."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor (T, B, *features), got {type(x).__name__}")
    if x.dim() < 3:
        raise ValueError(
            f"{name} must be time-major, (T, B, *features), got shape {tuple(x.shape)}; "
            "one sample needs x.unsqueeze(1), one feature x.unsqueeze(-1)"
        )
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}; give at least one step, sample and feature")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}; use x.float() or x.double()")


def same_kind(name: str, x: Tensor, other: str, reference: Tensor) -> None:
    """Refuse two tensors of different device or dtype."""
    if x.device != reference.device:
        raise ValueError(
            f"{name} is on {x.device}, {other} on {reference.device}; move one with .to({str(reference.device)!r})"
        )
    if x.dtype != reference.dtype:
        raise TypeError(f"{name} is {x.dtype}, {other} {reference.dtype}; convert one with .to({reference.dtype})")


def labels(y: Any, batch: int, classes: int) -> None:
    """Refuse anything but integer labels (B,) in 0 .. classes - 1."""
    if not isinstance(y, Tensor) or y.is_floating_point() or y.dtype == torch.bool:
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"labels must be an integer tensor (B,), got {kind}")
    if tuple(y.shape) != (batch,):
        raise ValueError(f"labels must have shape ({batch},) like the batch, got {tuple(y.shape)}")
    if not holds((y >= 0) & (y < classes)):
        raise ValueError(
            f"labels must lie in 0..{classes - 1}, the {classes} outputs of the network; "
            f"got {int(y.min())}..{int(y.max())}"
        )
