"""Sparse spiking gradient descent: credit only where a neuron is near its threshold (Perez-Nieves & Goodman 2021).

It is a surrogate, `Near`, and no method of its own: it goes with every method through time and through layers. What
the paper writes is this library's recursion with a slope f that is zero almost everywhere:

    Eqs. 1-4    the layer, with V the membrane U and alpha the decay beta: an input at t reaches V at t+1, which is
                ``Layer(delay=1)``; a strict threshold, ``Threshold(strict=True)``; the reset is `subtract`
    Eq. 5       dW = sum_t e[t] f[t] tr[t], tr[t] = sum_k<t alpha**(t-k-1) S[k]. The decay may as well sum the errors
                backward: lam[t] = f[t] * e[t] + alpha * lam[t+1] and dW = sum_t lam[t+1] S[t]
    Eqs. 6, 11  delta[t] = lam[t+1], and the error below is W delta[t]. Through n steps with f = 0 the recursion only
                decays, delta[t] = alpha**n * delta[t+n], so that nothing needs to be done there
    Eqs. 7, 8   `Near`: f = 0 unless |U - theta| < B_th
    Eqs. 9, 10  Eq. 5 with this f: a step enters dW only where the neuron behind the weight is active
    Eq. 12      e enters everything through f * e, so it is needed only where the neuron itself is active. The authors
                leave the rest zero; dW of no layer changes by that
    Eq. 13      `activity`

The paper does not differentiate the reset: ``Adjoint(Reset.IGNORED)``. With ``Adjoint(Reset.KEPT)`` the carry is
beta - theta * f, which is beta wherever f = 0: Eqs. 9-12 hold as they are, at one multiplication more for each active
step. No paper has that one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.network import Axes, Network
from snnlearn.neurons import Neuron, Trace
from snnlearn.spatial import Transpose
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import Backward, Unrolled, fused


@dataclass(frozen=True)
class Near(Surrogate):
    """Another slope where the membrane is near the threshold, zero elsewhere (Eqs. 7 and 8).

    Args:
        inner: the slope near the threshold, any `Surrogate`.
        within: B_th, in units of the membrane: the slope is kept where |U - theta| < within; infinite for everywhere.

    The width is the inner one's, or ``within`` where that is less; the peak is the inner one's.

    >>> from snnlearn import FastSigmoid
    >>> Near(FastSigmoid(0.1), within=0.2).slope(torch.tensor([-0.3, 0.0, 0.1]))
    tensor([0.0000, 1.0000, 0.5000])
    """

    width: float = field(init=False, repr=False)
    peak: float = field(init=False, repr=False)
    inner: Surrogate
    within: float

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Surrogate):
            raise TypeError(f"inner must be a Surrogate such as FastSigmoid(), got {self.inner!r}")
        if isinstance(self.within, Tensor):
            raise TypeError("within must be one number for the whole layer, got a tensor")
        if self.within != math.inf:
            _checks.positive("within (or math.inf for no limit)", self.within, "the membrane's unit")
        object.__setattr__(self, "width", min(self.inner.width, self.within))
        object.__setattr__(self, "peak", self.inner.peak)

    @classmethod
    def from_code(cls, inner: Surrogate, b_th: float, theta: float = 1.0) -> Self:
        """The authors' code's b_th: active where b_th < V < 2 * theta - b_th, so the paper's B_th is theta - b_th.

        Raises:
            ValueError: b_th is not below theta.
        """
        _checks.positive("theta", theta)
        if not b_th < theta:
            raise ValueError(
                f"the code's b_th is the lower edge of the active range and lies below the threshold {theta:g}, got "
                f"{b_th}; the paper's B_th is Near(inner, within=B_th)"
            )
        return cls(inner, theta - b_th)

    @property
    def area(self) -> float:
        """Integral of the slope over all x: the inner one's from -within to within."""
        if self.within == math.inf:
            return self.inner.area
        low, high = self.inner.primitive(torch.tensor([-self.within, self.within], dtype=torch.float64)).tolist()
        return high - low

    def with_area(self, area: float) -> Self:
        """The same shape and edges, the inner peak chosen so that the slope integrates to ``area``."""
        _checks.positive("area", area)
        return type(self)(self.inner.with_area(area * self.inner.area / self.area), self.within)

    def slope(self, x: Tensor) -> Tensor:
        """The inner slope where |x| < within (Eq. 8)."""
        return torch.where(x.abs() >= self.within, 0, self.inner.slope(x))

    def primitive(self, x: Tensor) -> Tensor:
        """The slope integrated from minus infinity: constant beyond the edges."""
        if self.within == math.inf:
            return self.inner.primitive(x)
        return self.inner.primitive(x.clamp(-self.within, self.within)) - self.inner.primitive(
            torch.full_like(x, -self.within)
        )


fused.LIMITED.add(Near)


# How much of the backward pass is left.


def active(trace: Trace, neuron: Neuron, surrogate: Surrogate) -> Tensor:
    """Where a neuron takes part in the backward pass: the slope is not zero. Booleans (T, B, *features).

    For `Near` around a slope that is nowhere zero this is the paper's |U - theta| < B_th (Eq. 7); for other shapes it
    is what Eqs. 9-12 need. A readout's output is its membrane, so it is active everywhere.
    """
    if neuron.fire.analog:
        return torch.ones_like(trace.U, dtype=torch.bool)
    return surrogate.slope(trace.U.detach() - neuron.theta) != 0


def activity(trace: Trace, neuron: Neuron, surrogate: Surrogate) -> float:
    """The share of active entries among all T * B * N of the layer, in 0..1: Eq. 13 without its 100, and rho of 2.3.

    All T steps count, also those that no input has reached yet.
    """
    return active(trace, neuron, surrogate).double().mean().item()


class _Axes(NamedTuple):
    """Any rule gives the same spikes; this one can always simulate."""

    surrogate: Surrogate
    temporal: Backward
    spatial: Transpose


def _active(net: Network, x: Tensor, rule: Axes) -> list[Tensor]:
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.no_grad():  # in evaluation mode, or a BatchNorm would learn from being looked at
            traces = net.eval()(x, _Axes(rule.surrogate, Unrolled(), Transpose()))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [active(trace, layer.neuron, rule.surrogate) for trace, layer in zip(traces, net.layers, strict=True)]


def activities(net: Network, x: Tensor, rule: Axes) -> list[float]:
    """`activity` of every layer for inputs x (T, B, *features) under a rule, from below; 1 for a readout."""
    return [mask.double().mean().item() for mask in _active(net, x, rule)]


class Products(NamedTuple):
    """Multiplications of one layer's two matrix products in the backward pass, over all steps and samples."""

    dW: int
    """Eqs. 9-10, the weights' gradient: for each active (t, b, j) of the layer, one a weight into j."""
    dS: int
    """Eq. 12, the error below: for each active (t, b, i) of the layer below, one a weight out of i; 0 in layer 0."""
    dense_dW: int
    """Eq. 5: T * B * inputs * outputs."""
    dense_dS: int
    """Eq. 6: the same, and 0 in layer 0."""

    @property
    def saved(self) -> float:
        """The share of the dense multiplications that is not needed, in 0..1."""
        return 1 - (self.dW + self.dS) / (self.dense_dW + self.dense_dS)


def multiplications(net: Network, x: Tensor, rule: Axes) -> list[Products]:
    """What the sparse backward pass has to multiply, and the dense one, for each layer from below.

    An upper bound on what can be saved, as the paper's Table 2: a dense matrix product on an ordinary machine does not
    get faster by zeros. The elementwise work, O(T * B * N) for each layer, is left out. Table 1 has the same counts.

    Args:
        net: layers with ``nn.Linear`` synapses and no recurrence.
        x: inputs, (T, B, inputs).
        rule: whose surrogate decides what is active.

    Raises:
        TypeError: a synapse is not ``nn.Linear``, whose every input meets every output.
        ValueError: a layer is recurrent.
    """
    for i, layer in enumerate(net.layers):
        if not isinstance(layer.synapse, nn.Linear):
            raise TypeError(
                f"multiplications are counted for nn.Linear, layer {i} has {type(layer.synapse).__name__}; use "
                "activities, which counts neurons"
            )
        if layer.recurrent is not None:
            raise ValueError(f"layer {i} is recurrent, which the paper does not have; use activities")
    found, below = [], None
    for mask, layer in zip(_active(net, x, rule), net.layers, strict=True):
        synapse = layer.synapse
        assert isinstance(synapse, nn.Linear)
        I, O, steps = synapse.in_features, synapse.out_features, x.shape[0] * x.shape[1]
        dW, dense = int(mask.sum()) * I, steps * I * O
        found.append(Products(dW, 0, dense, 0) if below is None else Products(dW, int(below.sum()) * O, dense, dense))
        below = mask
    return found
