"""One trial through a list of rules: the same network, spikes and loss, and what each rule makes of them.

Gradients are compared weight by weight with a reference's, memory is counted as `snnlearn.footprint` says, and time is
taken apart from both.
"""

from __future__ import annotations

import math
import statistics
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.events import EventNetwork
from snnlearn.footprint import Batch, Memory, measure, untouched
from snnlearn.footprint import bytes_per_step as bytes_per_step
from snnlearn.footprint import memory as memory
from snnlearn.network import Network
from snnlearn.rule import Loss, Rule

WHOLE = ""  # all parameters as one vector; no parameter has this name


@dataclass(frozen=True)
class Likeness:
    """A rule's gradient g of some weights against the reference's g_ref. None: not defined.

    Attributes:
        cosine: g . g_ref / (|g| |g_ref|); None if either is zero or not finite.
        ratio: |g| / |g_ref|; None if g_ref is zero or either is not finite.
        signs: of the entries where g_ref is not zero, the share where g has the same sign; a zero has not.
        bias: |mean(g - g_ref)| / |mean(g_ref)|, means over the trials.
        noise: its standard error, sqrt(sum over entries of var(g - g_ref) / trials) / |mean(g_ref)|: about what a rule
            without bias would show as bias for its noise alone. None for one trial.
    """

    cosine: float | None
    ratio: float | None
    signs: float | None
    bias: float | None
    noise: float | None


@dataclass(frozen=True)
class Row:
    """One rule.

    Attributes:
        loss: of the first trial; the same for all rules, since the forward pass is, but for local errors, which add
            up what every layer's own readout costs.
        weights: by parameter name.
        whole: all parameters as one vector.
        memory: bytes of the first trial.
        seconds: median time of a gradient; None if no time was taken.
        spread: interquartile range of the times, seconds; None for fewer than two.
    """

    loss: float
    weights: dict[str, Likeness]
    whole: Likeness
    memory: Memory
    seconds: float | None
    spread: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found; ``print`` it for a table.

    Attributes:
        reference: name of the rule that the others are compared with.
        trials: number of batches that bias and noise were taken over.
        rows: by the rules' names, in the order given.
        refused: why a rule does not work on this network or with this loss, by name.
        gradients: of the first trial, by rule and parameter.
    """

    reference: str
    trials: int
    rows: dict[str, Row]
    refused: dict[str, str]
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def record(self) -> dict[str, Any]:
        """Everything but the gradients as plain dicts and numbers, for JSON."""
        plain = asdict(replace(self, gradients={}))
        del plain["gradients"]
        return plain

    def table(self) -> str:
        """Two tables, likeness and cost, and what their columns mean."""
        likeness = [("rule", "weights", "cosine", "norm ratio", "same sign", "bias ± standard error")]
        cost = [("rule", "loss", "kept kB", "peak MB", "ms ± quartiles' range")]
        for name, row in self.rows.items():
            whole = {"all together": row.whole} if len(row.weights) > 1 else {}
            for weights, like in (row.weights | whole).items():
                cosine, ratio, signs = (
                    _number(*pair) for pair in ((like.cosine, ".4f"), (like.ratio, ".4g"), (like.signs, ".1%"))
                )
                likeness.append((name, weights, cosine, ratio, signs, _pm(like.bias, like.noise)))
            kept, peak = f"{row.memory.kept / 1e3:.1f}", f"{row.memory.peak / 1e6:.2f}"
            ms = _pm(_ms(row.seconds), _ms(row.spread), digits=3)
            cost.append((name, f"{row.loss:.4f}", kept, peak, ms))
        refused = [f"{name}: left out, since {reason}" for name, reason in self.refused.items()]
        return "\n".join([*_columns(likeness, 2), "", *_columns(cost, 1), *refused, "", self._meaning()])

    def _meaning(self) -> str:
        over = (
            "1 trial" if self.trials == 1 else f"{self.trials} trials (as large as its standard error, perhaps noise)"
        )
        return textwrap.fill(
            f"g is a rule's gradient, g_ref that of {self.reference}. cosine: of the angle between them. norm ratio: "
            "|g| / |g_ref|. same sign: of the entries where g_ref is not 0, the share where g has its sign. bias: "
            f"|mean(g - g_ref)| / |mean(g_ref)| over {over}. kept: bytes alive between forward and backward pass, or "
            "between two steps of a rule forward in time. peak: most bytes alive at once. 1 kB is 1000 bytes. ms: "
            "median time of a gradient.",
            width=110,
        )

    def __str__(self) -> str:
        return self.table()


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _pm(value: float | None, error: float | None, digits: int = 2) -> str:
    shown = _number(value, f".{digits}g")
    return shown if error is None else f"{shown} ± {error:.2g}"


def _columns(rows: Sequence[tuple[str, ...]], left: int) -> list[str]:
    """Lines with aligned columns, the first ``left`` to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [f"{c:{'<' if i < left else '>'}{w}}" for i, (c, w) in enumerate(zip(r, widths, strict=True))] for r in rows
    ]
    return ["  ".join(cells).rstrip() for cells in aligned]


def compare(
    rules: Mapping[str, Rule],
    net: Network | EventNetwork,
    x: Any,
    y: Tensor,
    loss: Loss,
    *,
    reference: str | None = None,
    trials: int | Sequence[Batch] = 1,
    repeats: int = 5,
    seed: int = 0,
) -> Comparison:
    """Lay rules beside each other: gradients, memory and time. The network is left as it was.

    Args:
        rules: by name.
        net, x, y, loss: as `Rule.gradients`; the first trial.
        reference: name of the rule to compare with; by default the first.
        trials: for the bias. A list of further batches (x, y); or a number K, by which x and y are split by sample
            into K batches of nearly equal size.
        repeats: gradients timed for each rule, in turn; 0 takes no time.
        seed: of random numbers in the forward pass (dropout), the same for every rule of a trial.

    Raises:
        ValueError, TypeError: the reference does not work on this network, inputs or loss; or there is no such rule. A
            rule other than the reference that refuses them is listed in ``refused`` instead.

    >>> from snnlearn import CrossEntropy, Layer, Network, lif, readout, recipes
    >>> net = Network(Layer(nn.Linear(4, 8), lif()), Layer(nn.Linear(8, 2), readout()))
    >>> rules = {"bptt": recipes.bptt(), "slayer": recipes.slayer()}
    >>> found = compare(rules, net, torch.ones(10, 3, 4), torch.tensor([0, 1, 1]), CrossEntropy())
    >>> found.rows["bptt"].whole.cosine
    1.0
    """
    first = _check(rules, reference)
    whole = (x, y)
    batches = _batches(whole, trials)
    _checks.whole("repeats", repeats)
    refused: dict[str, str] = {}
    ordered = {first: rules[first], **rules}
    one = _gradients(ordered, net, x, y, loss, seed, refused)
    tally = _Tally(first)
    for k, batch in enumerate(batches):
        trial = one if batch is whole else _gradients(ordered, net, *batch, loss, seed + k, refused)
        tally.add({name: found.parts for name, found in trial.items()})
    left = {name: rule for name, rule in rules.items() if name not in refused}
    memories = {name: measure(rule, net, x, y, loss) for name, rule in left.items()}
    times = _times(left, net, x, y, loss, repeats)
    rows = {}
    for name in left:
        likeness = {
            part: Likeness(*_alike(g, one[first].parts[part]), *tally.bias(name, part))
            for part, g in one[name].parts.items()
        }
        together = likeness.pop(WHOLE)
        rows[name] = Row(one[name].loss, likeness, together, memories[name], *_middle(times[name]))
    return Comparison(first, tally.trials, rows, refused, {name: one[name].gradients for name in left})


def _check(rules: Mapping[str, Rule], reference: str | None) -> str:
    """The reference's name, if these are rules to compare."""
    if not isinstance(rules, Mapping) or not rules:
        raise TypeError(f'rules must be a dict of rules by name such as {{"bptt": recipes.bptt()}}, got {rules!r}')
    for name, rule in rules.items():
        if not isinstance(rule, Rule):
            raise TypeError(f"{name!r} must be a Rule such as recipes.bptt(), got {type(rule).__name__}")
    reference = next(iter(rules)) if reference is None else reference
    if reference not in rules:
        raise ValueError(f"the reference {reference!r} is none of the rules {', '.join(rules)}")
    return reference


def _batches(whole: Batch, trials: int | Sequence[Batch]) -> list[Batch]:
    """What bias and noise are taken over: the whole batch and others, or the parts that it is split into."""
    if isinstance(trials, int):
        _checks.whole("trials", trials, least=1)
        return [whole] if trials == 1 else _split(*whole, trials)
    pairs = isinstance(trials, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in trials)
    if not pairs:
        raise TypeError(f"trials must be a number or a list of batches (x, y), got {type(trials).__name__}")
    return [whole, *trials]


def _split(x: Any, y: Any, number: int) -> list[Batch]:
    """Inputs x (T, B, *features) and their targets, cut along B."""
    if not (isinstance(x, Tensor) and x.dim() >= 3 and isinstance(y, Tensor)):
        raise TypeError("only inputs (T, B, *features) can be split by sample; give trials as a list of batches (x, y)")
    T, B = x.shape[:2]
    if number > B:
        raise ValueError(f"{B} samples cannot be split into {number} trials; give more samples or fewer trials")
    axis = 1 if y.shape[:2] == (T, B) else 0
    if y.dim() == 0 or y.shape[axis] != B:
        raise ValueError(
            f"targets {tuple(y.shape)} do not belong to {B} samples, (B, ...) or (T, B, ...); give trials as a list of "
            "batches (x, y)"
        )
    return list(zip(x.tensor_split(number, 1), y.tensor_split(number, axis), strict=True))


class _Gradient(NamedTuple):
    loss: float
    gradients: dict[str, Tensor]
    parts: dict[str, Tensor]  # flat, in double precision, with WHOLE


def _gradients(
    rules: Mapping[str, Rule],
    net: Network | EventNetwork,
    x: Any,
    y: Tensor,
    loss: Loss,
    seed: int,
    refused: dict[str, str],
) -> dict[str, _Gradient]:
    """One trial through the rules that have not refused; the first must not, the others may join ``refused``."""
    out: dict[str, _Gradient] = {}
    for name, rule in rules.items():
        if name in refused:
            continue
        try:
            rule.check(net, loss)
            with untouched(net, seed):
                value, found = rule.gradients(net, x, y, loss)
        except (ValueError, TypeError) as error:
            if not out:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"the reference {name!r} gives no gradient: {error}") from error
            refused[name] = str(error)
            continue
        # feedback weights that learn are one rule's own, and have nothing to be compared with
        parts = {k: g.detach().flatten().double() for k, g in found.items() if not k.startswith("spatial.")}
        if not parts:
            raise ValueError("no parameter of the network requires a gradient; there is nothing to compare")
        out[name] = _Gradient(float(value), found, {**parts, WHOLE: torch.cat(list(parts.values()))})
    return out


class _Tally:
    """Means over the trials, and the spread around them (Welford's running sums), of each part of each rule."""

    def __init__(self, reference: str):
        self.reference, self.trials = reference, 0
        self.mean: dict[tuple[str, str], Tensor] = {}  # of g - g_ref
        self.squares: dict[tuple[str, str], float] = {}  # sum over trials and entries of its squared deviations
        self.of_reference: dict[str, Tensor] = {}

    def add(self, trial: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take in the parts of every rule's gradient."""
        self.trials += 1
        for part, wanted in trial[self.reference].items():
            before = self.of_reference.get(part, torch.zeros_like(wanted))
            self.of_reference[part] = before + (wanted - before) / self.trials
            for name, parts in trial.items():
                difference = parts[part] - wanted
                mean = self.mean.get((name, part), torch.zeros_like(difference))
                step = difference - mean
                self.mean[name, part] = mean + step / self.trials
                more = torch.dot(step, difference - self.mean[name, part]).item()
                self.squares[name, part] = self.squares.get((name, part), 0.0) + more

    def bias(self, name: str, part: str) -> tuple[float | None, float | None]:
        """Bias and its standard error, as `Likeness` defines them."""
        size = self.of_reference[part].norm().item()
        if size == 0:
            return None, None
        error = None
        if self.trials > 1:
            error = _finite(math.sqrt(self.squares[name, part] / (self.trials - 1) / self.trials) / size)
        return _finite(self.mean[name, part].norm().item() / size), error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _alike(g: Tensor, wanted: Tensor) -> tuple[float | None, float | None, float | None]:
    """Cosine, ratio of norms and agreement of signs, as `Likeness` defines them."""
    some = wanted != 0
    signs = (g[some].sign() == wanted[some].sign()).double().mean().item() if some.any() else None
    if not (torch.isfinite(g).all() and torch.isfinite(wanted).all()):
        return None, None, signs
    a, b = g.abs().max().item(), wanted.abs().max().item()
    if b == 0:
        return None, None, signs
    if a == 0:
        return None, 0.0, signs
    u, v = g / a, wanted / b  # so that squares neither overflow nor vanish
    uu, uv, vv = (torch.dot(*pair).item() for pair in ((u, u), (u, v), (v, v)))
    # sqrt(uu * vv), not the product of two roots: for u = v the cosine is 1 to the last bit
    return max(-1.0, min(1.0, uv / math.sqrt(uu * vv))), _finite(math.sqrt(uu / vv) * (a / b)), signs


def _times(
    rules: Mapping[str, Rule], net: Network | EventNetwork, x: Any, y: Tensor, loss: Loss, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each gradient; the rules take turns, so that a busy moment of the machine meets them all."""
    first = next(net.parameters(), None)
    wait = torch.cuda.synchronize if first is not None and first.is_cuda else lambda: None
    times: dict[str, list[float]] = {name: [] for name in rules}
    for _ in range(repeats):
        for name, rule in rules.items():
            with untouched(net):
                wait()
                start = time.perf_counter()
                rule.gradients(net, x, y, loss)
                wait()
                times[name].append(time.perf_counter() - start)
    return times


def _middle(times: Sequence[float]) -> tuple[float | None, float | None]:
    """Median and interquartile range."""
    if len(times) < 2:
        return (times[0] if times else None), None
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, high - low
