"""A learning rule is a point in a space of three axes: what replaces the derivative of the step, how credit travels
through time, and how it travels through layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.events import EventNetwork, EventProp
from snnlearn.losses import CrossEntropy, CurrentCount, OverTime, SpikeCount
from snnlearn.network import Network
from snnlearn.online import Online
from snnlearn.spatial import Spatial, Transpose
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Backward, Forward, Method, Unrolled, check_axes
from snnlearn.temporal.forward import trainable

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Rule:
    """A learning rule. Frozen, and passed to what uses it; nothing is set globally.

    Args:
        surrogate: what replaces the derivative of the step.
        temporal: how credit travels through time, backward (`temporal.Backward`) or forward (`temporal.Forward`).
        spatial: how credit travels through layers.

    >>> from snnlearn import FastSigmoid, Rule, Unrolled
    >>> rule = Rule(FastSigmoid(width=0.1), Unrolled())
    """

    surrogate: Surrogate = FastSigmoid()
    temporal: Backward | Forward = Unrolled()
    spatial: Spatial = field(default_factory=Transpose)

    def __post_init__(self) -> None:
        check_axes(self.surrogate, self.temporal)
        if not isinstance(self.spatial, Spatial):
            raise TypeError(f"spatial must be a spatial rule such as Transpose(), got {self.spatial!r}")

    def check(self, net: Network | EventNetwork, loss: Loss) -> None:
        """Refuse, with the reason, what makes no sense together. Called before each gradient; cheap.

        Raises:
            TypeError: net is not a Network, its parameters differ in dtype, or loss cannot be called.
            ValueError: its parameters differ in device, or the loss counts spikes of a readout that has none.
        """
        events = isinstance(self.temporal, EventProp)
        if events and not isinstance(net, EventNetwork):
            raise TypeError(f"EventProp needs an EventNetwork of EventLIF layers, got {type(net).__name__}")
        if not events and isinstance(net, EventNetwork):
            raise TypeError(
                "an EventNetwork has spike times and no steps, so it learns by recipes.eventprop(); "
                f"got {self.temporal}"
            )
        if not events and not isinstance(net, Network):
            raise TypeError(f"a rule works on a Network, got {type(net).__name__}; wrap modules as Layer(...)")
        if not callable(loss):
            raise TypeError(f"loss must be a function (outputs, targets) -> scalar, got {type(loss).__name__}")
        parameters = list(net.named_parameters())
        for name, p in parameters[1:]:
            _checks.same_kind(f"the parameter {name}", p, f"the parameter {parameters[0][0]}", parameters[0][1])
        name = type(loss).__name__
        if isinstance(net, EventNetwork) and isinstance(loss, SpikeCount | CurrentCount | CrossEntropy | OverTime):
            raise TypeError(f"{name} looks at steps; an EventNetwork has spike times: use FirstSpikeCrossEntropy")
        counts = isinstance(loss, SpikeCount | CurrentCount)
        if counts and isinstance(net, Network) and net.layers[-1].neuron.fire.analog:
            raise ValueError(f"{name} counts spikes, but the last layer is a readout; use CrossEntropy(over=...)")
        if isinstance(net, EventNetwork) and (not self.spatial.events or self.spatial.learns):
            raise ValueError(
                f"{type(self.spatial).__name__} sends errors of outputs at steps, and spike times have none; with an "
                "EventNetwork use Transpose() or FeedbackAlignment.random(net, generator)"
            )
        self.spatial.check(net, loss, self)
        if isinstance(self.temporal, Forward | Method) and isinstance(net, Network):
            self.temporal.check(net, loss, self)

    def parameters(self, net: Network | EventNetwork) -> list[Tensor]:
        """What an optimiser is to be given: the network's trainable parameters, and the rule's own where it has some.

        Only feedback that learns has some: `FeedbackAlignment.kolen_pollack`, `DirectFeedback.adaptive`, local readouts
        that are trained.
        """
        return list(trainable(net, self).values())

    def objective(self, net: Network | EventNetwork, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """The scalar whose gradient this rule takes, with its graph: call ``.backward()`` on it.

        Args:
            net: the network.
            x: inputs, (T, B, *features).
            y: targets, as the loss wants them.
            loss: (outputs (T, B, ...), y) -> scalar.

        Raises:
            TypeError: the method works forward in time and leaves no graph.
        """
        self.check(net, loss)
        if isinstance(self.temporal, Forward):
            raise TypeError(
                f"{type(self.temporal).__name__} works forward in time and leaves no graph to call backward() on; use "
                "rule.gradients(...) or rule.backward(...)"
            )
        outputs = net(x, self)
        if isinstance(net, EventNetwork):
            return loss(outputs[-1], y)
        return self.spatial.objective(loss, outputs, y)

    def gradients(
        self, net: Network | EventNetwork, x: Tensor, y: Tensor, loss: Loss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the gradient of every trainable parameter by name; nothing is written anywhere.

        Names are those of the network's parameters; of feedback weights that learn, "spatial." and their name.
        """
        parameters = trainable(net, self)
        if not parameters:
            raise ValueError("the network has no parameter that requires a gradient; thaw one with requires_grad_()")
        if isinstance(self.temporal, Forward):
            total, sums = x.new_zeros(()), {name: torch.zeros_like(p) for name, p in parameters.items()}
            for value, gradients in self.temporal.steps(net, x, y, loss, self):  # type: ignore[arg-type]
                total = total + value
                for name, gradient in gradients.items():
                    sums[name] += gradient
            return total, sums
        value = self.objective(net, x, y, loss)
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, materialize_grads=True)
        return value.detach(), dict(zip(parameters, found, strict=True))

    def backward(self, net: Network | EventNetwork, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """Add each parameter's gradient to its ``.grad``, as torch does, and return the loss, detached."""
        if isinstance(self.temporal, Forward):
            value, gradients = self.gradients(net, x, y, loss)
            for name, p in trainable(net, self).items():
                p.grad = gradients[name] if p.grad is None else p.grad + gradients[name]
            return value
        value = self.objective(net, x, y, loss)
        value.backward()  # not autograd.grad: the hooks of DistributedDataParallel hang on this
        return value.detach()

    def online(self, net: Network, optimizer: torch.optim.Optimizer, loss: OverTime, *, every: int = 1) -> Online:
        """A learner for a stream: ``step(x, target)`` learns from one step, and updates after ``every`` of them.

        Args:
            net, loss: as `gradients`.
            optimizer: over ``rule.parameters(net)``.
            every: steps an update.
        """
        return Online(self, net, optimizer, loss, every)
