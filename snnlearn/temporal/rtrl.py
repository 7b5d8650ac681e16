"""Real-time recurrent learning: the exact gradient, forward in time (tutorial Eq. 12).

P[n] = dh[n]/dw is the influence of every parameter w on every state h. With the Jacobians of one step

    P[n] = J[n] P[n-1] + J_w[n],   J = dh[n]/dh[n-1],   J_w = dh[n]/dw at fixed h[n-1]

which torch.func takes of the network's own step, so any network will do: recurrent, convolutional, learned constants,
every reset and surrogate. Where a spatial rule reroutes the error, J and J_w are the rerouted ones, and the result is
that of the backward method with the same spatial rule. P has (states x parameters) entries a sample, which is why the
network should be small. The tutorial's Eq. 12 has indices that its text does not define; they are those of P here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from snnlearn import _checks
from snnlearn.adaptive import Adaptive
from snnlearn.losses import OverTime, cross_entropy
from snnlearn.neurons import Neuron
from snnlearn.spatial import LocalErrors
from snnlearn.temporal.base import Reset, call, check_reset
from snnlearn.temporal.forward import Forward, Step, trainable, with_method
from snnlearn.temporal.unrolled import Unrolled

if TYPE_CHECKING:
    from snnlearn.network import Network
    from snnlearn.rule import Rule


class Form(NamedTuple):
    """How the states of one sample lie in a row of h."""

    shapes: list[torch.Size]
    tree: TreeSpec
    out: torch.Size  # of the network's output

    @property
    def widths(self) -> list[int]:
        """Numbers of each."""
        return [shape.numel() for shape in self.shapes]


class Influence(NamedTuple):
    """What is carried from step to step."""

    h: Tensor  # all states of network and loss, (B, states)
    P: Tensor  # dh/dw, (B, states, parameters)
    form: Form


class _Step(nn.Module):
    """A network's step in the place of its forward, for functional_call."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, *arguments: Any) -> Any:
        return self.net.step(*arguments)


@dataclass(frozen=True)
class RTRL(Forward):
    """Real-time recurrent learning, equal to BPTT, and with another spatial rule to `Unrolled` with that rule.

    Args:
        reset: what the gradient sees of the reset.
        largest: the most entries that P may have, over the batch; a larger network is refused before memory runs out.
    """

    reset: Reset = Reset.KEPT
    largest: int = 400_000_000

    def __post_init__(self) -> None:
        check_reset(self.reset)
        _checks.whole("largest", self.largest, least=1)

    def check(self, net: Network, loss: object, rule: Rule) -> None:
        """See `Forward.check`.

        Raises:
            ValueError: a neuron's past is more than a state, feedback weights learn, or local errors meet a filtered
                loss.
        """
        super().check(net, loss, rule)
        assert isinstance(loss, OverTime)
        for i, layer in enumerate(net.layers):
            if not isinstance(layer.neuron, Neuron | Adaptive):
                raise ValueError(
                    f"layer {i} is an {type(layer.neuron).__name__}, whose past is more than a state; use Unrolled()"
                )
        if rule.spatial.learns:
            raise ValueError(
                "RTRL has no influence matrix for feedback weights that learn; use Unrolled(), or feedback that is "
                "fixed"
            )
        if isinstance(rule.spatial, LocalErrors) and rule.spatial.regularizer is not None:
            raise ValueError(
                "RTRL takes one sample at a time, and a regularizer looks at the batch; use Unrolled() or Eligibility()"
            )
        if loss.filter is not None and isinstance(rule.spatial, LocalErrors):
            raise ValueError(
                "RTRL carries the filter of one output, and local errors have one for each layer; use Unrolled() or "
                "Eligibility(), or a loss without a filter"
            )

    def start(self, net: Network, x: Tensor, loss: OverTime, rule: Rule) -> Influence:
        """At rest, with P = 0.

        Raises:
            ValueError: P would have more than ``largest`` entries.
        """
        size = sum(p.numel() for p in trainable(net).values())
        with torch.no_grad():
            past = net.step(x[:1], with_method(rule, Unrolled()))[1]
        leaves, tree = tree_flatten(past)
        form = Form([leaf.shape for leaf in leaves], tree, past[-1].state.s.shape)
        memory = 0  # the loss's own, of outputs and of targets, is state like any other
        if loss.filter is not None:
            memory = 2 * sum(y.numel() for y in loss.filter.start(past[-1].state.s))
        h = x.new_zeros(len(x), sum(form.widths) + memory)
        entries = h.numel() * size
        if entries > self.largest:
            raise ValueError(
                f"RTRL would carry {entries:,} numbers ({len(h)} samples x {h.shape[1]} states x {size} parameters), "
                f"more than largest = {self.largest:,}; use a smaller network or batch, or Adjoint(), which gives the "
                "same gradient"
            )
        return Influence(h, x.new_zeros(*h.shape, size), form)

    def step(self, net: Network, carry: Influence, x: Tensor, target: Tensor, loss: OverTime, rule: Rule) -> Step:
        """See `Forward.step`."""
        parameters = trainable(net)
        shapes = [p.shape for p in parameters.values()]
        sizes = [p.numel() for p in parameters.values()]
        theta = torch.cat([p.detach().flatten() for p in parameters.values()])
        h, P, form = carry
        _check_target(target, (len(x), *form.out[1:]), loss)
        own = sum(form.widths)  # of the network; behind them lies the memory of the loss
        module, inner = _Step(net), with_method(rule, Unrolled(self.reset))

        def advance(theta: Tensor, h: Tensor, x_n: Tensor, target_n: Tensor) -> tuple[Tensor, Any]:
            """One sample: the states after the step, and behind them the step's loss."""
            w = [v.view(s) for v, s in zip(theta.split(sizes), shapes, strict=True)]
            parts = zip(h[:own].split(form.widths), form.shapes, strict=True)
            before = tree_unflatten([v.view(shape) for v, shape in parts], form.tree)
            states, past = call(module, list(parameters.values()), w, x_n[None], inner, before)
            after = [v.flatten() for v in tree_flatten(past)[0]]

            def at(out: Tensor, y: Tensor) -> Tensor:
                if loss.filter is not None:
                    memory = h[own:].view(2, -1, *out.shape).unbind(0)
                    filters = [loss.filter.step(tuple(v), u) for v, u in zip(memory, (out, y), strict=True)]
                    after.extend(v.flatten() for state in filters for v in state)
                    out, y = (loss.filter.value(state) for state in filters)
                return loss.at(out, y)

            value = rule.spatial.objective(at, states, target_n[None])
            after.append(value[None])
            z = torch.cat(after)
            return z, (z, rule.spatial.answer(states)[0])

        jacobian = vmap(jacrev(advance, argnums=(0, 1), has_aux=True), in_dims=(None, 0, 0, 0))
        (J_w, J), (z, output) = jacobian(theta, h, x, target)
        P = J @ P + J_w  # Eq. 12
        found = P[:, -1].sum(0)
        gradients = {name: g.view(s).clone() for name, g, s in zip(parameters, found.split(sizes), shapes, strict=True)}
        carry = Influence(z[:, :-1].clone(), P[:, :-1].clone(), form)
        return Step(carry, z[:, -1].sum(), gradients, output)


def _check_target(target: Tensor, shape: tuple[int, ...], loss: OverTime) -> None:
    """What cannot be looked at, sample by sample, inside vmap."""
    if loss.step is cross_entropy:
        _checks.labels(target, shape[0], shape[1])
    elif loss.filter is not None and target.shape != shape:
        raise ValueError(f"targets of a step must have the outputs' shape {shape}, got {tuple(target.shape)}")
