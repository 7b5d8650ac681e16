"""What is minimised. A loss is called with outputs (T, B, C) and targets, and returns a scalar.

A loss that classifies also has ``scores(outputs) -> (B, C)``, whose largest entry is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from snnlearn import _checks
from snnlearn.filters import Exponentials, Filter, check_filter, filtered

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


@dataclass(frozen=True)
class CurrentCount:
    """The count loss of TSSL-BP's code: as `SpikeCount`, on the sum of the postsynaptic currents that the spikes cause.

    Only the label's output is asked for more, and only the others for less. Half the squared distance, divided by T,
    averaged over the batch.

    Args:
        true, false: as `SpikeCount`.
        tau_s: time constant of the current, in steps (`Exponentials.postsynaptic`).
    """

    true: float
    false: float = 0.0
    tau_s: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.false < self.true:
            raise ValueError(f"want 0 <= false < true, got false={self.false}, true={self.true}")
        Exponentials.postsynaptic(self.tau_s)

    def scores(self, out: Tensor) -> Tensor:
        """Summed currents, (B, C)."""
        if out.dim() != 3:
            raise ValueError(f"outputs must have shape (T, B, classes), got {tuple(out.shape)}")
        return filtered(Exponentials.postsynaptic(self.tau_s), out).sum(0)

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of spikes (T, B, C) for labels y (B,)."""
        count = self.scores(out)
        _checks.labels(y, *count.shape)
        label = functional.one_hot(y.long(), count.shape[1]).bool()
        short = torch.where(label, (count - self.true).clamp(max=0), (count - self.false).clamp(min=0))
        return 0.5 * short.square().sum(1).mean() / len(out)


# Losses that are a sum over time, which rules forward in time can learn from.


def half_square(out: Tensor, target: Tensor) -> Tensor:
    """Half the squared distance, outputs and targets (B, C) to (B,)."""
    if out.shape != target.shape:
        raise ValueError(f"targets must have the outputs' shape {tuple(out.shape)}, got {tuple(target.shape)}")
    return 0.5 * (out - target.to(out.dtype)).square().flatten(1).sum(1)


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    """Softmax cross-entropy, outputs (B, C) and labels (B,) to (B,)."""
    return functional.cross_entropy(out, y.long(), reduction="none")


def smooth_l1(out: Tensor, target: Tensor) -> Tensor:
    """Huber's loss at scale 1, averaged over the outputs (DECOLLE's code), outputs and targets (B, C) to (B,).

    Raises:
        ValueError: the target has another shape; a label becomes one by ``OverTime(smooth_l1, patterns=...)``.
    """
    if out.shape != target.shape:
        raise ValueError(f"targets must have the outputs' shape {tuple(out.shape)}, got {tuple(target.shape)}")
    return functional.smooth_l1_loss(out, target.to(out.dtype), reduction="none").flatten(1).mean(1)


@dataclass(frozen=True, eq=False)
class OverTime:
    """What each step costs, added up over steps and samples.

    A target y is one of: (B,) one label a sample, the same at every step; (T, B, ...) one for each step; labels (B,) of
    ``patterns``.

    Args:
        step: (outputs (B, C), target of the step) -> (B,), such as `cross_entropy` or `half_square`.
        mean: divide by the number of steps and samples.
        scale: factor on the outputs.
        filter: what outputs and targets run through first; see `van_rossum`.
        patterns: (T, classes, C), the target that each class stands for.
    """

    step: Callable[[Tensor, Tensor], Tensor]
    mean: bool = False
    scale: float = 1.0
    filter: Filter | None = None
    patterns: Tensor | None = None

    def __post_init__(self) -> None:
        if not callable(self.step):
            raise TypeError(f"step must be a function (outputs, target) -> (B,), got {self.step!r}")
        _checks.positive("scale", self.scale)
        check_filter(self.filter)
        if self.patterns is not None:
            if not isinstance(self.patterns, Tensor) or self.patterns.dim() != 3:
                came = tuple(getattr(self.patterns, "shape", ())) or type(self.patterns).__name__
                raise ValueError(f"patterns must be a tensor (T, classes, C), got {came}")
            if not self.patterns.is_floating_point() or not _checks.finite(self.patterns):
                raise ValueError("patterns must be floating point and finite")

    def check(self, y: Tensor, T: int, B: int) -> None:
        """Refuse targets that do not go with T steps of B samples.

        Raises:
            TypeError, ValueError: y is no tensor of one of the forms above, or holds NaN or infinity.
        """
        if not isinstance(y, Tensor):
            raise TypeError(f"targets must be a tensor, got {type(y).__name__}")
        if self.patterns is not None:
            _checks.labels(y, B, self.patterns.shape[1])
            if len(self.patterns) != T:
                raise ValueError(f"patterns have {len(self.patterns)} steps, the sequence {T}")
        elif y.shape[:1] != (B,) if y.dim() == 1 else y.shape[:2] != (T, B):
            raise ValueError(
                f"targets must have shape (T, B, ...) = ({T}, {B}, ...), or be labels ({B},), got {tuple(y.shape)}"
            )
        if y.is_floating_point() and not _checks.finite(y):
            raise ValueError("targets hold NaN or infinity; look at the data before the network")

    def target(self, y: Tensor, n: int) -> Tensor:
        """The target of step n, before the filter; `check` has seen y."""
        if self.patterns is not None:
            return self.patterns[n, y.long()]
        return y if y.dim() == 1 else y[n]

    def at(self, out: Tensor, target: Tensor) -> Tensor:
        """The cost of a step, summed over samples; outputs (B, C) and target filtered, where there is a filter.

        Raises:
            ValueError: ``step`` gives no cost for each sample, or labels are out of range.
        """
        if self.step is cross_entropy:
            if out.dim() != 2:
                raise ValueError(f"cross_entropy wants outputs (B, classes), got {tuple(out.shape)}")
            _checks.labels(target, *out.shape)
        cost = self.step(self.scale * out, target)
        if cost.shape != out.shape[:1]:
            raise ValueError(
                f"step must give one cost a sample, ({len(out)},), it gave {tuple(cost.shape)}; with torch's losses "
                "use reduction='none' and a sum over the features"
            )
        return cost.sum()

    def weight(self, T: int, B: int) -> float:
        """The factor on each step's cost."""
        return 1 / (T * B) if self.mean else 1.0

    def scores(self, out: Tensor) -> Tensor:
        """Outputs averaged over time, (B, C); for spikes, their rate."""
        if out.dim() != 3:
            raise ValueError(f"outputs must have shape (T, B, classes), got {tuple(out.shape)}")
        return self.scale * out.mean(0)

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of outputs (T, B, ...)."""
        T, B = out.shape[:2]
        self.check(y, T, B)
        target = torch.stack([self.target(y, n) for n in range(T)])
        if self.filter is not None:
            out, target = filtered(self.filter, out), filtered(self.filter, target.to(out.dtype))
        return self.weight(T, B) * self.at(out.flatten(0, 1), target.flatten(0, 1))


def van_rossum(filter: Filter | None = None, *, mean: bool = False, patterns: Tensor | None = None) -> OverTime:
    """Half the squared distance of filtered spike trains (tutorial Eq. 13, SuperSpike; TSSL-BP Eq. 7).

    Args:
        filter: by default SuperSpike's, `Exponentials.double` with 5 and 10 ms at 1 ms a step. TSSL-BP takes
            `Exponentials.postsynaptic`; its code filters the target twice: give it a target filtered once.
        mean, patterns: as `OverTime`.
    """
    filter = Exponentials.double(tau_rise=5e-3, tau_decay=10e-3) if filter is None else filter
    return OverTime(half_square, mean=mean, filter=filter, patterns=patterns)
