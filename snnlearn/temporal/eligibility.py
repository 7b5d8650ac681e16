"""Eligibility traces: credit forward in time, one vector for each layer instead of RTRL's influence matrix.

Differentiating Eqs. 7 and 8 and leaving out what goes through the reset and through other neurons (tutorial Sec. IV-A),

    dI_i[n]/dW_ij = p_j[n] = alpha * p_j[n-1] + x_j[n]           (Eq. 16)
    dU_i[n]/dW_ij = q_j[n] = beta * q_j[n-1] + p_j[n]            (Eq. 15, its last term dropped)
    dL[n]/dW_ij   = e_i[n] * sigma'(U_i[n] - theta) * q_j[n]     (Eqs. 14 and 17)

so the trace of the presynaptic spikes is shared by all neurons of a layer, and a bias has the trace of a constant 1.
The error e[n] is that of this step alone. Where the loss looks at a filtered output (SuperSpike's van Rossum distance),
or the error reaches a layer through the memory of the readout above it (e-prop), the product sigma' * q is filtered in
the same way, and then it is a (post, pre) matrix:

    eps * (sigma'(U_i) q_j)[n]                                   (Eq. 17)

DECOLLE's presynaptic trace P is the filtered input of its layer (`snnlearn.network.decolle_layer`), whose neuron has
alpha = beta = 0. An adaptive neuron (`snnlearn.adaptive`) has a second eligibility, that of its threshold, which makes
the product a matrix in any case (Bellec et al. 2020, Eqs. 24-25):

    eps^a_ij[n] = rho * eps^a_ij[n-1] + f_i[n-1] * (q_j[n-1] - strength * eps^a_ij[n-1])
    eligibility   f_i[n] * (q_j[n] - strength * eps^a_ij[n])
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.adaptive import Adaptive, AdaptiveState
from snnlearn.filters import IDENTITY, Cascade, Filter
from snnlearn.losses import OverTime
from snnlearn.neurons import Neuron, State
from snnlearn.resets import Constant
from snnlearn.spatial import DirectFeedback, FeedbackAlignment, LocalErrors, Spatial, connect, zero
from snnlearn.surrogate import firing
from snnlearn.temporal.base import Reset
from snnlearn.temporal.forward import Forward, Step, trainable
from snnlearn.temporal.recursion import affine

if TYPE_CHECKING:
    from snnlearn.network import Layer, Network
    from snnlearn.rule import Rule


class Memory(enum.Enum):
    """How long a presynaptic trace remembers.

    OWN: as the neuron that the synapse reaches, alpha and beta: what the equations say.
    SENDER: as the neurons that the spikes come from, their beta; inputs of the network and a bias have no trace. Found
    in OTTT's code, not in the paper: the same where all layers share one beta, but for the first layer and the readout.
    NONE: not at all (SLTT, Meng et al. 2023).
    """

    OWN = "own"
    SENDER = "sender"
    NONE = "none"

    def decays(self, layers: Sequence[Layer], i: int) -> tuple[Constant, Constant]:
        """Of the traces p and q of the input of layer i."""
        if self is Memory.OWN:
            return layers[i].neuron.alpha, layers[i].neuron.beta
        return 0.0, layers[i - 1].neuron.beta if self is Memory.SENDER and i > 0 else 0.0


class Presynaptic(NamedTuple):
    """Traces of what arrives at a layer, p and q of the module's equations: of its input, of 1, of its own spikes."""

    p: Tensor
    q: Tensor
    p_one: Tensor
    q_one: Tensor
    p_own: Tensor | None
    q_own: Tensor | None


class Carried(NamedTuple):
    """What a layer carries from step to step."""

    state: State | AdaptiveState
    inputs: tuple[Tensor, ...]  # the last `delay` inputs, oldest first
    sent: tuple[Tensor, ...]  # the last `lag` spikes, oldest first
    traces: Presynaptic
    filters: dict[str, tuple[Tensor, ...]] | None  # of the eligibility, by parameter, and of the spikes ("")
    filtered: tuple[Tensor, ...] = ()  # the state of the layer's own filter
    slow: dict[str, Tensor] | None = None  # eps^a of the next step, by parameter


class Carry(NamedTuple):
    """What the network and the loss carry."""

    layers: list[Carried]
    target: tuple[Tensor, ...] | None  # the filtered target


@dataclass(frozen=True)
class Eligibility(Forward):
    """Learning by eligibility traces.

    With a plain loss the error is instantaneous (OTTT); with a `losses.van_rossum` the eligibility is filtered as
    the loss filters the spikes (SuperSpike), and then what goes from layer to layer is the error without the slopes of
    the layers above.

    Args:
        through_readout: filter the eligibility of the hidden layer by the memory of the readout above it, through which
            its spikes reach the loss (e-prop). Exact for one hidden layer without recurrence, the reset not seen. Local
            errors are then those of critics that read through the same memory.
        memory: of the presynaptic traces.
        adaptation: whether the eligibility of an adaptive neuron knows its moving threshold (e-prop), or leaves it out
            (DECOLLE).
    """

    through_readout: bool = False
    memory: Memory = Memory.OWN
    adaptation: bool = True

    reset = Reset.IGNORED

    def __post_init__(self) -> None:
        for name in ("through_readout", "adaptation"):
            _checks.flag(name, getattr(self, name))
        if not isinstance(self.memory, Memory):
            raise TypeError(f"memory must be one of {', '.join(map(str, Memory))}, got {self.memory!r}")

    def check(self, net: Network, loss: object, rule: Rule) -> None:
        """See `Forward.check`.

        Raises:
            ValueError: a synapse is not affine, a constant is learned, or no error reaches a lower layer within a step.
        """
        super().check(net, loss, rule)
        assert isinstance(loss, OverTime)
        filtered = self._has_matrix(net, loss)
        for i, layer in enumerate(net.layers):
            if isinstance(layer.source, nn.Module) and trainable(layer.source):
                raise ValueError(f"layer {i} learns its constants, for which there is no trace here; use RTRL()")
            if not isinstance(layer.neuron, Neuron | Adaptive):
                raise ValueError(
                    f"layer {i} is an {type(layer.neuron).__name__}, which has no presynaptic trace of its own; use "
                    "Unrolled() or AdjointSRM()"
                )
            if any(isinstance(c, Tensor) and c.numel() > 1 for c in (layer.neuron.alpha, layer.neuron.beta)):
                raise ValueError(
                    f"the neurons of layer {i} do not share one alpha and beta, so they cannot share a presynaptic "
                    "trace; use RTRL()"
                )
            if not affine(layer.synapse):
                raise ValueError(
                    f"the synapse of layer {i} is not affine, so it does not pass a trace as it passes spikes: "
                    f"{layer.synapse}; use Linear, Conv, AvgPool or Flatten, or RTRL()"
                )
            if filtered and not (_plain(layer.synapse) and (layer.recurrent is None or _plain(layer.recurrent))):
                raise ValueError(
                    f"a filtered eligibility is a (post, pre) matrix, for which the synapses of layer {i} must be "
                    f"nn.Linear; got {layer.synapse}"
                )
            reaches = rule.spatial.reaches(i, layer.synapse)
            if reaches and layer.delay and loss.filter is None and not self.through_readout:
                raise ValueError(
                    f"layer {i} has delay={layer.delay}, so an error that is told within a step never reaches the "
                    "layer below; use delay=0 above the first layer, a loss with a filter, DirectFeedback, "
                    "LocalErrors, or Adjoint()"
                )
            if reaches and layer.filter is not None:
                raise ValueError(
                    f"layer {i} filters its input, so an error that is told within a step does not pass to the layer "
                    "below as it should; use LocalErrors or DirectFeedback, or Adjoint()"
                )
        if self.through_readout:
            if loss.filter is not None:
                raise ValueError("through_readout has no place beside a loss with a filter; use one of the two")
            top = net.layers[-1].neuron
            if net.layers[-1].filter is not None:
                raise ValueError("through_readout knows the readout's own memory, not a filter before it; leave it out")
            if net.layers[-1].delay:
                raise ValueError(
                    f"through_readout knows a readout without delay, got delay={net.layers[-1].delay}; use delay=0 "
                    "there, or Adjoint()"
                )
            if not top.fire.analog:
                raise ValueError("through_readout needs a readout on top, whose memory it knows; got a spiking layer")
            deep = [i for i, layer in enumerate(net.layers[1:-1], 1) if rule.spatial.reaches(i, layer.synapse)]
            if deep:
                raise ValueError(
                    f"e-prop has one layer below the readout; layer {deep[0]} would pass an error down to another. Use "
                    "DirectFeedback, Eligibility() or Adjoint()"
                )
        self._check_feedback(net, loss, rule.spatial, filtered)

    def _check_feedback(self, net: Network, loss: OverTime, spatial: Spatial, filtered: bool) -> None:
        """Refuse feedback weights and critics for which there are no traces."""
        if isinstance(spatial, FeedbackAlignment) and spatial.learns and filtered:
            raise ValueError(
                "a filtered eligibility has no gradient for feedback weights between layers; use "
                "DirectFeedback.adaptive(net, generator), or feedback that is fixed"
            )
        traced = self.through_readout or (not filtered and len(net.layers) == 2)
        if isinstance(spatial, DirectFeedback) and spatial.learns and not traced:
            raise ValueError(
                "H cannot receive the gradient of the readout's weights here, since the hidden spikes have no trace "
                "with the readout's memory; use Eligibility(through_readout=True), or H that is fixed"
            )
        if isinstance(spatial, LocalErrors):
            if spatial.regularizer is not None and filtered:
                raise ValueError(
                    "a regularizer looks at membranes, of which a filtered eligibility keeps none; use a loss without "
                    "a filter, Eligibility(adaptation=False), or Unrolled()"
                )
            if loss.filter is not None and not all(_plain(r) and not _has_bias(r) for r in spatial.readouts):
                raise ValueError(
                    "a filtered loss is told the readout of filtered spikes, which is the filtered readout only for "
                    "nn.Linear without bias; give local readouts of that kind"
                )

    def _has_matrix(self, net: Network, loss: OverTime) -> bool:
        """Whether the eligibility belongs to a pair of neurons, and not to the sender alone."""
        adaptive = self.adaptation and any(isinstance(layer.neuron, Adaptive) for layer in net.layers)
        return self.through_readout or loss.filter is not None or adaptive

    def start(self, net: Network, x: Tensor, loss: OverTime, rule: Rule) -> Carry:
        """At rest, all traces 0."""
        layers = []
        with torch.no_grad():
            for layer, filter in zip(net.layers, self._filters(net, loss), strict=True):
                a = layer.synapse(x)
                rest, none = torch.zeros_like(a), torch.zeros_like(x)
                one = x.new_zeros(())
                own = None if layer.recurrent is None else rest
                filters = None if filter is None else {"": filter.start(rest)}
                filtered = () if layer.filter is None else layer.filter.start(none)
                traces = Presynaptic(none, none, one, one, own, own)
                start = layer.neuron.start(a)
                layers.append(Carried(start, (none,) * layer.delay, (rest,) * layer.lag, traces, filters, filtered))
                x = rest
        return Carry(layers, None)

    def step(self, net: Network, carry: Carry, x: Tensor, target: Tensor, loss: OverTime, rule: Rule) -> Step:
        """See `Forward.step`."""
        if self._has_matrix(net, loss):
            return self._step_filtered(net, carry, x, target, loss, rule)
        parameters = trainable(net, rule)
        below, states, carried = [x], [], []
        with torch.enable_grad():
            for i, (layer, past) in enumerate(zip(net.layers, carry.layers, strict=True)):
                now, arrived = advance(net.layers, i, past, below[-1].detach(), self.memory)
                # the value is the step's own, the gradient that of the trace, which is 1 towards this step's input
                traced = arrived.q + (zero(below[-1]) if layer.delay == 0 and layer.filter is None else 0.0)
                a = layer.current(i, [*below[:-1], traced], rule)
                if _has_bias(layer.synapse):
                    alone = connect(layer.synapse, rule.spatial.down(i, layer.synapse), torch.zeros_like(arrived.q))
                    a = a + layer.gain * (arrived.q_one - 1) * alone
                if layer.recurrent is not None:
                    a = a + layer.recurrent(arrived.q_own)
                U = now.state.U + zero(a)
                s = firing(layer.neuron, rule.surrogate)(U, layer.neuron.theta)
                below.append(s)
                states.append(State(now.state.I, U, s))
                carried.append(now)
            value = rule.spatial.objective(lambda out, y: loss.at(out, y), states, target)
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, materialize_grads=True)
        output = rule.spatial.answer(states).detach()
        return Step(Carry(carried, None), value.detach(), dict(zip(parameters, found, strict=True)), output)

    def _filters(self, net: Network, loss: OverTime) -> list[Filter | None]:
        """What each layer's eligibility is filtered by; None where it is not."""
        if loss.filter is not None:
            return [loss.filter] * len(net.layers)
        if not self.through_readout:
            return [IDENTITY if self._has_matrix(net, loss) else None] * len(net.layers)
        top = net.layers[-1].neuron
        return [*[Cascade(top.alpha, top.beta)] * (len(net.layers) - 1), IDENTITY]

    def _step_filtered(self, net: Network, carry: Carry, x: Tensor, target: Tensor, loss: OverTime, rule: Rule) -> Step:
        """Eq. 17: the error of each layer, times its filtered eligibility."""
        carried: list[Carried] = []
        below, eligibilities, outputs, slopes = x, [], [], []
        layers = zip(net.layers, carry.layers, self._filters(net, loss), strict=True)
        for i, (layer, past, filter) in enumerate(layers):
            assert filter is not None
            assert past.filters is not None
            now, arrived = advance(net.layers, i, past, below, self.memory)
            below, U, neuron = now.state.s, now.state.U, layer.neuron
            f = torch.ones_like(U) if neuron.fire.analog else rule.surrogate.slope(U - neuron.theta)
            raw, slow = {"": below}, dict[str, Tensor]()
            for name, q in _arrived(layer, arrived).items():
                slope = f[:, :, None] if name.endswith("weight") else f
                q = q[:, None, :] if name.endswith("weight") else q
                if isinstance(neuron, Adaptive) and self.adaptation:
                    eps = now.slow[name] if now.slow else 0.0
                    raw[name] = slope * (q - neuron.strength * eps)
                    slow[name] = neuron.rho * eps + raw[name]
                else:
                    raw[name] = slope * q
            filters = {k: filter.step(past.filters.get(k) or filter.start(v), v) for k, v in raw.items()}
            values = {k: filter.value(v) for k, v in filters.items()}
            outputs.append(values.pop(""))
            slopes.append(f if loss.filter is None else torch.ones_like(f))  # SuperSpike leaves the slopes above out
            eligibilities.append(values)
            carried.append(now._replace(filters=filters, slow=slow))
        filtered_target = carry.target
        if loss.filter is not None:
            filtered_target = loss.filter.step(filtered_target or loss.filter.start(target.to(x.dtype)), target)
            target = loss.filter.value(filtered_target)

        # Each layer's error: its output as a leaf, and how an error at the layer above reaches it, with value 0
        parameters, leaves = trainable(net, rule), [out.detach() for out in outputs]
        own = {name: p for name, p in parameters.items() if name.startswith("spatial.")}
        states: list[State] = []
        with torch.enable_grad():
            for i, (layer, leaf) in enumerate(zip(net.layers, leaves, strict=True)):
                leaf.requires_grad_()
                if i:
                    told = [x, *(state.s for state in states)]
                    synapse = connect(layer.synapse, rule.spatial.down(i, layer.synapse), told[-1])
                    leaf = leaf + zero(slopes[i] * layer.gain * (synapse + rule.spatial.inject(i, told)))
                states.append(State(leaf, leaf, leaf))
            value = rule.spatial.objective(lambda out, y: loss.at(out, y), states, target)
        wanted = [*leaves, *own.values()]
        errors = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
        gradients = {name: torch.zeros_like(p) for name, p in parameters.items()}
        gradients.update(zip(own, errors[len(leaves) :], strict=True))
        names = {id(p): name for name, p in parameters.items()}  # two layers may share a parameter
        for layer, e, eligibility in zip(net.layers, errors, eligibilities, strict=False):
            for part, epsilon in eligibility.items():
                if (key := names.get(id(layer.get_parameter(part)))) is not None:
                    gradients[key] += torch.einsum("bi,bi...->i...", e, epsilon)
        output = rule.spatial.answer([c.state for c in carried])
        return Step(Carry(carried, filtered_target), value.detach(), gradients, output)


def advance(
    layers: Sequence[Layer], i: int, past: Carried, x: Tensor, memory: Memory = Memory.OWN
) -> tuple[Carried, Presynaptic]:
    """A step of layer i and of its traces, without gradient. Input x (B, *features)."""
    with torch.no_grad():
        layer, t = layers[i], past.traces
        neuron: Any = layer.neuron
        alpha, beta = memory.decays(layers, i)
        waiting = (*past.inputs, x)
        arrived, own = waiting[0], past.sent[0]
        filtered = past.filtered
        if layer.filter is not None:
            filtered = layer.filter.step(filtered, arrived)
            arrived = layer.filter.value(filtered)
        a = layer.gain * layer.synapse(arrived)
        p = alpha * t.p + arrived  # Eq. 16
        one, lasting = (1 + alpha * t.p_one, beta) if memory is Memory.OWN else (torch.ones_like(t.p_one), 0.0)
        p_own = q_own = None
        if layer.recurrent is not None:
            a = a + layer.recurrent(own)
            assert t.p_own is not None
            assert t.q_own is not None
            fast, slow = memory.decays([layer, layer], 1)  # the layer is its own sender
            p_own = fast * t.p_own + own
            q_own = slow * t.q_own + p_own
        traces = Presynaptic(p, beta * t.q + p, one, lasting * t.q_one + one, p_own, q_own)  # Eq. 15
        if not _checks.finite(a):
            raise ValueError("a current holds NaN or infinity: the weights have diverged; train slower")
        state = neuron.step(past.state, a)
        now = past._replace(
            state=state, inputs=waiting[1:], sent=(*past.sent[1:], state.s), traces=traces, filtered=filtered
        )
        return now, traces


def _arrived(layer: Layer, traces: Presynaptic) -> dict[str, Tensor]:
    """The trace that belongs to each parameter of a layer with Linear synapses."""
    found = {"synapse.weight": layer.gain * traces.q}
    if _has_bias(layer.synapse):
        found["synapse.bias"] = layer.gain * traces.q_one
    if traces.q_own is not None:
        found["recurrent.weight"] = traces.q_own
    return found


def _plain(module: nn.Module) -> bool:
    """Whether a module is a single nn.Linear."""
    return type(module) is nn.Linear


def _has_bias(module: nn.Module) -> bool:
    """Whether a module adds something to its input."""
    return any(name.endswith("bias") for name, _ in module.named_parameters())
