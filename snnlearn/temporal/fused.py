"""A layer's forward pass and its reverse recursion by the compiled kernels, where they know the layer.

They know every `Neuron` of this library: its resets, bounded or not, its ways to fire, constants that are numbers or
tensors; and of the methods those that say what they are in `Method.compiled`. Whatever they do not know, and everything
on a machine without a compiler, goes through torch: `Neuron.simulate` and `recursion.reverse`. Spikes are the same to
the last bit; gradients but for the order in which a product was rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlearn import kernels, resets
from snnlearn.kernels import codes
from snnlearn.neurons import Analog, Neuron, State, Threshold, Trace
from snnlearn.surrogate import (
    ArcTan,
    Boxcar,
    Exponential,
    FastSigmoid,
    Gaussian,
    PiecewiseLinear,
    Sigmoid,
    StraightThrough,
    Surrogate,
)
from snnlearn.temporal.base import Reset

RESETS: dict[Callable, codes.Reset] = {
    resets.subtract: codes.Reset.SUBTRACT,
    resets.subtract_decayed: codes.Reset.SUBTRACT_DECAYED,
    resets.to_zero: codes.Reset.TO_ZERO,
    resets.to_zero_with_input: codes.Reset.TO_ZERO_WITH_INPUT,
    resets.no_reset: codes.Reset.NONE,
}

SLOPES: dict[type, codes.Slope] = {
    PiecewiseLinear: codes.Slope.PIECEWISE_LINEAR,
    FastSigmoid: codes.Slope.FAST_SIGMOID,
    Exponential: codes.Slope.EXPONENTIAL,
    Boxcar: codes.Slope.BOXCAR,
    Sigmoid: codes.Slope.SIGMOID,
    ArcTan: codes.Slope.ARC_TAN,
    Gaussian: codes.Slope.GAUSSIAN,
    StraightThrough: codes.Slope.STRAIGHT,
}

SEEN = {
    Reset.KEPT: codes.Seen.KEPT,
    Reset.DETACHED: codes.Seen.DETACHED,
    Reset.IGNORED: codes.Seen.IGNORED,
}

SMALLEST = torch.finfo(torch.float32).tiny

LIMITED: set[type] = set()
"""Surrogates that are another one, ``inner``, where |x| < ``within``: `snnlearn.sparse.Near`."""


class Shape(NamedTuple):
    """A neuron as the kernels take it (lif.h)."""

    numbers: tuple[float, ...]  # alpha, beta, theta, low, most; the first three 0 where they are tensors
    kinds: tuple[int, ...]  # Reset, Bound, Fire, whether there is a synapse

    @property
    def synapse(self) -> bool:
        """Whether there is a synaptic current."""
        return bool(self.kinds[3])


class Slope(NamedTuple):
    """A surrogate as the kernels take it."""

    code: codes.Slope
    numbers: tuple[float, float, float]  # 1 / width, peak, within


class Compiled(NamedTuple):
    """A method's credit as the kernels take it; see scan.cpp."""

    seen: codes.Seen
    slope: Slope | None = None  # None: the method does not look at the surrogate
    times: tuple[float, ...] = ()
    intra: bool = False
    leak: bool = False
    psc: Tensor | None = None


def flushed(neuron: Any) -> bool:
    """Whether numbers decide on a spike that the kernels take for 0: too small for a full mantissa of float32."""
    theta = getattr(neuron, "theta", 1.0)
    return not isinstance(theta, Tensor) and theta < SMALLEST and not neuron.fire.analog


def shape(neuron: Any) -> Shape | None:
    """What the kernels need to know of a neuron; None if they do not know it."""
    if type(neuron) is not Neuron or flushed(neuron):
        return None
    bounded = neuron.reset if isinstance(neuron.reset, resets.Bounded) else None
    if bounded is not None and type(bounded) is not resets.Bounded:
        return None
    reset, bound, low = neuron.reset, codes.Bound.NONE, 0.0
    if bounded is not None:
        bound = codes.Bound.BEFORE_INPUT if bounded.before_input else codes.Bound.AFTER_INPUT
        reset, low = bounded.reset, bounded.low
    try:
        code = RESETS.get(reset)
    except TypeError:  # not hashable
        return None
    most, fire = 1.0, codes.Fire.ANALOG
    if type(neuron.fire) is Threshold:
        most = float(neuron.fire.most)
        fire = codes.Fire.COUNT if most > 1 else codes.Fire.EXCEED if neuron.fire.strict else codes.Fire.REACH
    elif type(neuron.fire) is not Analog:
        return None
    if code is None:
        return None
    constants = (0.0 if isinstance(c, Tensor) else float(c) for c in neuron.constants)
    synapse = isinstance(neuron.alpha, Tensor) or neuron.alpha != 0
    return Shape((*constants, float(low), most), (int(code), int(bound), int(fire), int(synapse)))


def slope(surrogate: Surrogate) -> Slope | None:
    """What the kernels need to know of a surrogate; None if they do not know it. Subclasses are not their parents."""
    within = math.inf
    if type(surrogate) in LIMITED:
        surrogate, within = surrogate.inner, surrogate.within  # type: ignore[attr-defined]
    code = SLOPES.get(type(surrogate))
    if code is None:
        return None
    width = surrogate.width if code is codes.Slope.BOXCAR else 1 / surrogate.width  # whose edge is not rounded
    return Slope(code, (width, float(surrogate.peak), float(within)))


def ready(device: torch.device, work: int) -> bool:
    """Whether the kernels are there for tensors on a device; see `snnlearn.kernels.ready` for ``work``."""
    if device.type == "cuda":
        from snnlearn.kernels import cuda  # which needs nothing before there is a GPU

        return cuda.ready(device, work)
    return device.type == "cpu" and kernels.ready(work)


def _ready(x: Tensor) -> bool:
    return x.dtype in (torch.float32, torch.float64) and ready(x.device, x.numel())


def _each(neuron: Neuron, like: Tensor) -> list[Tensor]:
    """alpha, beta and theta, each like a step, where one of them is a tensor."""
    if not any(isinstance(c, Tensor) for c in neuron.constants):
        return []
    return [c.detach().expand_as(like) if isinstance(c, Tensor) else torch.full_like(like, c) for c in neuron.constants]


def simulate(
    neuron: Neuron,
    a: Tensor,
    recurrent: Callable[[Tensor], Tensor] | None,
    lag: int,
    state: State,
    sent: Sequence[Tensor],
) -> Trace | None:
    """`Neuron.simulate` by the kernels; None where they do not know the neuron or are not there."""
    known = shape(neuron)
    if known is None or not _ready(a):
        return None
    neuron.fits(a[0], state)
    each = _each(neuron, a[0])
    forward = torch.ops.snnlearn.scan_forward
    if recurrent is None:
        I, U, s = forward(a, *state, each, known.numbers, known.kinds)
        return Trace(I if known.synapse else a, U, s)
    spikes, pieces = list(sent), []
    I, U, s = (x[None] for x in state)
    for n, a_n in enumerate(a.unbind(0)):
        delivered = (a_n + recurrent(spikes[n]))[None]
        I, U, s = forward(delivered, I[0] if known.synapse else state.I, U[0], s[0], each, known.numbers, known.kinds)
        spikes.append(s[0])
        pieces.append((I if known.synapse else delivered, U, s))
    return Trace(*(torch.cat(x) for x in zip(*pieces, strict=True)))


class Found(NamedTuple):
    """The reverse recursion's results."""

    kap: Tensor  # dL/da, (T, B, *features)
    to_state: State  # gradients of the state before the first step
    to_constants: tuple[Tensor, ...] | None  # of alpha, beta and theta, like a step; None: not wanted


def reverse(
    neuron: Neuron,
    compiled: Compiled | None,
    trace: Trace,
    state: State,
    errors: tuple[Tensor | None, Tensor | None, Tensor | None],
    back: Callable[[Tensor], Tensor] | None,
    lag: int,
    constants: bool,
) -> Found | None:
    """`snnlearn.temporal.recursion.reverse` by the kernels, or None.

    ``trace.s`` is looked at where there is recurrence, ``trace.I`` where the reset's derivative or a constant's does.
    """
    known = shape(neuron)
    if known is None or compiled is None or not _ready(trace.U):
        return None
    each = _each(neuron, trace.U[0])
    numbers = compiled.slope.numbers if compiled.slope is not None else (1.0, 1.0, math.inf)
    code = compiled.slope.code if compiled.slope is not None else codes.Slope.STRAIGHT
    how = (
        each, known.numbers, known.kinds, numbers, compiled.times,
        (int(compiled.seen), int(code), int(compiled.intra), int(compiled.leak)), constants,
    )  # fmt: skip
    I, U, _ = trace
    run = torch.ops.snnlearn.scan_reverse
    if back is None:
        kap, _, *found = run(*errors, I, U, *state, None, None, None, compiled.psc, *how)
        return Found(kap, State(*found[:3]), tuple(found[3:]) if constants else None)
    kaps: list[Tensor] = []  # from the last step to the first
    lam = kap = I_next = sums = None
    T = len(U)
    for n in reversed(range(T)):
        e_I, e_U, e_s = (None if e is None else e[n : n + 1] for e in errors)
        if n + lag < T:
            sent = back(kaps[T - 1 - n - lag])[None]
            e_s = sent if e_s is None else e_s + sent
        first = state if n == 0 else State(I[n - 1], U[n - 1], trace.s[n - 1])
        psc = None if compiled.psc is None else compiled.psc[n : n + 1]
        kap, lam, *found = run(e_I, e_U, e_s, I[n : n + 1], U[n : n + 1], *first, lam, kap, I_next, psc, *how)
        kap, I_next = kap[0], I[n]
        kaps.append(kap)
        if constants:
            sums = [found[3 + j] if sums is None else sums[j] + found[3 + j] for j in range(3)]
    return Found(torch.stack(kaps[::-1]), State(*found[:3]), tuple(sums) if sums is not None else None)
