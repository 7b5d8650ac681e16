"""Learning while the stream runs: one pass, memory that does not grow, weights that change as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.losses import OverTime
from snnlearn.temporal.forward import Forward, trainable

if TYPE_CHECKING:  # rules and networks lie floors above
    from snnlearn.network import Network
    from snnlearn.rule import Rule


class Moment(NamedTuple):
    """What one step of a stream brings."""

    loss: float  # of this step, averaged over the samples if the loss is a mean
    output: Tensor  # (B, C)


class Stream(NamedTuple):
    """All that a learner remembers: it grows neither with time nor with the number of updates."""

    carry: Any  # states and traces
    gradients: dict[str, Tensor]  # of the steps since the last update
    waiting: int  # how many those are
    shape: torch.Size  # of a step's input


class Online:
    """A network that learns from a stream, step by step (`Rule.online`).

        learner = rule.online(net, optimizer, loss)
        for x_n, target_n in stream:
            loss_n, out_n = learner.step(x_n, target_n)

    The gradient of a step is that of its own loss through the traces; the weights that the traces were made with may
    have been others, which is what learning online means. Updated only at the end of a sequence (``every`` = its
    length), the change is that of the whole sequence.

    Args:
        rule: one that works forward in time.
        net: the network; its weights are changed.
        optimizer: over `Rule.parameters`, or some of the network's parameters.
        loss: `OverTime`; with ``mean`` the cost of an update is a mean over its steps and samples.
        every: steps an update.

    Attributes:
        state: a `Stream`, or None before the first step. It may be read, kept, and put back.

    Raises:
        TypeError: the rule works backward in time, or the loss is no sum over time.
        ValueError: what the rule cannot train (`Rule.check`); the optimiser lacks feedback weights that learn, or has
            nothing of this network; the loss has patterns.
    """

    def __init__(self, rule: Rule, net: Network, optimizer: torch.optim.Optimizer, loss: OverTime, every: int = 1):
        if not isinstance(rule.temporal, Forward):
            raise TypeError(
                f"{type(rule.temporal).__name__} works backward in time and needs the whole sequence; learn online by "
                "Eligibility() or RTRL(), or train on pieces by rule.backward(...)"
            )
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be one of torch.optim, got {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError(
                "LBFGS evaluates the loss again and again, which a stream cannot; use Adam, SGD or the like"
            )
        _checks.whole("every", every, least=1)
        rule.check(net, loss)
        if loss.patterns is not None:
            raise ValueError("patterns are targets of a whole sequence; give step() the target of the step itself")
        given = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in given for p in trainable(net, rule).values()):
            raise ValueError("the optimizer has none of the network's trainable parameters; use rule.parameters(net)")
        for name, p in trainable(net, rule).items():
            if name.startswith("spatial.") and id(p) not in given:
                raise ValueError(f"{name} learns and is not given to the optimiser: make it over rule.parameters(net)")
        self.rule, self.net, self.optimizer, self.loss, self.every = rule, net, optimizer, loss, every
        self.method: Forward = rule.temporal
        self.state: Stream | None = None

    def reset(self) -> None:
        """Forget states, traces and gradients, for a stream that has nothing to do with the one before."""
        self.state = None

    def step(self, x: Tensor, target: Tensor) -> Moment:
        """One step: learn from it, and update the weights if it is time to.

        Args:
            x: the step's input, (B, *features).
            target: what the loss wants of a step: labels (B,), or values like the output (B, C).

        Raises:
            TypeError, ValueError: x has another shape than in the steps before, another dtype or device than the
                network, or holds NaN or infinity; the target is not for these samples. The step is then not taken.
        """
        _checks.sequence("the input x", x[None] if isinstance(x, Tensor) else x)
        first = next(self.net.parameters())
        _checks.same_kind("the input x", x, "the network's weights", first)
        if not isinstance(target, Tensor):
            raise TypeError(f"the target must be a tensor, got {type(target).__name__}")
        if target.dim() == 0:
            raise ValueError("the target must have an entry for each sample, (B,) or (B, C); got a single number")
        if target.shape[:1] != x.shape[:1]:
            raise ValueError(f"the target is for {len(target)} samples, the input has {len(x)}")
        if target.is_floating_point() and not _checks.finite(target):
            raise ValueError("the target holds NaN or infinity; look at the data before the network")
        state = self.state
        if state is None:
            state = Stream(self.method.start(self.net, x, self.loss, self.rule), {}, 0, x.shape)
        if x.shape != state.shape:
            raise ValueError(
                f"the input has shape {tuple(x.shape)}, that of the steps before {tuple(state.shape)}; call reset() "
                "before another stream"
            )
        x = x.detach().clone()  # a delay keeps it, and a view would keep all that it is a view of
        carry, value, gradients, output = self.method.step(self.net, state.carry, x, target, self.loss, self.rule)
        weight = self.loss.weight(self.every, len(x))
        found = {
            name: weight * g if name not in state.gradients else state.gradients[name].add(g, alpha=weight)
            for name, g in gradients.items()
        }
        self.state = Stream(carry, found, state.waiting + 1, x.shape)
        if self.state.waiting >= self.every:
            self.update()
        assert output is not None
        return Moment(self.loss.weight(1, len(x)) * value.item(), output)

    def update(self) -> None:
        """Let the optimiser take a step along what has come together, and begin anew; nothing if nothing has."""
        if self.state is None or self.state.waiting == 0:
            return
        parameters = trainable(self.net, self.rule)
        for name, p in parameters.items():
            if name in self.state.gradients:  # it may have been thawed since
                p.grad = self.state.gradients[name].clone()
        self.optimizer.step()
        for p in parameters.values():
            p.grad = None
        self.state = self.state._replace(gradients={}, waiting=0)
