"""Spikes as moments: events, event-driven layers and networks of them. The mathematics is in `snnlearn.eventprop`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.eventprop import Cell, run


class Events(NamedTuple):
    """The spikes of a layer, in order of time. Samples with fewer spikes than others are padded at their end.

    Args:
        times: (B, K), seconds from the start, ascending, inf where there is no spike.
        neurons: (B, K), which neuron spikes, 0 .. size - 1; of no meaning where the time is inf.
        size: number of neurons of the layer, silent ones too.
    """

    times: Tensor
    neurons: Tensor
    size: int

    @classmethod
    def from_times(cls, t: Tensor) -> Events:
        """Events from a table of spike times, differentiable in it.

        Args:
            t: (B, neurons) or (B, neurons, spikes), seconds, inf for no spike, in any order.

        Raises:
            ValueError, TypeError: t has another shape, is not floating point, or holds NaN or negative times.

        >>> import torch
        >>> Events.from_times(torch.tensor([[0.02, torch.inf, 0.01]])).neurons
        tensor([[2, 0]])
        """
        if not isinstance(t, Tensor) or t.dim() not in (2, 3):
            came = tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__
            raise ValueError(f"spike times must have shape (B, neurons) or (B, neurons, spikes), got {came}")
        if t.numel() == 0:
            raise ValueError(f"the table of spike times is empty: shape {tuple(t.shape)}; silence is inf")
        _check_times(t)
        times, order = t.flatten(1).sort(dim=1, stable=True)
        used = int(times.isfinite().sum(1).max())
        each = t.shape[2] if t.dim() == 3 else 1
        return cls(times[:, :used], order[:, :used] // each, t.shape[1])

    def check(self) -> None:
        """Refuse what breaks the contract above.

        Raises:
            ValueError, TypeError: what is wrong, and how to mend it.
        """
        for name, x in (("times", self.times), ("neurons", self.neurons)):
            if not isinstance(x, Tensor) or x.dim() != 2:
                came = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"{name} of events must be a tensor (B, K), got {came}")
        if not len(self.times):
            raise ValueError("events of no sample; give at least one, whose times may be all inf")
        _check_times(self.times)
        _checks.whole("the size of the layer", self.size, least=1)
        if self.neurons.shape != self.times.shape:
            raise ValueError(f"times have shape {tuple(self.times.shape)}, neurons {tuple(self.neurons.shape)}")
        if self.neurons.dtype != torch.long:
            raise TypeError(f"neurons of events must be torch.long, got {self.neurons.dtype}; use .long()")
        if not _checks.holds(self.times[:, 1:] >= self.times[:, :-1]):
            raise ValueError("the events of a sample must be in order of time, inf last; use Events.from_times")
        if not _checks.holds((self.neurons >= 0) & (self.neurons < self.size)):
            low, high = int(self.neurons.min()), int(self.neurons.max())
            raise ValueError(f"neurons must lie in 0..{self.size - 1}, got {low}..{high}")

    def first(self) -> Tensor:
        """The first spike time of each neuron, (B, size), inf for a silent one, whose gradient is zero."""
        K = self.times.shape[1]
        place = torch.arange(K, device=self.times.device).expand_as(self.neurons)
        place = torch.where(self.times.isfinite(), place, K)
        first = place.new_full((len(place), self.size), K).scatter_reduce(1, self.neurons, place, "amin")
        never = self.times.new_full((len(place), 1), math.inf)
        return torch.cat([self.times, never], 1).gather(1, first)

    def counts(self) -> Tensor:
        """The number of spikes of each neuron, (B, size), integer. A zero is a neuron that no gradient reaches."""
        spikes = self.times.isfinite().long()
        return spikes.new_zeros(len(spikes), self.size).scatter_add(1, self.neurons, spikes)

    def ordinals(self) -> Tensor:
        """0 for a neuron's first spike, 1 for its second, and so on, (B, K); of no meaning where the time is inf."""
        same = self.neurons[:, :, None] == self.neurons[:, None, :]
        return same.tril(-1).sum(2)


def _check_times(times: Tensor) -> None:
    if not times.is_floating_point():
        raise TypeError(f"spike times must be floating point, got {times.dtype}; use .float() or .double()")
    if not _checks.holds(times >= 0):  # false for NaN, too
        raise ValueError(
            "spike times are seconds from the start and must be 0 or more, or inf for silence; got NaN or "
            "a negative time"
        )


class Spatial(Protocol):
    """What an event-driven layer needs to know of a spatial rule."""

    def down(self, i: int, synapse: nn.Module) -> nn.Module | None:
        """Through what the error leaves layer i downwards."""


class Axes(Protocol):
    """What an event-driven layer needs to know of a rule (`snnlearn.rule.Rule`)."""

    @property
    def spatial(self) -> Spatial:
        """How credit travels through layers."""


class EventLIF(nn.Module):
    """Current-based LIF neurons in continuous time, each spike found to machine precision, with EventProp's gradient.

    Any number of spikes a neuron. Silent neurons get no gradient: start with weights that make most of them fire, or
    see `snnlearn.firstspike.silence_cost`.

    Args:
        synapse: nn.Linear without bias.
        horizon: the run lasts from 0 to this, seconds; later spikes are neither seen nor made.
        tau_mem, tau_syn: time constants of membrane and current, seconds; they may be equal.
        theta: threshold, in units of the membrane. One input spike of weight w lifts V by 0.16 w at most, with the
            default time constants, and by less than w with any.
        most: spikes of one neuron beyond which a run is refused.

    Raises:
        ValueError, TypeError: an argument is not a positive number, or the synapse is none of this kind.
    """

    def __init__(
        self,
        synapse: nn.Linear,
        *,
        horizon: float,
        tau_mem: float = 20e-3,
        tau_syn: float = 5e-3,
        theta: float = 1.0,
        most: int = 1000,
    ):
        super().__init__()
        check_synapse(synapse)
        check_number("tau_mem", tau_mem, "seconds")
        check_number("tau_syn", tau_syn, "seconds")
        check_number("the horizon", horizon, "seconds")
        check_number("theta", theta)
        _checks.whole("most", most, least=1)
        self.synapse, self.horizon, self.most = synapse, float(horizon), most
        self.cell = Cell(float(tau_mem), float(tau_syn), float(theta))

    def forward(self, i: int, below: Sequence[Events], rule: Axes) -> Events:
        """The layer's spikes.

        Args:
            i: the layer's number, from 0.
            below: the network's input and the spikes of every layer below.
            rule: its ``spatial`` says through which weights the error leaves to the input's times.

        Raises:
            ValueError: the input has another size, the weights have diverged, or a neuron fires too often.
            TypeError: the rule sends the error through something other than an nn.Linear like the synapse, or None.
        """
        x, W = below[-1], self.synapse.weight
        if x.size != self.synapse.in_features:
            raise ValueError(f"layer {i} takes spikes of {self.synapse.in_features} neurons, its input has {x.size}")
        _checks.same_kind("the times of the input", x.times, f"the weights of layer {i}", W)
        if not _checks.holds(torch.isfinite(W)):
            raise ValueError(f"the weights of layer {i} hold NaN or infinity: they have diverged; train slower")
        down = rule.spatial.down(i, self.synapse)
        feedback = None if down is None else getattr(down, "weight", None)
        if down is not None and not (isinstance(feedback, Tensor) and feedback.shape == W.shape):
            raise TypeError(
                f"no way to send an error through {down}; in layer {i} down must be the synapse, "
                f"nn.Linear({self.synapse.in_features}, {self.synapse.out_features}) or None"
            )
        feedback = None if feedback is None else feedback.detach()
        times, neurons = run(self.cell, x.times, x.neurons, W, feedback, self.horizon, self.most)
        return Events(times, neurons, self.synapse.out_features)

    @torch.no_grad()
    def membrane(self, x: Events, out: Events, at: Tensor) -> Tensor:
        """V at any times, to look at; (B, M, neurons).

        Each input spike adds its pulse and each own spike takes theta off, which decays.

        Args:
            x, out: the layer's input, and its spikes for it.
            at: (M,), seconds.
        """
        since_in, since_out = (at[:, None] - e.times[:, None, :] for e in (x, out))  # (B, M, K)
        pulse = torch.where(since_in > 0, self.cell.over(since_in.clamp(min=0))[2], 0.0)
        decay = torch.where(since_out >= 0, self.cell.over(since_out.clamp(min=0))[0], 0.0)
        W = self.synapse.weight.T[x.neurons]  # (B, K, neurons)
        own = nn.functional.one_hot(out.neurons, out.size).to(decay.dtype)
        return pulse @ W - self.cell.theta * decay @ own

    def extra_repr(self) -> str:
        """What is not a submodule."""
        c = self.cell
        return f"horizon={self.horizon}, tau_mem={c.tau_mem}, tau_syn={c.tau_syn}, theta={c.theta}"


def check_number(name: str, value: object, unit: str = "") -> None:
    """Refuse anything but one positive, finite number."""
    if isinstance(value, Tensor):
        raise TypeError(f"{name} must be a number, the same for the whole layer, got a tensor; use .item()")
    _checks.positive(name, value, unit)


def check_synapse(synapse: object) -> None:
    """Refuse what is no nn.Linear without bias: in continuous time a weight has effect only where a spike arrives."""
    if not isinstance(synapse, nn.Linear):
        raise TypeError(f"the synapse of an event-driven layer must be an nn.Linear, got {type(synapse).__name__}")
    if synapse.bias is not None:
        raise ValueError("the synapse of an event-driven layer has no bias: use nn.Linear(..., bias=False)")


class EventNetwork(nn.Module):
    """Event-driven layers, one on top of the other.

    >>> import torch
    >>> from snnlearn import recipes
    >>> layers = [EventLIF(nn.Linear(n, m, bias=False), horizon=0.1) for n, m in ((4, 8), (8, 2))]
    >>> hidden, out = EventNetwork(*layers)(torch.rand(3, 4) * 0.05, recipes.bptt())
    >>> out.first().shape
    torch.Size([3, 2])
    """

    def __init__(self, *layers: EventLIF):
        super().__init__()
        if not layers or not all(isinstance(layer, EventLIF) for layer in layers):
            came = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
            raise TypeError(f"an EventNetwork is made of one or more EventLIF layers, got {came}")
        for i, (lower, upper) in enumerate(pairwise(layers)):
            if lower.synapse.out_features != upper.synapse.in_features:
                raise ValueError(
                    f"layer {i} has {lower.synapse.out_features} neurons, layer {i + 1} takes spikes of "
                    f"{upper.synapse.in_features}"
                )
        self.layers: Sequence[EventLIF] = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, x: Events | Tensor, rule: Axes) -> list[Events]:
        """The spikes of all layers.

        Args:
            x: the input's spikes, or their times as in `Events.from_times`.
            rule: see `EventLIF.forward`.
        """
        if not isinstance(x, Events):
            x = Events.from_times(x)
        x.check()
        below = [x]
        for i, layer in enumerate(self.layers):
            below.append(layer(i, below, rule))
        return below[1:]


@dataclass(frozen=True)
class EventProp:
    """The temporal axis in continuous time: the exact gradient of spike times, without a surrogate.

    It says how an `EventNetwork` learns. The gradient itself is in its layers, which know no other.
    """

    def run(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse a layer on the time grid."""
        raise TypeError(
            "EventProp works on spike times, so it needs an EventNetwork of EventLIF layers; on a Network with time "
            "steps use Adjoint() or Unrolled()"
        )
