"""What is minimised. A loss is called with outputs (T, B, C) and targets, and returns a scalar.

A loss that classifies also has ``scores(outputs) -> (B, C)``, whose largest entry is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from snnlearn import _checks

# From a sequence to one number a class.


def max_over_time(out: Tensor) -> Tensor:
    """The largest value of each output (the tutorial authors' notebooks); of equal ones the first takes the credit."""
    return out.max(0).values


def sum_over_time(out: Tensor) -> Tensor:
    """The sum over all steps; for spikes, their number."""
    return out.sum(0)


def mean_over_time(out: Tensor) -> Tensor:
    """The mean over all steps."""
    return out.mean(0)


def last_step(out: Tensor) -> Tensor:
    """The output at the last step."""
    return out[-1]


def accuracy(scores: Tensor, y: Tensor) -> float:
    """The share of samples whose largest score is the label's; scores (B, C), y (B,)."""
    return (scores.argmax(1) == y).double().mean().item()


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy of one score a class, averaged over the batch.

    Args:
        over: `max_over_time`, `sum_over_time`, `mean_over_time`, `last_step` or a function (T, B, C) -> (B, C).
        scale: factor on the scores; larger makes the softmax more certain.

    Raises (when called):
        ValueError, TypeError: outputs are not (T, B, C) or labels not integers in 0..C-1 of shape (B,).
    """

    over: Callable[[Tensor], Tensor] = max_over_time
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.over):
            raise TypeError(f"over must be a function (T, B, C) -> (B, C) such as last_step, got {self.over!r}")
        _checks.positive("scale", self.scale)

    def scores(self, out: Tensor) -> Tensor:
        """Logits, (B, C)."""
        if out.dim() != 3:
            raise ValueError(f"outputs must have shape (T, B, classes), got {tuple(out.shape)}")
        scores = self.over(out)
        if scores.shape != out.shape[1:]:
            raise ValueError(f"over must give scores {tuple(out.shape[1:])} (B, C), it gave {tuple(scores.shape)}")
        return self.scale * scores

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of outputs (T, B, C) for labels y (B,)."""
        scores = self.scores(out)
        _checks.labels(y, *scores.shape)
        return functional.cross_entropy(scores, y.long())


@dataclass(frozen=True)
class SpikeCount:
    """Half the squared distance of each output's spike count to a target, averaged over the batch.

    Args:
        true: spikes wanted of the label's output.
        false: spikes wanted of every other output.

    Raises (when called):
        ValueError, TypeError: as `CrossEntropy`.
    """

    true: float
    false: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.false < self.true:
            raise ValueError(f"want 0 <= false < true spikes, got false={self.false}, true={self.true}")

    def scores(self, out: Tensor) -> Tensor:
        """Spike counts, (B, C)."""
        if out.dim() != 3:
            raise ValueError(f"outputs must have shape (T, B, classes), got {tuple(out.shape)}")
        return sum_over_time(out)

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of spikes (T, B, C) for labels y (B,)."""
        count = self.scores(out)
        _checks.labels(y, *count.shape)
        wanted = self.false + (self.true - self.false) * functional.one_hot(y.long(), count.shape[1]).to(count.dtype)
        return 0.5 * (count - wanted).square().sum(1).mean()
