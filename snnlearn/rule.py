"""A learning rule is a point in a space of three axes: what replaces the derivative of the step, how credit travels
through time, and how it travels through layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.losses import SpikeCount
from snnlearn.network import Network
from snnlearn.spatial import Transpose
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Backward, Unrolled, check_axes

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Rule:
    """A learning rule. Frozen, and passed to what uses it; nothing is set globally.

    Args:
        surrogate: what replaces the derivative of the step.
        temporal: how credit travels through time.
        spatial: how credit travels through layers.

    >>> from snnlearn import FastSigmoid, Rule, Unrolled
    >>> rule = Rule(FastSigmoid(width=0.1), Unrolled())
    """

    surrogate: Surrogate = FastSigmoid()
    temporal: Backward = Unrolled()
    spatial: Transpose = field(default_factory=Transpose)

    def __post_init__(self) -> None:
        check_axes(self.surrogate, self.temporal)
        if not isinstance(self.spatial, Transpose):
            raise TypeError(f"spatial must be a spatial rule such as Transpose(), got {self.spatial!r}")

    def check(self, net: Network, loss: Loss) -> None:
        """Refuse, with the reason, what makes no sense together. Called before each gradient; cheap.

        Raises:
            TypeError: net is not a Network, its parameters differ in dtype, or loss cannot be called.
            ValueError: its parameters differ in device, or the loss counts spikes of a readout that has none.
        """
        if not isinstance(net, Network):
            raise TypeError(f"a rule works on a Network, got {type(net).__name__}; wrap modules as Layer(...)")
        if not callable(loss):
            raise TypeError(f"loss must be a function (outputs, targets) -> scalar, got {type(loss).__name__}")
        parameters = list(net.named_parameters())
        for name, p in parameters[1:]:
            _checks.same_kind(f"the parameter {name}", p, f"the parameter {parameters[0][0]}", parameters[0][1])
        if isinstance(loss, SpikeCount) and net.layers[-1].neuron.fire.analog:
            raise ValueError("SpikeCount counts spikes, but the last layer is a readout; use CrossEntropy(over=...)")

    def objective(self, net: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """The scalar whose gradient this rule takes, with its graph: call ``.backward()`` on it.

        Args:
            net: the network.
            x: inputs, (T, B, *features).
            y: targets, as the loss wants them.
            loss: (outputs (T, B, ...), y) -> scalar.
        """
        self.check(net, loss)
        return self.spatial.objective(loss, net(x, self), y)

    def gradients(self, net: Network, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the gradient of every trainable parameter by name; nothing is written anywhere."""
        parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        value = self.objective(net, x, y, loss)
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, materialize_grads=True)
        return value.detach(), dict(zip(parameters, found, strict=True))

    def backward(self, net: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """Add each parameter's gradient to its ``.grad``, as torch does, and return the loss, detached."""
        value = self.objective(net, x, y, loss)
        value.backward()  # not autograd.grad: the hooks of DistributedDataParallel hang on this
        return value.detach()
