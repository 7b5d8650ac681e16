"""Tasks that need no file: each is a formula, its parameters and a seed.

The same arguments give the same samples. Three splits are drawn one after the other from one generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.datasets.base import Dataset, Split
from snnlearn.datasets.recordings import Recordings
from snnlearn.encoding import poisson

MILLISECOND = 1000  # in the microseconds of `Recordings`


def _drawn(
    samples: tuple[int, int, int], seed: int, classes: int, draw: Callable[[int, torch.Generator], tuple[Any, Tensor]]
) -> Dataset:
    """Training, validation and test samples from one generator."""
    if not isinstance(samples, tuple) or len(samples) != 3:
        raise TypeError(f"samples must be three numbers, for training, validation and test; got {samples!r}")
    for name, number in zip(("training", "validation", "test"), samples, strict=True):
        _checks.whole(f"the number of {name} samples", number, least=1)
    _checks.whole("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    train, validation, test = (Split(*draw(number, generator)) for number in samples)
    return Dataset(train, validation, test, classes)


def _probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability and lies in 0..1, got {value}")


def _labels(number: int, classes: int, generator: torch.Generator) -> Tensor:
    """As many of each class as can be, in random order, (number,)."""
    return (torch.arange(number) % classes)[torch.randperm(number, generator=generator)]


def _recorded(spikes: Tensor) -> Recordings:
    """Spikes (T, B, N), steps of 1 ms, as flat events."""
    _, B, N = spikes.shape
    sample, step, unit = spikes.transpose(0, 1).nonzero().unbind(1)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), sample.bincount(minlength=B).cumsum(0)])
    return Recordings(step * MILLISECOND, unit, pointer, (N,))


def temporal_xor(samples: tuple[int, int, int] = (400, 200, 400), *, jitter: float = 0.2, seed: int = 0) -> Dataset:
    """Temporal XOR (Neftci, Mostafa & Zenke 2019, Fig. 6; Mostafa 2018): is one spike early and the other late?

    Two inputs fire once each, at t_i = b_i + jitter * u_i * (1 - 2 b_i) with bits b_i and u_i uniform in 0..1; the
    label is b_1 XOR b_2. So early is 0..jitter and late 1 - jitter..1. The papers have no jitter.

    Args:
        samples: how many to train on, to choose settings by and to test with; the four patterns equally often.
        jitter: 0 up to 0.5, which is excluded.
        seed: of the draws.

    Returns:
        x (N, 2), spike times as a share of the time from the earliest to the latest.
    """
    if not 0 <= jitter < 0.5:
        raise ValueError(f"jitter must lie in 0..0.5, 0.5 excluded, so that early and late stay apart; got {jitter}")

    def draw(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pattern = _labels(number, 4, generator)
        bits = torch.stack([pattern // 2, pattern % 2], 1)
        moved = jitter * torch.rand(number, 2, generator=generator)
        return bits + moved * (1 - 2 * bits), bits[:, 0] ^ bits[:, 1]

    return _drawn(samples, seed, 2, draw)._replace(names=("same", "different"))


def delayed_xor(
    samples: tuple[int, int, int] = (2000, 500, 1000), *, delay: int = 40, chance: float = 0.3, seed: int = 0
) -> Dataset:
    """Delayed XOR: two bits one after the other, and a delay between them across which the first has to be held.

    Ten inputs. For a bit of 0 the first five fire during 10 ms, for a 1 the others, each with probability ``chance`` in
    each ms: the first bit in 0..10 ms, the second in 10 + delay..20 + delay ms, and nothing before, between and after.
    The label is b_1 XOR b_2, to be told in the 10 ms that follow the second bit, which are the last. The same draws as
    `snnlearn.lessons.eprop_tasks.delayed_xor` makes; a form of the task that is as old as recurrent networks.

    A model that sees all spikes at once needs no memory: a count of the last five inputs' spikes tells how many bits
    were 1. The delay is hard for what has to answer at the end.

    Args:
        samples: as `temporal_xor`; bits are drawn independently.
        delay: ms.
        chance: of a spike.
        seed: of the draws.

    Returns:
        `Recordings` of 30 + delay ms, ten units.
    """
    _checks.whole("delay", delay)
    _probability("chance", chance)

    def draw(number: int, generator: torch.Generator) -> tuple[Recordings, Tensor]:
        bits = torch.randint(0, 2, (2, number), generator=generator)
        p = torch.zeros(delay + 30, number, 10)
        for start, bit in zip((0, 10 + delay), bits, strict=True):
            p[start : start + 10, :, :5] = chance * (bit == 0)[:, None]
            p[start : start + 10, :, 5:] = chance * (bit == 1)[:, None]
        return _recorded(torch.rand(p.shape, generator=generator) < p), bits[0] ^ bits[1]

    return _drawn(samples, seed, 2, draw)._replace(names=("same", "different"))


def yin_yang_class(points: Tensor, radius: float = 0.5, dot: float = 0.1) -> Tensor:
    """Which part of the Yin-Yang each point (..., 2) belongs to: 0 yin, 1 yang, 2 one of the dots.

    With the centre at (R, R), and d_l and d_r the distances to (R/2, R) and (3R/2, R): dot where min(d_l, d_r) < r;
    else yin where y > R and d_r > R/2, or d_l <= R/2; else yang (Kriener, Göltz & Petrovici 2022, Sec. 2).
    """
    x, y = points.unbind(-1)
    left, right = (torch.hypot(x - centre * radius, y - radius) for centre in (0.5, 1.5))
    yin = ((y > radius) & (right > radius / 2)) | (left <= radius / 2)
    return torch.where(torch.minimum(left, right) < dot, 2, torch.where(yin, 0, 1))


def yin_yang(
    samples: tuple[int, int, int] = (5000, 1000, 1000), *, radius: float = 0.5, dot: float = 0.1, seed: int = 0
) -> Dataset:
    """Yin-Yang (Kriener, Göltz & Petrovici 2022): points of a disc in three classes that no plane can part.

    A class is drawn, each equally often, then a point uniformly among the points of the disc that belong to it
    (`yin_yang_class`). The inputs are (x, y, 1 - x, 1 - y), so that what is small in one is large in another.

    Args:
        samples: as `temporal_xor`; the authors have 5000, 1000, 1000.
        radius, dot: of the disc and of each of its two dots, dot < radius / 2. The disc lies in 0..1 if radius = 0.5.
        seed: of the draws; the authors' own samples come from another generator.

    Returns:
        x (N, 4), values in 0..1.
    """
    _checks.positive("radius", radius)
    _checks.positive("dot", dot)
    if not dot < radius / 2 or radius > 0.5:
        raise ValueError(f"want dot < radius / 2 <= 0.25, got dot={dot}, radius={radius}")

    def draw(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        y = _labels(number, 3, generator)
        points = torch.empty(number, 2)
        waiting = torch.arange(number)  # for a point of their class
        while len(waiting):
            tried = 2 * radius * torch.rand(len(waiting), 2, generator=generator)
            inside = torch.hypot(*(tried - radius).unbind(1)) <= radius
            fits = inside & (yin_yang_class(tried, radius, dot) == y[waiting])
            points[waiting[fits]] = tried[fits]
            waiting = waiting[~fits]
        return torch.cat([points, 1 - points], 1), y

    return _drawn(samples, seed, 3, draw)._replace(names=("yin", "yang", "dot"))


class Manifold(NamedTuple):
    """A smooth random map from [0, 1]**D to M dimensions; see `randman`.

    Args:
        theta: (3, M, D, K), amplitude, frequency and phase of each wave, in 0..1.
        alpha: smoothness.
    """

    theta: Tensor
    alpha: float

    def __call__(self, z: Tensor) -> Tensor:
        """Points z (N, D) to values (N, M), not yet scaled."""
        amplitude, frequency, phase = self.theta
        k = torch.arange(1, self.theta.shape[-1] + 1, dtype=z.dtype)
        waves = torch.sin(2 * torch.pi * (k * frequency * z[:, None, :, None] + phase))
        return (k**-self.alpha * amplitude * waves).sum(-1).prod(-1)


def random_manifold(units: int, dimension: int, alpha: float, generator: torch.Generator, waves: int = 100) -> Manifold:
    """A manifold of ``dimension`` D in ``units`` M dimensions, drawn by the generator; K = waves."""
    theta = torch.rand(3, units, dimension, waves, dtype=torch.float64, generator=generator)
    return Manifold(theta, alpha)


def randman(
    samples: tuple[int, int, int] = (4000, 500, 1000),
    *,
    classes: int = 10,
    units: int = 20,
    dimension: int = 1,
    alpha: float = 2.0,
    seed: int = 0,
) -> Dataset:
    """Randman (Zenke & Vogels 2021): each class is a smooth random manifold of spike times.

    Unit i of class c fires once, at

        t_i = (f_i(z) - min f_i) / (max f_i - min f_i),
        f_i(z) = prod_d sum_k k**-alpha A_idk sin(2 pi (k F_idk z_d + P_idk)),    k = 1..K

    with z uniform in [0, 1]**D, new for each sample, and A, F, P uniform in 0..1, drawn once for each class; minimum
    and maximum are those of the class's samples. Every unit fires exactly once, so counts tell nothing. The
    authors sum to K = 1000; here K = 100, and what is left out of a sum is below K**(1 - alpha) / (alpha - 1).

    Args:
        samples: as `temporal_xor`; each class equally often.
        classes: manifolds.
        units: M, inputs.
        dimension: D of the manifolds.
        alpha: above 1; larger is smoother and easier.
        seed: of the manifolds and the points on them.

    Returns:
        x (N, M), spike times as a share of the sample's duration, 0..1.
    """
    for name, number in (("classes", classes), ("units", units), ("dimension", dimension)):
        _checks.whole(name, number, least=1 if name != "classes" else 2)
    if not 1 < alpha < float("inf"):
        raise ValueError(f"alpha must be finite and above 1, where the sum over waves converges; got {alpha}")
    _checks.whole("seed", seed)
    own = torch.Generator().manual_seed(seed + 1)  # the manifolds stay when the numbers of samples change
    manifolds = [random_manifold(units, dimension, alpha, own) for _ in range(classes)]

    def draw(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        y = _labels(number, classes, generator)
        z = torch.rand(number, dimension, dtype=torch.float64, generator=generator)
        f = torch.empty(number, units, dtype=torch.float64)
        for c, manifold in enumerate(manifolds):
            f[y == c] = manifold(z[y == c])
        return f, y

    raw = _drawn(samples, seed, classes, draw)
    splits = raw[:3]
    low, high = torch.empty(classes, units).double(), torch.empty(classes, units).double()
    for c in range(classes):
        every = torch.cat([split.x[split.y == c] for split in splits])
        if len(every) < 2:
            raise ValueError(f"want at least two samples of each of {classes} classes, got samples={samples}")
        low[c], high[c] = every.aminmax(dim=0)
    scaled = [Split(((x - low[y]) / (high - low)[y]).float().clamp(0, 1), y) for x, y in splits]
    return Dataset(scaled[0], scaled[1], scaled[2], classes)


class Trains(NamedTuple):
    """Spike trains and the spike trains wanted for them, steps of 1 ms.

    Args:
        x: inputs, (T, B, N), 0 or 1.
        y: targets, (T, B, C), 0 or 1, as `losses.van_rossum` takes them.
    """

    x: Tensor
    y: Tensor


def poisson_targets(
    patterns: int = 1,
    *,
    steps: int = 500,
    inputs: int = 100,
    outputs: int = 1,
    input_rate: float = 10.0,
    target_rate: float = 10.0,
    quiet: int = 50,
    seed: int = 0,
) -> Trains:
    """Frozen noise and Poisson target trains, to be met spike by spike (after Zenke & Ganguli 2018).

    Every input fires as a Poisson process, P(spike in a step) = input_rate * 1 ms, and so does every target after the
    first ``quiet`` steps. Both are drawn once: the same noise always comes with the same target, and there is nothing
    to generalise to, so this is no `Dataset`. The paper's input is such noise; its targets are equal intervals and
    pictures, of which Poisson trains are the case without any structure.

    Args:
        patterns: B, how many pairs of noise and target.
        steps: T, of 1 ms.
        inputs, outputs: N and C.
        input_rate, target_rate: Hz.
        quiet: steps at the start in which no target is set, since a membrane at rest takes some time to fire.
        seed: of the draws.
    """
    sizes = {"patterns": patterns, "steps": steps, "inputs": inputs, "outputs": outputs}
    for name, number in sizes.items():
        _checks.whole(name, number, least=1)
    _checks.whole("quiet", quiet)
    _checks.whole("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    x = poisson(torch.full((patterns, inputs), float(input_rate)), steps, generator=generator)
    y = poisson(torch.full((patterns, outputs), float(target_rate)), steps, generator=generator)
    y[:quiet] = 0
    return Trains(x, y)


def cue_accumulation(
    samples: tuple[int, int, int] = (500, 200, 400),
    *,
    cues: int = 7,
    cue: int = 100,
    gap: int = 50,
    delay: tuple[int, int] = (500, 1500),
    recall: int = 150,
    group: int = 10,
    rate: float = 40.0,
    noise: float = 10.0,
    lean: float = 0.7,
    seed: int = 0,
) -> Dataset:
    """Accumulation of evidence (Bellec, Scherr, Subramoney et al. 2020, Fig. 3): on which side were more cues?

    Four groups of inputs: left, right, recall, noise. Cue m = 0..cues-1 begins at m * (cue + gap), and during ``cue``
    ms the group of its side fires at ``rate``. A delay follows, uniform between two bounds, then for ``recall`` ms the
    recall group fires at ``rate``, and the answer is asked. The noise group fires at ``noise`` all the time. A side is
    drawn for the sample, and each cue is on it with probability ``lean``; the label is the side of most cues, 0 left, 1
    right. Recall comes at the very end: shorter delays begin later, so that all samples end together.

    Counts of the left and the right group's spikes decide it, so a linear model that sees the whole sample needs no
    memory; what answers at the recall does.

    Args:
        samples: as `temporal_xor`.
        cues: an odd number.
        cue, gap, recall: ms.
        delay: shortest and longest, ms, between the last gap and the recall.
        group: inputs in each group.
        rate, noise: Hz, at most 1000. The authors: 40 and 10.
        lean: 0..1. The authors: 0.7.
        seed: of the draws.

    Returns:
        `Recordings` of cues * (cue + gap) + delay[1] + recall ms, 4 * group units.
    """
    for name, number in (("cues", cues), ("cue", cue), ("recall", recall), ("group", group)):
        _checks.whole(name, number, least=1)
    for name, number in (("gap", gap), ("the shortest delay", delay[0]), ("the longest delay", delay[1])):
        _checks.whole(name, number)
    if cues % 2 == 0 or delay[1] < delay[0]:
        raise ValueError(f"want an odd number of cues and delays in order, got cues={cues}, delay={delay}")
    _probability("lean", lean)
    for name, value in (("rate", rate), ("noise", noise)):
        _probability(f"{name} * 1 ms", value / 1000)
    steps = cues * (cue + gap) + delay[1] + recall

    def piece(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        side = torch.randint(0, 2, (number, 1), generator=generator)
        sides = side ^ (torch.rand(number, cues, generator=generator) >= lean).long()
        waits = torch.randint(delay[0], delay[1] + 1, (number,), generator=generator)
        begin = delay[1] - waits
        at = torch.arange(steps)[:, None] - begin  # the time of each sample, (T, B)
        m, within = at.div(cue + gap, rounding_mode="floor"), at % (cue + gap)
        shown = (at >= 0) & (m < cues) & (within < cue)
        which = sides.T.gather(0, m.clamp(0, cues - 1))  # the side of the cue of that time, (T, B)
        asked = (torch.arange(steps) >= steps - recall)[:, None].expand_as(at)
        active = torch.stack([shown & (which == 0), shown & (which == 1), asked], 2).float() * rate
        p = torch.cat([active, torch.full((steps, number, 1), float(noise))], 2).repeat_interleave(group, 2) / 1000
        return torch.rand(p.shape, generator=generator) < p, (2 * sides.sum(1) > cues).long()

    def draw(number: int, generator: torch.Generator) -> tuple[Recordings, Tensor]:
        sizes = [min(64, number - n) for n in range(0, number, 64)]  # dense only a few at a time
        parts = [piece(size, generator) for size in sizes]
        flat = [_recorded(spikes) for spikes, _ in parts]
        ends = torch.cat([torch.zeros(1, dtype=torch.long), *(part.pointer.diff() for part in flat)]).cumsum(0)
        times, units = (torch.cat([getattr(part, name) for part in flat]) for name in ("times", "units"))
        return Recordings(times, units, ends, (4 * group,)), torch.cat([y for _, y in parts])

    return _drawn(samples, seed, 2, draw)._replace(names=("left", "right"))
