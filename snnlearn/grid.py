"""The grid: every way through time with every way through layers. What each pair is, is called, and costs.

A row is a temporal method, a column a spatial one; any surrogate goes with both (TSSL-BP and EventProp make no use of
it). Costs count numbers, for one sample, with L layers of N neurons, a sequence of T steps, K spikes a layer:

    memory   what is kept for the sake of credit: between forward and backward pass, or from step to step
    work     additions and multiplications a step, forward and backward together

A spatial rule adds its fixed weights once, whatever the number of samples: feedback alignment another N**2 a layer,
direct feedback and local errors N times the number of outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from snnlearn.events import EventProp
from snnlearn.network import Network
from snnlearn.rule import Rule
from snnlearn.spatial import DirectFeedback, FeedbackAlignment, LocalErrors, Spatial, Transpose
from snnlearn.srm import AdjointSRM
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import RTRL, TSSLBP, Adjoint, Eligibility, Reset, Unrolled


@dataclass(frozen=True)
class Cost:
    """N**neurons * T**steps, up to a constant; ``more`` is added in words."""

    neurons: int
    steps: int = 0
    more: str = ""

    def __str__(self) -> str:
        parts = [f"{letter}{_power(n)}" for letter, n in (("T", self.steps), ("N", self.neurons)) if n]
        return f"O({' '.join(parts)}{self.more})"


def _power(n: int) -> str:
    return "" if n == 1 else {2: "²", 3: "³", 4: "⁴"}[n]


@dataclass(frozen=True)
class Time:
    """A row: a way through time.

    Attributes:
        name: of the row.
        method: the temporal method.
        direction: "backward", "forward", or "events".
        left_out: what its gradient leaves out; "" if nothing is.
        memory, work: see this module's docstring.
        needs: what a network and a loss have to be like.
    """

    name: str
    method: Any
    direction: str
    left_out: str
    memory: Cost
    work: Cost
    needs: str = ""


@dataclass(frozen=True)
class Space:
    """A column: a way through layers.

    Attributes:
        name: of the column.
        make: (network, generator) -> the spatial rule.
        changed: what it puts in the place of the true error below; "" if nothing.
        weights: what it keeps besides, whatever the number of samples.
    """

    name: str
    make: Callable[[Network, torch.Generator], Spatial]
    changed: str
    weights: str = "-"


_SUM = "a loss that is a sum over time"
_STATE = "neurons with one membrane, recurrence that is affine"

TIMES = (
    Time("bptt", Unrolled(), "backward", "", Cost(1, 1), Cost(2)),
    Time("exodus", Adjoint(), "backward", "", Cost(1, 1), Cost(2), _STATE),
    Time("slayer", Adjoint(Reset.IGNORED), "backward", "the reset", Cost(1, 1), Cost(2), _STATE),
    Time("exodus_srm", AdjointSRM(), "backward", "", Cost(1, 1), Cost(2, 0, " + T N"), "SRM neurons, not recurrent"),
    Time("tssl_bp", TSSLBP(), "backward", "all but the shift of firing times", Cost(1, 1), Cost(2), "a reset to zero"),
    Time("rtrl", RTRL(), "forward", "", Cost(3), Cost(4), f"{_SUM}; no SRM neurons"),
    Time(
        "eligibility",
        Eligibility(),
        "forward",
        "the reset, recurrent paths, the memory of the layers above",
        Cost(1),
        Cost(2),
        f"{_SUM}; affine synapses",
    ),
    Time(
        "eligibility_filtered",
        Eligibility(),
        "forward",
        "the reset, recurrent paths, slopes and memory of the layers above",
        Cost(2),
        Cost(2),
        "a van Rossum distance; Linear synapses",
    ),
    Time(
        "eprop",
        Eligibility(through_readout=True),
        "forward",
        "the reset, recurrent paths",
        Cost(2),
        Cost(2),
        f"{_SUM}; a leaky readout; Linear synapses; one hidden layer, unless errors skip layers",
    ),
    Time("eventprop", EventProp(), "events", "", Cost(0, 0, "K"), Cost(1), "an EventNetwork"),
)

SPACES = (
    Space("transpose", lambda net, g: Transpose(), ""),
    Space("feedback_alignment", FeedbackAlignment.random, "G in the place of W^T", "+ N² weights a layer, once"),
    Space("direct_feedback", DirectFeedback.random, "the output's error through H", "+ N C weights a layer, once"),
    Space("local_errors", LocalErrors.random, "the error of the layer's own readout", "+ N C weights a layer, once"),
)

NAMES = {
    ("bptt", "transpose"): "BPTT (Neftci et al. 2019, Sec. III-B)",
    ("bptt", "feedback_alignment"): "feedback alignment through time (Lillicrap et al. 2016)",
    ("bptt", "direct_feedback"): "direct feedback alignment through time (Nøkland 2016)",
    ("bptt", "local_errors"): "local errors through time",
    ("exodus", "transpose"): "EXODUS (Bauer et al. 2023)",
    ("exodus", "feedback_alignment"): "the same; recipe feedback_alignment",
    ("exodus", "direct_feedback"): "the same; recipe direct_feedback_alignment",
    ("slayer", "transpose"): "SLAYER (Shrestha & Orchard 2018)",
    ("exodus_srm", "transpose"): "EXODUS for any kernels (Bauer et al. 2023, Eq. 14)",
    ("tssl_bp", "transpose"): "TSSL-BP (Zhang & Li 2020)",
    ("rtrl", "transpose"): "RTRL (Williams & Zipser 1989)",
    ("eligibility", "transpose"): "OTTT (Xiao et al. 2022)",
    ("eligibility", "local_errors"): "DECOLLE (Kaiser et al. 2020)",
    ("eligibility_filtered", "transpose"): "SuperSpike, symmetric feedback (Zenke & Ganguli 2018)",
    ("eligibility_filtered", "direct_feedback"): "SuperSpike, random feedback (Zenke & Ganguli 2018)",
    ("eprop", "transpose"): "e-prop, symmetric (Bellec et al. 2020)",
    ("eprop", "feedback_alignment"): "e-prop, random",
    ("eprop", "direct_feedback"): "e-prop, random or adaptive (Bellec et al. 2020)",
    ("eprop", "local_errors"): "critics with the readout's memory",
    ("eventprop", "transpose"): "EventProp (Wunderlich & Pehle 2021)",
}
"""What the literature calls a pair, or what it is; pairs without an entry have no name that we know."""

REFUSED = {
    (
        "eventprop",
        "direct_feedback",
    ): "an output's error has no place in time at which a hidden spike could be told it; "
    "eventprop x feedback_alignment, or exodus x direct_feedback",
    ("eventprop", "local_errors"): "a readout of spikes at steps has none to read; exodus x local_errors",
}
"""Pairs that make no sense: the reason, and neighbours that do."""


@dataclass(frozen=True)
class Pair:
    """A field of the grid."""

    time: Time
    space: Space

    @property
    def name(self) -> str:
        """What the literature calls it, or ""."""
        return NAMES.get((self.time.name, self.space.name), "")

    @property
    def refused(self) -> str:
        """Why it makes no sense, and what to take instead; or ""."""
        return REFUSED.get((self.time.name, self.space.name), "")

    @property
    def gradient(self) -> str:
        """Whether it is the gradient of the network with its surrogate, and if not, why."""
        parts = []
        if self.time.left_out:
            parts.append(f"leaves out {self.time.left_out}")
        if self.space.changed:
            parts.append(f"takes {self.space.changed}")
        return "biased: " + "; ".join(parts) if parts else "exact"

    def rule(self, net: Any, generator: torch.Generator, surrogate: Surrogate = FastSigmoid()) -> Rule:
        """The rule, for a network.

        Args:
            net: the network that it is for.
            generator: source of feedback weights.
            surrogate: any.

        Raises:
            ValueError: the pair makes no sense.
        """
        if self.refused:
            raise ValueError(f"{self.time.name} x {self.space.name}: {self.refused}")
        return Rule(surrogate, self.time.method, self.space.make(net, generator))


def pairs() -> list[Pair]:
    """All fields, row by row."""
    return [Pair(time, space) for time in TIMES for space in SPACES]


def pair(time: str, space: str) -> Pair:
    """One field, by the names of its row and column.

    >>> pair("eligibility", "local_errors").name
    'DECOLLE (Kaiser et al. 2020)'
    >>> pair("rtrl", "transpose").gradient
    'exact'
    """
    for found in pairs():
        if (found.time.name, found.space.name) == (time, space):
            return found
    rows, columns = (", ".join(x.name for x in axis) for axis in (TIMES, SPACES))
    raise ValueError(f"no pair {time!r} x {space!r}; through time there are {rows}; through layers {columns}")


def table() -> str:
    """The grid as two markdown tables: names, and what rows and columns cost and leave out."""
    lines = ["| through time | " + " | ".join(space.name for space in SPACES) + " |", "|---" * (len(SPACES) + 1) + "|"]
    for time in TIMES:
        fields = (Pair(time, space) for space in SPACES)
        cells = ["refused" if field.refused else field.name or "runs" for field in fields]
        lines.append(f"| `{time.name}` | " + " | ".join(cells) + " |")
    lines += ["", "| row or column | gradient | memory | work a step | needs |", "|---|---|---|---|---|"]
    for time in TIMES:
        exact = f"leaves out {time.left_out}" if time.left_out else "exact"
        lines.append(f"| `{time.name}` | {exact} | {time.memory} | {time.work} | {time.needs or 'any network'} |")
    for space in SPACES:
        exact = f"biased: {space.changed}" if space.changed else "exact"
        lines.append(f"| `{space.name}` | {exact} | {space.weights} | as the row | - |")
    return "\n".join(lines)
