"""What torch wants to know of the compiled operators: the shapes of their results, and how they are batched.

`snnlearn.kernels.load` calls `register` once the library is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from snnlearn.kernels import event_ops

Place = int | None  # the axis over which torch.func.vmap maps an argument


def _forward_shapes(a, I0, U0, s0, each, numbers, kinds):
    like = a.new_empty(a.shape)
    return (torch.empty_like(like) if kinds[3] else a.new_empty(0)), like, torch.empty_like(like)


def _reverse_shapes(
    e_I, e_U, e_s, I, U, I0, U0, s0, lam, kap, I_next, psc, each, numbers, kinds, slope, times, seen, constants
):
    step = U.shape[1:]
    sums = [U.new_empty(step if constants else 0) for _ in range(3)]
    return [U.new_empty(U.shape), *(U.new_empty(step) for _ in range(4)), *sums]


def _copy_shape(x):
    return x.new_empty(x.shape)


def _spread(x: Tensor | None, place: Place, size: int, to: int) -> Tensor | None:
    """x with the axis over which is mapped at ``to``."""
    if x is None:
        return None
    return x.movedim(place, to) if place is not None else x.unsqueeze(to).expand(*x.shape[:to], size, *x.shape[to:])


def _all(values: Sequence[Tensor | None], places: Sequence[Place], size: int, to: int) -> list[Tensor | None]:
    return [_spread(x, place, size, to) for x, place in zip(values, places, strict=True)]


def _forward_batched(info: Any, places: Any, a, I0, U0, s0, each, numbers, kinds):
    size = info.batch_size
    state = _all((I0, U0, s0), places[1:4], size, 0)
    constants = _all(each, places[4] or [None] * len(each), size, 0)
    out = torch.ops.snnlearn.scan_forward(_spread(a, places[0], size, 1), *state, constants, numbers, kinds)
    return out, (1 if kinds[3] else None, 1, 1)


def _reverse_batched(info: Any, places: Any, *arguments):
    size = info.batch_size
    e_I, e_U, e_s, I, U, I0, U0, s0, lam, kap, I_next, psc, each, *rest = arguments
    sequences = _all((e_I, e_U, e_s, I, U), places[:5], size, 1)
    steps = _all((I0, U0, s0, lam, kap, I_next), places[5:11], size, 0)
    constants = _all(each, places[12] or [None] * len(each), size, 0)
    psc = _spread(psc, places[11], size, 1)
    out = torch.ops.snnlearn.scan_reverse(*sequences, *steps, psc, constants, *rest)
    return out, [1, 0, 0, 0, 0, *([0 if rest[-1] else None] * 3)]


SHAPES: dict[str, Callable] = {
    "scan_forward": _forward_shapes,
    "scan_reverse": _reverse_shapes,
    "stream_copy": _copy_shape,
}
BATCHED: dict[str, Callable] = {"scan_forward": _forward_batched, "scan_reverse": _reverse_batched}


def register() -> None:
    """Tell torch of every op that the library has; once a process."""
    for name, shapes in (SHAPES | event_ops.SHAPES).items():
        if hasattr(torch.ops.snnlearn, name):  # not so in a library of other sources
            torch.library.register_fake(f"snnlearn::{name}", shapes)
    for name, batched in BATCHED.items():
        if hasattr(torch.ops.snnlearn, name):
            torch.library.register_vmap(f"snnlearn::{name}", batched)
