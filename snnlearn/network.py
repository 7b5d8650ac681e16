"""Layers and networks: they hold weights and nothing else. A rule comes in as an argument, and so does the state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.adaptive import refractory
from snnlearn.filters import Cascade, Filter, check_filter
from snnlearn.learned import Dynamics, as_neuron, check_recurrent, check_source
from snnlearn.neurons import Neuron, State, Trace, exp_decay
from snnlearn.spatial import Spatial, connect, recurrence
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import Backward, Unrolled
from snnlearn.temporal.base import finite


class Axes(Protocol):
    """What a layer needs to know of a rule (`snnlearn.rule.Rule`)."""

    @property
    def surrogate(self) -> Surrogate:
        """What replaces the derivative of the step."""

    @property
    def temporal(self) -> Backward:
        """How credit travels through time."""

    @property
    def spatial(self) -> Spatial:
        """How credit travels through layers."""


class Past(NamedTuple):
    """What a layer has to remember between two calls."""

    state: State
    inputs: tuple[Tensor, ...]  # the last `delay` inputs, oldest first
    sent: tuple[Tensor, ...]  # the last `lag` spikes, oldest first
    filtered: tuple[Tensor, ...] = ()  # the state of the layer's filter
    lower: tuple[tuple[Tensor, ...], ...] = ()  # the last `delay` spikes of each layer below that, where they matter


class Layer(nn.Module):
    """A synapse and the neurons behind it: a[n] = gain * synapse(x[n - delay]) + recurrent(s[n - lag]).

    With a filter the synapse takes (filter * x)[n - delay]: the memory of the input lies before the weights, and a bias
    is not filtered (DECOLLE).

    Args:
        synapse: any module that maps (batch, *features) to (batch, *features): Linear, Conv2d, pooling, Sequential.
        neuron: a `Neuron`, or a module such as `Learned` that makes one.
        recurrent: a module without bias from the layer's spikes to its currents, or None.
        delay: steps by which the input is late. The tutorial's Eqs. 7-8 have 2.
        lag: steps, at least 1, by which recurrent spikes are late.
        gain: factor on the synapse's output, such as 1 - beta.
        filter: what the input runs through before the synapse, such as `filters.Cascade`; or None.
    """

    def __init__(
        self,
        synapse: nn.Module,
        neuron: Dynamics | nn.Module,
        recurrent: nn.Module | None = None,
        *,
        delay: int = 0,
        lag: int = 1,
        gain: float = 1.0,
        filter: Filter | None = None,
    ):
        super().__init__()
        if not isinstance(synapse, nn.Module):
            raise TypeError(f"synapse must be a torch module such as nn.Linear, got {type(synapse).__name__}")
        check_source(neuron)
        check_recurrent(recurrent)
        if isinstance(gain, bool) or not isinstance(gain, float | int) or not math.isfinite(gain):
            raise ValueError(f"gain must be a finite number, got {gain!r}")
        _checks.whole("delay", delay)
        _checks.whole("lag", lag, least=1)
        self.synapse, self.recurrent = synapse, recurrent
        check_filter(filter)
        self.delay, self.lag, self.gain, self.filter = delay, lag, gain, filter
        self.source = neuron

    @property
    def neuron(self) -> Neuron:
        """The neuron at the present values of what it learns."""
        return as_neuron(self.source)

    def current(self, i: int, below: Sequence[Tensor], rule: Axes) -> Tensor:
        """The current a that what lies below delivers to layer i; all (batch, *features)."""
        a = connect(self.synapse, rule.spatial.down(i, self.synapse), below[-1])
        told = rule.spatial.inject(i, below)
        if isinstance(told, Tensor):
            if told.shape.numel() != a.shape.numel():
                raise ValueError(
                    f"{type(rule.spatial).__name__} tells layer {i} an error of {tuple(told.shape[1:])} neurons, its "
                    f"current has {tuple(a.shape[1:])}; draw its weights for this network"
                )
            told = told.reshape(a.shape)
        return self.gain * (a + told)

    def run(self, i: int, below: Sequence[Tensor], rule: Axes, past: Past | None = None) -> tuple[Trace, Past]:
        """A sequence through the layer under a rule.

        Args:
            i: the layer's number, from 0.
            below: the network's input and the spikes of every layer below, each (T, B, *features).
            rule: the rule whose gradient is attached.
            past: what an earlier call returned; at rest if not given.

        Returns:
            The trace and what to remember.
        """
        x = below[-1]
        arriving, waiting = self._arriving(x, () if past is None else past.inputs, rule)
        arriving, filtered = self._filtered(arriving, rule, () if past is None else past.filtered)
        late: list[Tensor] = [arriving]
        lower: tuple[tuple[Tensor, ...], ...] = ()
        if type(rule.spatial).inject is not Spatial.inject:  # who else looks further down?
            before = (past.lower if past is not None else ()) or [()] * (len(below) - 1)
            pairs = [self._arriving(x, kept, rule) for x, kept in zip(below[:-1], before, strict=True)]
            late, lower = [*(x for x, _ in pairs), arriving], tuple(kept for _, kept in pairs)
        # Time joins the batch, or modules that look at more than the last axis would mix the two.
        a = self.current(i, [lower.flatten(0, 1) for lower in late], rule).unflatten(0, x.shape[:2])
        neuron = self.neuron
        state, sent = (
            (neuron.start(a[0]), [torch.zeros_like(a[0])] * self.lag) if past is None else (past.state, past.sent)
        )
        recurrent = recurrence(rule.spatial, i, self.recurrent)
        trace = rule.temporal.run(neuron, rule.surrogate, a, recurrent, self.lag, state, sent)
        if not finite(neuron, a, trace.last):
            raise ValueError(f"the current of layer {i} holds NaN or infinity: its weights have diverged; train slower")
        left = torch.cat([torch.stack(tuple(sent)), trace.s])[-self.lag :]
        return trace, Past(trace.last, waiting, left.unbind(0), filtered, lower)

    def _arriving(self, x: Tensor, waiting: tuple[Tensor, ...], rule: Axes) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x[n - delay] for all n, with what was waiting before, and what is still on its way after the last step."""
        if not self.delay:
            return x, ()
        both = torch.cat([torch.stack(waiting or (torch.zeros_like(x[0]),) * self.delay), x])
        if isinstance(rule.temporal, Unrolled):
            both = rule.temporal.cut(both, self.delay)
        return both[: len(x)], both[len(x) :].unbind(0)

    def _filtered(self, x: Tensor, rule: Axes, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Inputs x (T, B, *features) through the layer's filter, and its state; truncated as the rule truncates."""
        if self.filter is None:
            return x, ()
        state, out = state or self.filter.start(x[0]), []
        window = rule.temporal.window if isinstance(rule.temporal, Unrolled) else None
        for n, x_n in enumerate(x.unbind(0)):
            if window is not None and n % window == 0:
                state = tuple(v.detach() for v in state)
            state = self.filter.step(state, x_n)
            out.append(self.filter.value(state))
        return torch.stack(out), state

    def extra_repr(self) -> str:
        """What is not a submodule."""
        neuron = "" if isinstance(self.source, nn.Module) else f"{self.source}, "
        filter = "" if self.filter is None else f", filter={self.filter}"
        return f"{neuron}delay={self.delay}, lag={self.lag}, gain={self.gain}{filter}"


class Network(nn.Module):
    """Layers, one on top of the other.

    >>> from snnlearn import Layer, Network, lif, readout, recipes
    >>> net = Network(Layer(nn.Linear(4, 8), lif()), Layer(nn.Linear(8, 2), readout()))
    >>> hidden, out = net(torch.ones(10, 3, 4), recipes.bptt())
    >>> out.s.shape
    torch.Size([10, 3, 2])
    """

    def __init__(self, *layers: Layer):
        super().__init__()
        if not layers or not all(isinstance(layer, Layer) for layer in layers):
            came = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
            raise TypeError(f"a Network is made of one or more Layers, got {came}")
        self.layers: Sequence[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, x: Tensor, rule: Axes) -> list[Trace]:
        """The traces of all layers for inputs x (T, B, *features), from rest."""
        return self.run(x, rule)[0]

    def run(self, x: Tensor, rule: Axes, past: Sequence[Past] | None = None) -> tuple[list[Trace], list[Past]]:
        """A sequence, or a piece of one: what to remember goes in and comes out.

        Args:
            x: inputs, (T, B, *features).
            rule: the rule whose gradient is attached.
            past: what an earlier call returned; at rest if not given.

        Raises:
            ValueError, TypeError: x is not a finite floating-point sequence of the weights' dtype and device.
        """
        _checks.sequence("the input x", x)
        first = next(self.parameters(), None)
        if first is not None:
            _checks.same_kind("the input x", x, "the network's weights", first)
        if past is not None and len(past) != len(self.layers):
            raise ValueError(f"past remembers {len(past)} layers, the network has {len(self.layers)}")
        below, traces, left = [x], [], []
        for i, layer in enumerate(self.layers):
            trace, now = layer.run(i, below, rule, None if past is None else past[i])
            below.append(trace.s)
            traces.append(trace)
            left.append(now)
        return traces, left

    def step(self, x: Tensor, rule: Axes, past: Sequence[Past] | None = None) -> tuple[list[State], list[Past]]:
        """One step of inputs x (B, *features): the states of all layers, and what to remember. See `run`."""
        traces, left = self.run(x[None], rule, past)
        return [trace.last for trace in traces], left


def decolle_layer(
    synapse: nn.Module,
    *,
    tau_mem: float = 20e-3,
    tau_syn: float = 5e-3,
    tau_ref: float = 2e-3,
    weight_ref: float = 1.0,
    dt: float = 1e-3,
) -> Layer:
    """DECOLLE's layer (Kaiser, Mostafa & Neftci 2020): all memory before the synapse, and a refractory trace behind it.

        Q[n] = beta * Q[n-1] + (1 - beta) * x[n],  P[n] = alpha * P[n-1] + (1 - alpha) * Q[n-1]
        U[n] = W P[n] + b + R[n],  s[n] = 1 where U[n] > 0

    with alpha = exp(-dt/tau_mem), beta = exp(-dt/tau_syn), R as in `snnlearn.adaptive.refractory`. That P takes the
    previous Q is found in the authors' code; the order of the two leaks does not matter.

    Args:
        synapse: W and b, any affine module.
        tau_mem, tau_syn: time constants of the input's two leaks, seconds.
        tau_ref, weight_ref: of the refractory trace.
        dt: time step, seconds.
    """
    alpha, beta = (float(exp_decay(tau, dt)) for tau in (tau_mem, tau_syn))
    neuron = refractory(tau_ref=tau_ref, weight=weight_ref, dt=dt)
    return Layer(synapse, neuron, delay=1, filter=Cascade.normalised(beta, alpha))
