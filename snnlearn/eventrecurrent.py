"""A recurrent layer driven by its own events: a spike adds its row of weights, silence costs nothing.

    I[n] = alpha * I[n-1] + a[n] + V s[n-1]        U, s: any `Neuron` that fires once a step

Backward, the error flows against every connection, spike or not: e[n] = dL/ds[n] + V^T kap[n+1], a product of (B, N)
with (N, N) at each step. Only a slope that is zero off the neurons near threshold (`snnlearn.sparse.Near`) saves that:
the error is then needed at those alone, one dot product for each. dL/dV = sum_n kap[n+1] s[n]^T is a sum over spikes.

What the kernel does not know, and everything where it cannot be compiled, goes through `temporal.run`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snnlearn import _checks, kernels
from snnlearn.eventpath import few, first_derivative, known, near_share, price
from snnlearn.kernels import codes
from snnlearn.neurons import Neuron, Threshold, lif
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Adjoint, Backward, check_axes

SPARSE_BELOW = 0.2
"""Share of near neurons below which the error is asked for at those alone. Measured: for the recurrent product the two
ways break even at 0.3; the layer above, which sends the error, does so at about 0.2."""

_RESETS = (codes.Reset.SUBTRACT, codes.Reset.SUBTRACT_DECAYED, codes.Reset.TO_ZERO, codes.Reset.NONE)
_FIRE = (codes.Fire.REACH, codes.Fire.EXCEED)


class _Layer(NamedTuple):
    """A layer as the kernel takes it; see recurrent.cpp."""

    numbers: tuple[float, float, float, float]  # alpha, beta, theta, within
    kinds: tuple[int, int]  # Reset, Fire
    slope: tuple[float, float, float]
    seen: tuple[int, int]  # Seen, Slope

    @property
    def near(self) -> bool:
        """Whether the error is wanted at near neurons only."""
        return self.numbers[3] < math.inf


def _known(neuron: Neuron, surrogate: Surrogate, temporal: Backward) -> _Layer | None:
    """The layer for the kernel, or None if it does not know it."""
    found = known(neuron, surrogate, temporal)
    if isinstance(found, str) or found.reset not in _RESETS or found.fire not in _FIRE:
        return None
    within, credit = found.credit.within, found.credit
    if within < math.inf and not 2.0**-20 < within / found.theta < 2.0**60:  # theta +- 2 within must be its own number
        return None
    numbers = (found.alpha, found.beta, found.theta, within)
    slope = (credit.width, credit.peak, within)
    return _Layer(numbers, (found.reset, found.fire), slope, (credit.seen, credit.slope))


class _Recurrent(torch.autograd.Function):
    """What carries the gradient of the spikes; spikes and near neurons as bits; what the reverse pass wants to know."""

    @staticmethod
    def forward(a: Tensor, weight: Tensor, layer: _Layer, keep: bool):
        bits, near, near_U, checkpoint = torch.ops.snnlearn.recurrent_forward(
            a, weight, layer.numbers, layer.kinds, layer.near, keep
        )
        if layer.near and near_U.numel() < SPARSE_BELOW * a.numel():
            return torch.zeros_like(near_U), bits, near, near_U
        return a.new_zeros(()).expand(a.shape), bits, near, checkpoint

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        a, weight, ctx.layer, _ = inputs
        _, bits, near, saved = output
        ctx.mark_non_differentiable(bits, near, saved)
        current = a.new_zeros(()).expand(a.shape) if saved.dim() == 1 else a  # its values are not looked at
        ctx.save_for_backward(current, weight, bits, near, saved)
        ctx.set_materialize_grads(False)

    @staticmethod
    @first_derivative
    def backward(ctx, e, *_):
        if e is None:
            return None, None, None, None
        layer: _Layer = ctx.layer
        kap, V = torch.ops.snnlearn.recurrent_reverse(
            *ctx.saved_tensors, e, layer.numbers, layer.kinds, layer.slope, layer.seen
        )
        return kap, V, None, None


def _check(a: Tensor, weight: Tensor, neuron: object) -> None:
    if not isinstance(a, Tensor) or not isinstance(weight, Tensor):
        raise TypeError(f"the current and the weight must be tensors, got {type(a).__name__}, {type(weight).__name__}")
    if a.dim() != 3 or 0 in a.shape:
        raise ValueError(
            f"the current of a recurrent layer must be (T, B, N), each at least 1, got shape {tuple(a.shape)}; one "
            "sample needs a.unsqueeze(1), features on several axes a.flatten(2)"
        )
    if not a.is_floating_point():
        raise TypeError(f"the current must be floating point, got {a.dtype}; use a.float()")
    _checks.same_kind("the recurrent weight", weight, "the current", a)
    N = a.shape[-1]
    if tuple(weight.shape) != (N, N):
        raise ValueError(
            f"the recurrent weight of {N} neurons must be ({N}, {N}), got {tuple(weight.shape)}; it is that of "
            f"nn.Linear({N}, {N}, bias=False)"
        )
    if getattr(getattr(neuron, "fire", None), "analog", False):
        raise ValueError("a readout has no spikes that could come back to it; give a neuron that fires")


def recurrent_lif(a: Tensor, weight: Tensor, neuron: Neuron, surrogate: Surrogate, temporal: Backward) -> Spikes:
    """A layer whose spikes come back to it one step later, from rest.

    Args:
        a: currents from outside, (T, B, N).
        weight: V, (N, N), as that of ``nn.Linear(N, N)``: to, from.
        neuron: fires at most once a step.
        surrogate: with `Near` the spikes ask for their error at near neurons only, unless those are many.
        temporal: how credit travels through time.

    Returns:
        Spikes of N neurons, differentiable with respect to ``a`` and ``weight``. The gradients are those of
        ``temporal.run``, but for the order of additions, and the same for any number of threads.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices do not fit, the neuron is a readout, weights or membranes are
            not finite.
    """
    check_axes(surrogate, temporal)
    _check(a, weight, neuron)
    if not _checks.finite(weight):  # a silent neuron would hide it
        raise ValueError("the recurrent weight holds NaN or infinity; look at the training step before this one")
    layer = _known(neuron, surrogate, temporal)
    on_cpu = a.dtype == torch.float32 and a.device.type == "cpu"
    if layer is None or not on_cpu or not kernels.ready(a.numel()):
        return _reference(a, weight, neuron, surrogate, temporal)
    keep = torch.is_grad_enabled() and (a.requires_grad or weight.requires_grad)
    carrier, bits, near, _ = _Recurrent.apply(a, weight, layer, keep)
    if not keep:
        return Spikes(bits, a.shape[-1])
    return Spikes(bits, a.shape[-1], carrier, near if carrier.dim() == 1 else None)


def _reference(a: Tensor, weight: Tensor, neuron: Neuron, surrogate: Surrogate, temporal: Backward) -> Spikes:
    """The same without the kernel."""
    if not _checks.finite(a):
        raise ValueError("the current holds NaN or infinity; look at the data before the network")
    return Spikes.pack(temporal.run(neuron, surrogate, a, synapse(weight)).s)


def synapse(weight: Tensor) -> nn.Linear:
    """A layer's own spikes to its currents, by a weight (N, N) that lives elsewhere: any tensor, a parameter or not."""
    own = nn.Linear(len(weight), len(weight), bias=False, device="meta")
    own._parameters["weight"] = weight  # type: ignore[assignment]
    return own


class RecurrentLIF(nn.Module):
    """Neurons with recurrent weights as a module: currents in, spikes as bits out.

        layer = RecurrentLIF(200, cuba_lif())
        y = layer(a).dense()        # a, y (T, B, 200)

    Args:
        size: N, the number of neurons.
        neuron: fires at most once a step.
        surrogate: what replaces the derivative of the step.
        temporal: how credit travels through time.
        generator: of the first weights, uniform in +-1/sqrt(N) as nn.Linear's.

    Attributes:
        weight: V, (N, N): to, from.
        activity, cosine: with `Near`, on some samples of the first sequence that was trained on: the share of neurons
            and steps near their threshold, and `snnlearn.eventpath.measure`; else None.

    Raises:
        TypeError, ValueError: an argument is not what it must be.

    For torch.compile and torch.func use ``LIF(recurrent=...)``.
    """

    def __init__(
        self,
        size: int,
        neuron: Neuron | None = None,
        *,
        surrogate: Surrogate = FastSigmoid(),
        temporal: Backward = Adjoint(),  # noqa: B008  # frozen
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _checks.whole("size, the number of neurons,", size, least=1)
        check_axes(surrogate, temporal)
        neuron = lif() if neuron is None else neuron
        if not isinstance(neuron, Neuron):
            raise TypeError(f"neuron must be a Neuron such as lif(), got {type(neuron).__name__}; use LIF for others")
        if neuron.fire.analog:
            raise ValueError("a readout has no spikes that could come back to it; give a neuron that fires")
        if isinstance(neuron.fire, Threshold) and neuron.fire.most != 1:
            raise ValueError(f"spikes leave this layer as bits, one a step; got {neuron.fire}; use LIF(recurrent=...)")
        self.neuron, self.surrogate, self.temporal = neuron, surrogate, temporal
        self.activity: float | None = None
        self.cosine: float | None = None
        self.weight = nn.Parameter(torch.empty(size, size))
        nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5, generator=generator)

    def forward(self, a: Tensor) -> Spikes:
        """Spikes for currents a (T, B, N), from rest; see `recurrent_lif` for what is refused."""
        spikes = recurrent_lif(a, self.weight, self.neuron, self.surrogate, self.temporal)
        if isinstance(self.surrogate, Near) and spikes.carrier is not None:
            self._tell(a.detach())
        return spikes

    @torch.no_grad()
    def _tell(self, a: Tensor) -> None:
        """What `Near` keeps, and a warning, once, where that is little."""
        assert isinstance(self.surrogate, Near)
        if self.cosine is None:
            a = a[:, : few(a[:, 0].numel())]
            U = self.temporal.run(self.neuron, self.surrogate, a, synapse(self.weight)).U
            self.activity = near_share(U, self.neuron, self.surrogate)
            self.cosine = price(U, self.neuron, self.surrogate, stacklevel=7)

    def extra_repr(self) -> str:
        """What is not a parameter."""
        return f"{len(self.weight)}, {self.neuron}, surrogate={self.surrogate}, temporal={self.temporal}"
