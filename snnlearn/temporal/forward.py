"""What the rules forward in time have in common: one step at a time, and nothing is kept of the steps before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.losses import OverTime
from snnlearn.neurons import Neuron, State, Trace
from snnlearn.surrogate import Surrogate

if TYPE_CHECKING:  # a network lies floors above
    from snnlearn.network import Network
    from snnlearn.rule import Rule


class Step(NamedTuple):
    """What one step brings."""

    carry: Any  # what the next step needs
    loss: Tensor
    gradients: dict[str, Tensor]  # of every trainable parameter, for this step alone
    output: Tensor | None = None  # the network's, (B, C)


class Forward:
    """A method forward in time. A subclass with `start` and `step` is complete, and needs no registration."""

    def start(self, net: Network, x: Tensor, loss: OverTime, rule: Rule) -> Any:
        """What is carried along, before the first input, for inputs like x (B, *features)."""
        raise NotImplementedError

    def step(self, net: Network, carry: Any, x: Tensor, target: Tensor, loss: OverTime, rule: Rule) -> Step:
        """One step: input x (B, *features) and its target, ``loss.target(y, n)``.

        The loss is that of this step without ``loss.weight``. The weights may change between two steps.
        """
        raise NotImplementedError

    def check(self, net: Network, loss: object, rule: Rule) -> None:
        """Refuse what a method that sees one step at a time cannot do.

        Raises:
            TypeError: the loss is not a sum over time.
            ValueError: the network holds modules that look at a whole sequence while training.
        """
        if not isinstance(loss, OverTime):
            raise TypeError(
                f"{type(self).__name__} learns forward in time and needs a loss that is a sum over time, such as "
                f"losses.OverTime(losses.cross_entropy, mean=True); got {getattr(loss, '__name__', loss)}"
            )
        for name, module in net.named_modules():
            stochastic = isinstance(module, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm)
            if stochastic and module.training:
                raise ValueError(
                    f"{name} ({type(module).__name__}) does one thing to a sequence and another to single steps; "
                    "remove it, or use a method backward in time such as Adjoint()"
                )

    def steps(self, net: Network, x: Tensor, y: Tensor, loss: OverTime, rule: Rule) -> Iterator[tuple[Tensor, dict]]:
        """Loss and gradients of each step of x (T, B, *features), weighted so that both sum up to the whole's.

        Raises:
            TypeError, ValueError: see `check`; x or y have other shapes, dtypes or devices, or hold NaN or infinity.
        """
        rule.check(net, loss)
        _checks.sequence("the input x", x)
        first = next(net.parameters(), None)
        if first is not None:
            _checks.same_kind("the input x", x, "the network's weights", first)
        T, B = x.shape[:2]
        loss.check(y, T, B)
        weight = loss.weight(T, B)
        carry = self.start(net, x[0], loss, rule)
        for n in range(T):
            carry, value, gradients = self.step(net, carry, x[n], loss.target(y, n), loss, rule)[:3]
            yield weight * value, {name: weight * g for name, g in gradients.items()}

    def run(
        self,
        neuron: Neuron,
        surrogate: Surrogate,
        a: Tensor,
        recurrent: Callable[[Tensor], Tensor] | None = None,
        lag: int = 1,
        state: State | None = None,
        sent: Sequence[Tensor] | None = None,
    ) -> Trace:
        """The forward pass of a layer alone. No gradient is attached, so none can be taken by mistake."""
        with torch.no_grad():
            return neuron.simulate(a, recurrent, lag, state, sent)


def trainable(net: nn.Module, rule: Rule | None = None) -> dict[str, Tensor]:
    """The parameters whose gradient is wanted, by name; those of the rule's own feedback begin with "spatial."."""
    found = dict(net.named_parameters())
    if rule is not None:
        found |= {f"spatial.{name}": p for name, p in rule.spatial.named_parameters()}
    return {name: p for name, p in found.items() if p.requires_grad}


def with_method(rule: Rule, temporal: Any) -> Rule:
    """The rule with another method through time."""
    return replace(rule, temporal=temporal)
