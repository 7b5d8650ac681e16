"""In what numbers a run computes, and where.

Mixed precision is safe for products alone. A membrane adds up many small currents and is compared with a threshold, and
a gradient through time adds up many small errors, so both stay float32, and so do the reset, the surrogate, the loss
and the optimiser: only linear maps and convolutions are taken in bfloat16, and their results are given back as float32.
float16 is not offered: of the errors at the hidden layer of `tasks.digits`, a mean over samples and steps,
two thirds lie below its smallest normal number and 4 % below its smallest of all, so that the loss would have to be
scaled; and rules forward in time have no single backward pass to scale it for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from snnlearn.events import EventNetwork
from snnlearn.network import Network

PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
"""The dtype of weights, membranes and gradients under each."""

PRODUCTS = frozenset({functional.linear, functional.conv1d, functional.conv2d, functional.conv3d})


class _Bfloat16Products(TorchFunctionMode):
    """While it is active, linear maps and convolutions are computed by autocast in bfloat16, and return float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in PRODUCTS:
            return func(*args, **(kwargs or {}))
        with torch.autocast(args[0].device.type, torch.bfloat16):
            return func(*args, **(kwargs or {})).float()


def check_precision(precision: object, net: Network | EventNetwork | None = None) -> None:
    """Refuse what is no precision, or one that a network cannot be computed in.

    Raises:
        ValueError: it is none of `PRECISIONS`, or bfloat16 meets spike times, whose closed form has no product.
    """
    if precision not in PRECISIONS:
        why = "; in float16 small errors would vanish" if precision in ("fp16", "float16") else ""
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}{why}")
    if precision == "bf16" and isinstance(net, EventNetwork):
        raise ValueError(
            "an EventNetwork computes spike times in closed form, where no product of a synapse could be taken in "
            "bfloat16, and a time of 8 bits would be none; use float32 or float64"
        )


def products(precision: str) -> AbstractContextManager[Any]:
    """A context in which synapses are computed as this precision says; one of `PRECISIONS`."""
    return _Bfloat16Products() if precision == "bf16" else nullcontext()


def place(device: str) -> torch.device:
    """Where to compute.

    Raises:
        ValueError: it is neither cpu nor cuda, or there is no GPU.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}') from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no GPU here; `snnlearn info` says more. Use device cpu")
    return found
