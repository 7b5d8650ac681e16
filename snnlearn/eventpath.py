"""How a layer of events computes: what the kernels know, one autograd node, and when it is worth it.

`snnlearn.eventlayers` has the modules. A layer's spikes leave as bits, and their gradient as a carrier
(`snnlearn.spikes`), from which the layer below takes its error.
"""

from __future__ import annotations

import enum
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from snnlearn.kernels import codes
from snnlearn.learned import check_source
from snnlearn.neurons import Neuron
from snnlearn.sparse import Near
from snnlearn.spikes import WORD, Spikes
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import Adjoint, Forward, check_axes, fused

ACTIVE = 0.25
"""The share of near neurons up to which a sparse error is taken to be faster than a dense one: for two layers of 64 to
1000 outputs it was 2.0-2.7 times faster at 2 %, 1.4-1.7 at 10 %, 1.0-1.1 at 26 % and 0.75-0.9 at 46 %."""


LOOKED_AT = 2**16
"""Membranes, at least, on which the price of B_th is measured: some samples of the first batch."""
FAITHFUL = 0.95
"""Below this cosine of the slopes that are kept to all of them a user is warned."""


class Path(enum.Enum):
    """How a layer computes.

    AUTO: by events where that is possible and, at the input's density, measured to be faster.
    DENSE: by a matrix product and ``temporal.run``.
    EVENTS: by events, or an error that says why not.
    """

    AUTO = "auto"
    DENSE = "dense"
    EVENTS = "events"


def check_layer(neuron: object, surrogate: object, temporal: object, path: object) -> None:
    """Refuse, with TypeError or ValueError, what no layer of events can be made of."""
    check_source(neuron)
    check_axes(surrogate, temporal)
    if isinstance(temporal, Forward):
        raise TypeError(f"{type(temporal).__name__} works forward in time and has no backward pass; use Adjoint()")
    if not isinstance(path, Path):
        raise TypeError(f"path must be one of {', '.join(map(str, Path))}, got {path!r}")


@dataclass(frozen=True)
class Report:
    """What a layer did with its last sequence.

    Args:
        path: DENSE or EVENTS.
        density: the share of ones among its inputs, in 0..1.
        threshold: the density up to which events are taken to be faster; None where that was not asked.
        why: the reason for the path.
        sparse: whether the error from above is asked for near the threshold only.
        activity: with `Near`, the share of neurons and steps that are near their threshold, on the dense path of the
            first few samples only; else None.
        cosine: with `Near`, `measure` on the first batch that was trained on; else None.
    """

    path: Path
    density: float
    threshold: float | None
    why: str
    sparse: bool = False
    activity: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class BreakEven:
    """Densities of the input above which the dense path is faster, by number of outputs."""

    outputs: tuple[int, ...]
    exact: tuple[float, ...]
    sparse: tuple[float, ...]

    def at(self, outputs: int, sparse: bool) -> float:
        """Between two measured sizes in proportion to the logarithm of the size; the nearest one's outside."""
        x, y = [math.log(n) for n in self.outputs], self.sparse if sparse else self.exact
        z = min(max(math.log(outputs), x[0]), x[-1])
        i = next(i for i in range(1, len(x)) if z <= x[i])
        return y[i - 1] + (y[i] - y[i - 1]) * (z - x[i - 1]) / (x[i] - x[i - 1])


# Forward and backward of one layer, events against the fused dense path, T = 250, B = 64 (16 for 1000 outputs), 0.5 to
# 80 % dense, 2 % of neurons near threshold. Intel Xeon with AVX-512 (model 167), 2.6 GHz, one thread, 25 November 2026.
# Dense over events, in times, at 2, 5, 10, 20, 30, 40, 60 % of an exact gradient:
#   hidden  64    3.0  2.9  2.1  2.1  1.8  1.6  1.3        first  64    .    .    3.0  1.8  1.1  0.9  0.6
#          200    2.0  2.2  1.8  1.3  1.1  0.9  0.8              200    .    .    2.0  1.1  0.7  0.5  0.3
#         1000    2.1  1.8  1.4  1.0  0.7  0.6  0.4             1000    .    .    2.0  1.0  0.7  0.5  0.4
# and of a sparse one at 10 to 60 %: hidden 3.7-1.9, 3.4-1.4, 4.4-1.1; first 3.2-0.7, 2.4-0.4, 3.7-0.9.
FIRST = BreakEven((64, 200, 1000), (0.35, 0.21, 0.2), (0.38, 0.26, 0.55))
"""Of a layer below which no error is wanted; measured with 700 inputs."""
HIDDEN = BreakEven((64, 200, 1000), (0.9, 0.35, 0.2), (0.95, 0.75, 0.7))
"""Of a layer that owes an error to the one below; measured with as many inputs as outputs."""


class Credit(NamedTuple):
    """What the gradient of a neuron's spikes is made of, as the kernels take it."""

    slope: int  # codes.Slope
    width: float  # 1 / width
    peak: float
    within: float  # B_th; infinite without `Near`
    seen: int  # codes.Seen

    @property
    def limited(self) -> bool:
        """Whether the slope is cut off by `Near`."""
        return self.within < math.inf


class Events(NamedTuple):
    """A layer as the kernels of events.h take it."""

    alpha: float
    beta: float
    theta: float
    reset: int  # codes.Reset
    fire: int  # codes.Fire
    credit: Credit

    @classmethod
    def current(cls) -> Self:
        """No dynamics: the output is the current a itself."""
        return cls(0.0, 0.0, 1.0, codes.Reset.NONE, codes.Fire.ANALOG, Credit(codes.Slope.STRAIGHT, 1, 1, math.inf, 0))

    @property
    def readout(self) -> bool:
        """Whether the membrane is the output."""
        return self.fire == codes.Fire.ANALOG

    @property
    def sparse(self) -> bool:
        """Whether errors may be asked for near the threshold only.

        A reset that loses the input has a derivative that looks at I, which is not kept there.
        """
        loses = self.reset == codes.Reset.TO_ZERO_WITH_INPUT and self.credit.seen != codes.Seen.IGNORED
        return self.credit.limited and not self.readout and not loses

    def run(self, weight: Tensor, bias: Tensor | None, x: Spikes, learns: bool) -> tuple[Spikes | Tensor, int | None]:
        """Spikes of the layer, or membranes (T, B, outputs) of a readout; and the number of near neurons and steps.

        Args:
            weight: (outputs, inputs), float32.
            bias: (outputs,) or None.
            x: spikes of the inputs.
            learns: whether a gradient will be asked for.
        """
        carrier = x.carrier if x.carrier is not None and x.carrier.requires_grad else None
        near_below = None if carrier is None or x.near is None else x.near.contiguous()
        up, bits, near, near_U, *_ = _Node.apply(weight, bias, carrier, x.bits.contiguous(), near_below, self, learns)
        if self.readout:
            return up, None
        sparse = up.dim() == 1 and learns
        spikes = Spikes(bits, len(weight), up if learns else None, near if sparse else None)
        return spikes, near_U.numel() if learns and self.sparse else None


def known(neuron: object, surrogate: Surrogate, temporal: object) -> Events | str:
    """A neuron, a surrogate and a method as the kernels take them, or the reason why they do not."""
    if type(temporal) is not Adjoint:
        return f"events go backward by Adjoint, not by {type(temporal).__name__}"
    if fused.flushed(neuron):
        return "at a threshold of 0 the smallest numbers decide, and the kernels flush them to 0"
    shape = fused.shape(neuron)
    if shape is None or shape.kinds[1] != codes.Bound.NONE:
        return f"no kernel knows {neuron}; a Neuron with a reset of this library, without a bound, has one"
    assert isinstance(neuron, Neuron)
    if any(isinstance(c, Tensor) for c in neuron.constants):
        return "the neuron's constants are tensors, and events take numbers"
    reset, _, fire, _ = shape.kinds
    if fire == codes.Fire.COUNT:
        return "a step may have several spikes, and events know one"
    if fire == codes.Fire.ANALOG and reset != codes.Reset.NONE:
        return "a readout with a reset has no kernel"
    within = math.inf
    while type(surrogate) is Near:
        within, surrogate = min(within, surrogate.within), surrogate.inner
    slope = fused.slope(surrogate)
    if slope is None:
        return f"no kernel knows the surrogate {surrogate}"
    alpha, beta, theta, *_ = shape.numbers
    width, peak, _ = slope.numbers
    credit = Credit(int(slope.code), width, peak, within, int(fused.SEEN[temporal.reset]))
    return Events(alpha, beta, theta, reset, fire, credit)


class _NoSecond(torch.autograd.Function):
    """A gradient, as it is; that it depends on ``sources`` is known, and how is not."""

    @staticmethod
    def forward(gradient, *sources):
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError("the gradient of a layer of events has no derivative; use path=Path.DENSE, or kernels.off()")


def first_derivative(backward: Callable) -> Callable:
    """A ``backward`` that must not be differentiated, and is not silently taken for constant where it is.

    ``once_differentiable`` alone sees only whether the error has a gradient, and that of a linear loss has none.
    """
    once = once_differentiable(backward)

    @functools.wraps(backward)
    def run(ctx, *errors):
        gradients = once(ctx, *errors)
        if not torch.is_grad_enabled():
            return gradients
        sources = [x for x in (*ctx.saved_tensors, *errors) if x is not None and x.requires_grad]
        return tuple(g if g is None or not sources else _NoSecond.apply(g.detach(), *sources) for g in gradients)

    return run


class _Node(torch.autograd.Function):
    """Events in, bits out. The first output has a gradient: a readout's membrane, else the spikes' carrier."""

    @staticmethod
    def forward(weight, bias, carrier, bits, near_below, layer: Events, learns):
        ops = torch.ops.snnlearn
        W = ops.events_blocks(weight)
        b = None if bias is None else F.pad(bias, (0, -len(bias) % WORD)).view(-1, WORD)
        fired, near, near_U, U, checkpoints = ops.events_forward(
            bits, W, b, len(weight), (layer.alpha, layer.beta, layer.theta, layer.credit.within),
            (layer.reset, layer.fire), learns and layer.sparse, learns,
        )  # fmt: skip
        if layer.readout:
            up = U
        elif not learns:
            up = U.new_zeros(0)
        elif layer.sparse and near_U.numel() <= ACTIVE * bits.shape[0] * bits.shape[1] * len(weight):
            up, checkpoints = torch.zeros_like(near_U), U.new_empty(0)  # the membrane will not be made again
        else:
            up = U.new_zeros(()).expand(*bits.shape[:2], len(weight))
        return up, fired, near, near_U, checkpoints, W, b

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        weight, _, carrier, bits, near_below, ctx.layer, _ = inputs
        up, fired, near, near_U, checkpoints, W, b = output
        ctx.mark_non_differentiable(*(x for x in output[1:] if x is not None))
        ctx.set_materialize_grads(False)
        ctx.sparse = up.dim() == 1
        ctx.carrier = None if carrier is None else (len(carrier), carrier.dtype)
        kept = (near, near_U, fired) if ctx.sparse else (checkpoints,)
        ctx.save_for_backward(weight, bits, W, b, near_below, *kept)

    @staticmethod
    @first_derivative
    def backward(ctx, e, *_):
        if e is None:
            return (None,) * 7
        weight, bits, W, b, near_below, *kept = ctx.saved_tensors
        layer: Events = ctx.layer
        credit = layer.credit
        down = ctx.carrier is not None and ctx.needs_input_grad[2]
        below = near_below if down else None
        from_above = (None, None, e, *kept) if ctx.sparse else (e, None if layer.readout else kept[0], *(None,) * 4)
        to_weight, to_bias, everywhere, values = torch.ops.snnlearn.events_backward(
            bits, W, b, *from_above, below, 0 if below is None else ctx.carrier[0], len(weight),
            (layer.alpha, layer.beta, layer.theta, credit.width, credit.peak, credit.within),
            (layer.reset, layer.fire, credit.slope, credit.seen), False, weight if down and below is None else None,
        )  # fmt: skip
        to_carrier = (values if below is not None else everywhere).to(ctx.carrier[1]) if down else None
        wants = ctx.needs_input_grad
        to_bias = to_bias if wants[1] and b is not None else None
        return to_weight if wants[0] else None, to_bias, to_carrier, None, None, None, None


def measure(U: Tensor, neuron: Neuron, surrogate: Near) -> float:
    """How faithful `Near` is at membranes U: the cosine of the slopes that it keeps to all of the inner one's.

    What is kept is unchanged, so this is sqrt(sum of kept f**2 / sum of f**2), in 0..1. For errors e that know nothing
    of the membranes it is also the cosine to expect between f * e with and without `Near`.
    """
    kept = everything = 0.0
    for part in U.split(64):  # what is looked at once need not be there at once
        x = part - neuron.theta
        kept += surrogate.slope(x).square_().sum(dtype=torch.float64).item()
        everything += surrogate.inner.slope(x).square_().sum(dtype=torch.float64).item()
    return math.sqrt(kept / everything) if everything > 0 else 1.0


def near_share(U: Tensor, neuron: Neuron, surrogate: Near) -> float:
    """The share of membranes U within B_th of the threshold."""
    return ((U - neuron.theta).abs() < surrogate.within).double().mean().item()


def few(neurons_and_steps: int) -> int:
    """The samples that `price` looks at, where one has so many membranes."""
    return -(-LOOKED_AT // neurons_and_steps)


def price(U: Tensor, neuron: Neuron, surrogate: Near, *, stacklevel: int) -> float:
    """`measure` at membranes U of some samples of the first batch; a warning where `Near` costs much."""
    cosine = measure(U, neuron, surrogate)
    if cosine < FAITHFUL:
        warnings.warn(
            f"{surrogate} is too narrow for its inner slope, or that too wide: the cosine of the slopes that it keeps "
            f"to all of them is {cosine:.2f} on the first batch, where {near_share(U, neuron, surrogate):.1%} of "
            f"neurons and steps are within B_th = {surrogate.within:g}, and gradients differ as much. Use a larger "
            "within or a narrower surrogate",
            stacklevel=stacklevel,
        )
    return cosine
