"""First spikes: a layer whose spike times have a closed form, losses on spike times, and the remedy for silence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnlearn import _checks, encoding
from snnlearn.events import EventLIF, EventNetwork, Events, check_number, check_synapse


class FirstSpike(nn.Module):
    """IF neurons without a leak behind an exponential synapse, up to the first spike (tutorial Eq. 18; Mostafa 2018).

    tau_syn * dU/dt = sum_i w_i * exp(-(t - t_i) / tau_syn) over the inputs that have spiked. With z = exp(t / tau_syn),
    U(t) = sum_i w_i * (1 - z_i / z) reaches theta at

        z = sum_C w_i z_i / (sum_C w_i - theta)        C: the inputs that have spiked until then

    whose derivative torch takes. C is the first set, in order of arrival, whose z comes before the next input.

    A neuron that never reaches theta has time inf, and exactly zero gradient: ``t.isinf()`` shows them and
    ``t.isinf().sum(0)`` counts, for each neuron, the samples in which it is silent. `silence_cost` wakes them.

    Args:
        synapse: nn.Linear without bias.
        tau_syn: time constant of the current, seconds.
        theta: threshold; a neuron fires for sure once the weights of what has arrived stay above it.
    """

    def __init__(self, synapse: nn.Linear, *, tau_syn: float = 5e-3, theta: float = 1.0):
        super().__init__()
        check_synapse(synapse)
        check_number("tau_syn", tau_syn, "seconds")
        check_number("theta", theta)
        self.synapse, self.tau_syn, self.theta = synapse, tau_syn, theta

    def forward(self, t: Tensor) -> Tensor:
        """First spike times (B, post) for input spike times t (B, pre), seconds, inf for silence.

        Raises:
            ValueError, TypeError: t has another shape or dtype, holds NaN or -inf, or its times lie so many time
                constants apart that z overflows.
        """
        W = self.synapse.weight
        if not isinstance(t, Tensor) or t.dim() != 2 or t.shape[1] != W.shape[1]:
            came = tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__
            raise ValueError(f"input spike times must have shape (B, {W.shape[1]}), got {came}")
        _checks.same_kind("the input's spike times", t, "the weights", W)
        if not _checks.holds(t > -math.inf):  # false for NaN, too
            raise ValueError("spike times hold NaN or -inf; a silent input is +inf")
        t, order = t.sort(dim=1, stable=True)
        silent = t.isinf()
        # only differences of times matter: counted from the first spike, z stays small
        start = torch.where(silent[:, :1], 0.0, t[:, :1]).detach()
        x = torch.where(silent, start, t).sub(start) / self.tau_syn
        if not _checks.holds(x < 0.9 * math.log(torch.finfo(t.dtype).max)):
            raise ValueError(
                f"the input's spikes lie up to {float(x.max()):.0f} time constants apart, too many for exp(t / tau_syn)"
                f" in {t.dtype}; use a larger tau_syn{'' if t.dtype == torch.float64 else ' or double()'}"
            )
        z = x.exp()
        w = torch.where(silent[:, None], 0.0, W.T[order].transpose(1, 2))  # (B, post, pre), in order of arrival
        over = w.cumsum(2) - self.theta
        following = torch.cat([torch.where(silent, math.inf, z)[:, 1:], z.new_full((len(z), 1), math.inf)], 1)
        sums = (w * z[:, None]).cumsum(2)
        with torch.no_grad():
            # Not "and z after the last arrival": the first that comes before the next input has crossed since then
            causal = (over > 0) & (sums <= over * following[:, None])
            C, fires = causal.to(torch.uint8).argmax(2, keepdim=True), causal.any(2)
        sums, over = (torch.where(fires, part.gather(2, C).squeeze(2), 1.0) for part in (sums, over))
        return torch.where(fires, start + self.tau_syn * (sums / over).log(), math.inf)  # Eq. 18 solved for t

    def extra_repr(self) -> str:
        """What is not a submodule."""
        return f"tau_syn={self.tau_syn}, theta={self.theta}"


def silence_cost(synapse: nn.Linear, below: Tensor, out: Tensor, level: float = 1.0) -> Tensor:
    """A hinge that raises the weights of silent neurons, which no loss on spike times can (Mostafa 2018).

    Mean over the batch of sum_j max(0, level - sum_i w_ji), over silent neurons j and inputs i that have spiked.
    Mostafa takes all neurons and all inputs; but a neuron that fires needs no help, and a silent input is none.

    Args:
        synapse: of the layer.
        below: (B, pre), the first spike time of each input, inf for silence.
        out: (B, post), the same of the layer.
        level: the summed weight wanted. A `FirstSpike` neuron fires once it stays above theta; an `EventLIF` needs
            more, since it leaks.

    >>> import torch
    >>> layer = FirstSpike(nn.Linear(2, 3, bias=False))
    >>> nn.init.constant_(layer.synapse.weight, 0.25).shape
    torch.Size([3, 2])
    >>> t = torch.tensor([[0.001, 0.002]])
    >>> silence_cost(layer.synapse, t, layer(t)).item()  # three silent neurons, 1 - 0.5 each
    1.5
    """
    _checks.positive("level", level)
    W = synapse.weight
    for name, t, size in (("below", below, W.shape[1]), ("out", out, W.shape[0])):
        if t.dim() != 2 or t.shape[1] != size or len(t) != len(below):
            raise ValueError(f"{name} must have shape ({len(below)}, {size}), got {tuple(t.shape)}")
    arrived = below.isfinite().to(W.dtype) @ W.T
    return ((level - arrived).clamp(min=0) * out.isinf()).sum(1).mean()


def _as_events(events: object) -> Events:
    if not isinstance(events, Events):
        raise TypeError(
            f"a loss on spike times takes Events, got {type(events).__name__}; Events.from_times makes them of a table"
        )
    return events


@dataclass(frozen=True)
class FirstSpikeCrossEntropy:
    """Softmax cross-entropy on first spike times, averaged over the batch: the label's output shall fire first.

    A silent output counts as one that fires at the horizon. It gets no gradient: if the label's output is silent, the
    loss only makes the others later, until none fires. So ``late`` adds a cost that holds spikes back from that end,
    late * mean over outputs of exp(t / tau_late) - 1; the same form as that of Wunderlich & Pehle 2021, who have it on
    the label's output alone.

    Args:
        horizon: until when the network runs, seconds.
        tau: the scale of the softmax over -t / tau, seconds; smaller makes it more certain.
        late: weight of the cost of late spikes; 0 for none.
        tau_late: its scale, seconds.

    Raises (when called):
        ValueError, TypeError: outputs are not Events, or labels not integers in 0..C-1 of shape (B,).
    """

    horizon: float
    tau: float
    late: float = 0.0
    tau_late: float = 10e-3

    def __post_init__(self) -> None:
        check_number("the horizon", self.horizon, "seconds")
        check_number("tau", self.tau, "seconds")
        check_number("tau_late", self.tau_late, "seconds")
        if not 0 <= self.late < math.inf:
            raise ValueError(f"late, the weight of a cost, must be 0 or more and finite, got {self.late}")

    def scores(self, events: Events) -> Tensor:
        """Logits -t / tau, (B, C)."""
        first = _as_events(events).first()
        return -torch.where(first.isinf(), self.horizon, first) / self.tau

    def __call__(self, events: Events, y: Tensor) -> Tensor:
        """The loss of a layer's spikes for labels y (B,)."""
        scores = self.scores(events)
        _checks.labels(y, *scores.shape)
        loss = functional.cross_entropy(scores, y.long())
        return loss + self.late * torch.expm1(-scores * (self.tau / self.tau_late)).mean() if self.late else loss


@dataclass(frozen=True)
class SpikeTimes:
    """Half the squared distance of each output spike to its target, 1/2 sum (t - target)**2, averaged over the batch.

    A neuron's first spike goes with its first target, the second with the second. A target without a spike and a spike
    without a target cost nothing, so the loss jumps where a spike is born.
    """

    def scores(self, events: Events) -> Tensor:
        """The earlier the first spike the higher the score: -t, (B, C), -inf for silence."""
        return -_as_events(events).first()

    def __call__(self, events: Events, y: Tensor) -> Tensor:
        """The loss of a layer's spikes for targets y.

        Args:
            events: of the last layer.
            y: (C, R) or (B, C, R), seconds, the same for all samples or one each; inf for no target.

        Raises:
            ValueError, TypeError: events or targets are not of this form.
        """
        times, neurons, size = _as_events(events)
        B = len(times)
        if not isinstance(y, Tensor) or y.shape[:-1] not in ((size,), (B, size)):
            came = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"target times must have shape ({size}, R) or ({B}, {size}, R), got {came}")
        _checks.same_kind("the target times", y, "the spike times", times)
        if not _checks.holds(y > -math.inf):
            raise ValueError("target times hold NaN or -inf; where there is no target, give inf")
        none = y.new_full((B, size, 1), math.inf)
        targets = torch.cat([y.expand(B, size, -1), none], 2)
        which = events.ordinals().clamp(max=y.shape[-1])
        wanted = targets[torch.arange(B, device=y.device)[:, None], neurons, which]
        told = times.isfinite() & wanted.isfinite()
        distance = torch.where(told, times, 0.0) - torch.where(told, wanted, 0.0)
        return 0.5 * distance.square().sum(1).mean()


# Handwritten digits, one spike a pixel. Settings chosen on the validation split: Adam, rate 1e-2, batches of 64,
# 15 epochs.

LAST, HORIZON = 20e-3, 60e-3  # seconds: of the input's spikes, and of the run


def on_off_times(x: Tensor, last: float = LAST) -> Tensor:
    """One spike of each pixel and of its negative, the earlier the larger: (1 - x) * last and x * last.

    Args:
        x: images in 0..1, (B, *pixels).
        last: when the weakest fires, seconds.

    Returns:
        Spike times, (B, 2 * pixels), seconds.
    """
    check_number("last", last, "seconds")
    return (1 - encoding.on_off(x.flatten(1))) * last


def digits_network(generator: torch.Generator, hidden: int = 128) -> EventNetwork:
    """128 inputs of `on_off_times`, a hidden layer, ten outputs of which the first to fire is the answer.

    Weights come from N(m, s**2) with a mean above zero, so that at first nine outputs of ten fire for a digit, or all,
    and four hidden neurons of five: what is silent does not learn.
    """

    def layer(inputs: int, outputs: int) -> EventLIF:
        synapse: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
        nn.init.normal_(synapse.weight, 12.8 / inputs, 4.5 / math.sqrt(inputs), generator=generator)
        return EventLIF(synapse, horizon=HORIZON, tau_mem=20e-3, tau_syn=5e-3)

    return EventNetwork(layer(128, hidden), layer(hidden, 10))


def digits_loss() -> FirstSpikeCrossEntropy:
    """The loss that goes with `digits_network`."""
    return FirstSpikeCrossEntropy(HORIZON, tau=1e-3, late=0.03, tau_late=10e-3)
