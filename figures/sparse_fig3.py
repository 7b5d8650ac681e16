"""Sparse spiking gradient descent, Fig. 3: few neurons are near their threshold, and nearly all gradient is theirs.

Perez-Nieves & Goodman 2021, Secs. 3.1 and 3.2. Two hidden layers of 200 neurons and a readout, the slope
1 / (1 + 100 |U - theta|)**2, whole or cut off at |U - theta| = B_th = 0.2, on two data sets. Beside the paper's four
panels: the cosine of the sparse to the whole gradient in each layer while the network learns, and, among the numbers,
what a cosine of 0.999 hides. Some neurons are never near their threshold and get no sparse gradient at all. The whole
one is tiny there, but Adam makes full steps of it, and some of them come to life; with a large eps it does not.

The networks and their training serve the other sparse figures, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import COLORS, arguments, canvas, data, label, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from snnlearn import datasets, encoding
from snnlearn.datasets import Dataset, Split
from snnlearn.eventlayers import LinearLIF
from snnlearn.losses import CrossEntropy, mean_over_time
from snnlearn.neurons import Neuron, Threshold, readout
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes, unpack
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Adjoint, Reset

HIDDEN, BATCH, RATE = 200, 64, 1e-2
LARGE_EPS = 1e-4
"""Of Adam: gradients that are much smaller move their weights little, as under plain gradient descent."""
STEEPNESS, WITHIN = 100.0, 0.2
"""Of the authors' code, whose b_th = 0.8 is B_th = 1 - 0.8."""
WHOLE = math.inf


@dataclass(frozen=True)
class Problem:
    """A data set as spikes, and the constants of a network for it.

    Args:
        name: of the data.
        paper: the data set of the paper, which is this one or has it in its place.
        data: the splits.
        inputs, steps: channels and T.
        tau: of all membranes, steps.
        encode: samples to spikes (T, B, inputs).
        stds: of the weights of three layers, times the square root of their inputs.
        updates: batches of a full training.
    """

    name: str
    paper: str
    data: Dataset
    inputs: int
    steps: int
    tau: float
    encode: Callable[[Any], Spikes]
    stds: tuple[float, float, float]
    updates: int

    @property
    def beta(self) -> float:
        """Decay of a membrane over a step."""
        return math.exp(-1 / self.tau)

    @property
    def described(self) -> str:
        """For the settings of a figure."""
        instead = "" if self.name == self.paper else f"in place of the paper's {self.paper}; "
        size = f"{self.inputs} inputs, {self.steps} steps, {len(self.data.train)} training samples"
        return f"{instead}{size}; membranes decay with tau = {self.tau:g} steps"

    @property
    def loss(self) -> CrossEntropy:
        """Of the readout's mean over time."""
        return CrossEntropy(over=mean_over_time, scale=5 * (1 - self.beta))


def pictures(root: Path | None = None) -> Problem:
    """Fashion-MNIST or digits, as latencies of up to 50 steps; ON and OFF channels."""
    found, name = data("fashion-mnist", root, datasets.digits)
    inputs = 2 * found.train.x[0].numel()

    def encode(x: Tensor) -> Spikes:
        return Spikes.pack(encoding.latency(encoding.on_off(x.float().flatten(1)), 50))

    return Problem(name, "fashion-mnist", found, inputs, 50, 20.0, encode, (4.0, 4.0, 1.0), 300)


def words(root: Path | None = None) -> Problem:
    """SHD or the spoken digits of this library, in steps of 10 ms."""
    found, name = data("shd", root, datasets.spoken)
    steps = 140 if name == "shd" else 100
    inputs = found.train.x.shape.numel()
    return Problem(name, "shd", found, inputs, steps, 5.0, lambda x: x.packed(steps, 10e-3), (1.5, 3.0, 1.0), 400)


def network(
    problem: Problem,
    within: float,
    steepness: float = STEEPNESS,
    *,
    hidden: int = HIDDEN,
    reset: Reset = Reset.IGNORED,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Eqs. 1-4 as three `LinearLIF`; ``within`` is B_th, infinite for the whole gradient."""
    surrogate = FastSigmoid.from_steepness(steepness)
    neuron = Neuron(beta=problem.beta, fire=Threshold(strict=True))
    top = readout(tau_mem=problem.tau * 1e-3, dt=1e-3)
    sizes = (problem.inputs, hidden, hidden, problem.data.classes)
    layers = []
    for i, std in enumerate(problem.stds):
        layer = LinearLIF(
            sizes[i],
            sizes[i + 1],
            top if i == 2 else neuron,
            surrogate=surrogate if within == WHOLE else Near(surrogate, within),
            temporal=Adjoint(reset),
            bias=False,
            generator=generator,
        )
        nn.init.normal_(layer.weight, std=std / math.sqrt(sizes[i]), generator=generator)
        layers.append(layer)
    return nn.Sequential(*layers)


def share(problem: Problem, net: nn.Sequential, split: Split) -> float:
    """The share of a split that the network answers rightly."""
    right = 0
    with torch.no_grad():
        for x, y in zip(split.x.split(256), split.y.split(256), strict=True):
            right += int((problem.loss.scores(net(problem.encode(x))).argmax(1) == y).sum())
    return right / len(split)


@dataclass
class Run:
    """What a training came to: loss and activity (two hidden layers) of each update, accuracies in shares of 1."""

    loss: list[float] = field(default_factory=list)
    activity: list[tuple[float, float]] = field(default_factory=list)
    early: float = math.nan
    validation: float = math.nan
    test: float = math.nan


def train(
    problem: Problem,
    within: float,
    steepness: float = STEEPNESS,
    *,
    seed: int,
    updates: int | None = None,
    frozen: bool = False,
    eps: float = 1e-8,
    look: Callable[[int, nn.Sequential], None] | None = None,
) -> tuple[nn.Sequential, Run]:
    """Adam with a cosine schedule, by the sparse gradient or the whole one.

    Args:
        problem, within, steepness: see `network`.
        seed: of the weights and of the order of the data.
        updates: batches, the problem's own number if not given.
        frozen: only the readout learns.
        eps: Adam's; the smaller, the more the smallest gradients move their weights.
        look: called with the number of updates done and the network, at 7 moments from the first to the last.

    Returns:
        The network, and a `Run` whose ``early`` is the validation accuracy after a fifth of the updates.
    """
    generator = torch.Generator().manual_seed(seed)
    net, run = network(problem, within, steepness, generator=generator), Run()
    total = problem.updates if updates is None else updates
    learns = list(net.parameters())[-1:] if frozen else list(net.parameters())
    for p in set(net.parameters()) - set(learns):
        p.requires_grad_(False)
    optimizer = torch.optim.Adam(learns, lr=RATE, eps=eps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    x, y = problem.data.train
    order: list[Tensor] = []
    moments = {round(total * i / 6) for i in range(7)}
    for done in range(total + 1):
        if look is not None and done in moments:
            look(done, net)
        if done == total // 5:
            run.early = share(problem, net, problem.data.validation)
        if done == total:
            break
        order = order or list(torch.randperm(len(y), generator=generator).split(BATCH))
        chosen = order.pop()
        optimizer.zero_grad()
        loss = problem.loss(net(problem.encode(x[chosen])), y[chosen])
        loss.backward()
        optimizer.step()
        schedule.step()
        run.loss.append(loss.item())
        run.activity.append((_activity(net[0]), _activity(net[1])))
    run.validation, run.test = (share(problem, net, split) for split in problem.data[1:3])
    return net, run


def _activity(layer: nn.Module) -> float:
    """The share of neurons and steps within B_th, which the layer has counted; 1 without a B_th."""
    report: Any = layer.report
    return 1.0 if report is None or report.activity is None else report.activity


def few(problem: Problem, size: int = BATCH) -> tuple[Spikes, Tensor]:
    """The first samples held out for validation."""
    split = problem.data.validation
    return problem.encode(split.x[:size]), split.y[:size]


def gradients(problem: Problem, net: nn.Sequential, within: float, steepness: float) -> tuple[list[Tensor], Spikes]:
    """Weight gradients of a network at a B_th on `few` samples, and the lower layer's spikes, gradient included."""
    twin = network(problem, within, steepness, hidden=len(net[0].weight))  # type: ignore[arg-type]
    twin.load_state_dict(net.state_dict())
    x, y = few(problem)
    below = twin[0](x)
    below.carrier.retain_grad()
    problem.loss(twin[2](twin[1](below)), y).backward()
    return [p.grad for p in twin.parameters() if p.grad is not None], below


def cosines(problem: Problem, net: nn.Sequential, within: float, steepness: float = STEEPNESS) -> list[float]:
    """Between sparse and whole gradient of the weights of both hidden layers; 0 for a gradient that is 0."""
    pair = [gradients(problem, net, w, steepness)[0] for w in (within, WHOLE)]
    return [functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() for a, b in zip(*pair, strict=True)][
        :2
    ]


def silent(problem: Problem, net: nn.Sequential) -> list[float]:
    """The share of neurons of both hidden layers that fire at no validation sample."""
    found, s = [], problem.encode(problem.data.validation.x[:320])
    with torch.no_grad():
        for layer in (net[0], net[1]):
            s = layer(s)
            found.append((~s.dense().flatten(0, 1).any(0)).float().mean().item())
    return found


def untouched(problem: Problem, net: nn.Sequential, within: float, steepness: float = STEEPNESS) -> list[float]:
    """The share of neurons of both hidden layers whose weights get no gradient at all from `few` samples."""
    return [(dW == 0).all(1).float().mean().item() for dW in gradients(problem, net, within, steepness)[0][:2]]


def smooth(values: Sequence[float], over: int = 15) -> np.ndarray:
    """Means of so many neighbours."""
    over = min(over, 1 + len(values) // 10)
    return np.convolve(values, np.ones(over) / over, mode="valid")


def quiet() -> None:
    """The price of a narrow B_th is what these figures show; layers need not warn of it."""
    warnings.filterwarnings("ignore", message=".*too narrow for its inner slope")


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """The paper's statements of Secs. 3.1 and 3.2, true or false of what was measured."""
    found = list(here["data"].values())
    lower, higher = sorted(found, key=lambda d: d["input density"])
    return {
        "activity is never above 2 % on average, in no data set and layer": all(
            max(d["mean activity (%)"]) <= 2 for d in found
        ),
        "activity is below 6 % in every data set and layer": all(max(d["mean activity (%)"]) < 6 for d in found),
        "denser input makes higher activity (mean of both layers)": sum(lower["mean activity (%)"])
        < sum(higher["mean activity (%)"]),
        "both layers' weight gradients have a cosine above 0.99 to the whole ones, at every moment looked at": all(
            min(min(row) for row in d["cosine"]) > 0.99 for d in found
        ),
        "the losses of both ways end within a tenth of each other": all(
            abs(d["final loss"]["sparse"] / d["final loss"]["whole"] - 1) < 0.1 for d in found
        ),
        "the losses of both ways differ by less than 5 % of the loss at the start, mean over the training": all(
            d["loss difference, share of the start"] < 0.05 for d in found
        ),
        "more neurons stay silent under the sparse gradient, upper layer, on every data set": all(
            d["neurons that stay silent (%), by layer"]["sparse"][1]
            > d["neurons that stay silent (%), by layer"]["whole"][1]
            for d in found
        ),
        "test accuracies of both ways are within 1.5 points, on every data set": all(
            abs(np.mean(d["test (%)"]["sparse"]) - np.mean(d["test (%)"]["whole"])) <= 1.5 for d in found
        ),
        "with a large eps in Adam they are within 1.5 points, on every data set": all(
            abs(np.mean(d["test (%), Adam's eps large"]["sparse"]) - np.mean(d["test (%), Adam's eps large"]["whole"]))
            <= 1.5
            for d in found
        ),
    }


PAPER = {
    "Fig. 3A": "activity with N = 200 never above 2 % on average; 1.06 % on F-MNIST, highest on SHD",
    "Fig. 3B": "on SHD the weight gradients are nearly identical although most spike gradients are not computed",
    "Fig. 3C": "on SHD the loss is practically identical with both",
    "Fig. 3D": "test accuracy, sparse: F-MNIST 82.2 %, N-MNIST 92.7 %, SHD 77.5 %; practically identical to the whole",
}


def measure(problem: Problem, updates: int | None, seeds: int) -> dict[str, Any]:
    """Both ways on one data set; the curves are means over the seeds."""
    runs: dict[str, list[Run]] = {"sparse": [], "whole": []}
    large_eps: dict[str, list[float]] = {"sparse": [], "whole": []}
    moments: list[int] = []
    cosine: list[list[list[float]]] = []  # (seeds, moments, layers)
    trained = None
    quiet_ones: dict[str, list[list[float]]] = {"sparse": [], "whole": []}
    for seed in range(seeds):
        rows: list[list[float]] = []

        def look(done: int, net: nn.Sequential, rows: list[list[float]] = rows) -> None:
            if done not in moments:
                moments.append(done)
            rows.append(cosines(problem, net, WITHIN))

        net, run = train(problem, WITHIN, seed=seed, updates=updates, look=look)
        trained = net if trained is None else trained
        cosine.append(rows)
        runs["sparse"].append(run)
        quiet_ones["sparse"].append(silent(problem, net))
        net, run = train(problem, WHOLE, seed=seed, updates=updates)
        quiet_ones["whole"].append(silent(problem, net))
        runs["whole"].append(run)
        for way, within in (("sparse", WITHIN), ("whole", WHOLE)):
            run = train(problem, within, seed=seed, updates=updates, eps=LARGE_EPS)[1]
            large_eps[way].append(100 * run.test)
    assert trained is not None
    activity = 100 * np.array([run.activity for run in runs["sparse"]])  # (seeds, updates, layers)
    loss = {way: np.mean([run.loss for run in found], axis=0) for way, found in runs.items()}
    x, _ = few(problem)
    numbers = {
        "input density": x.density(),
        "mean activity (%)": activity.mean((0, 1)).tolist(),
        "activity (%) of the first and last tenth of the updates": [
            activity[:, part].mean((0, 1)).tolist() for part in _ends(activity.shape[1])
        ],
        "updates looked at": moments,
        "cosine": np.mean(cosine, axis=0).tolist(),
        "final loss": {way: float(curve[_ends(len(curve))[1]].mean()) for way, curve in loss.items()},
        "loss difference, share of the start": float(np.abs(loss["sparse"] - loss["whole"]).mean() / loss["whole"][0]),
        "neurons that stay silent (%), by layer": {
            way: (100 * np.mean(found, axis=0)).tolist() for way, found in quiet_ones.items()
        },
        "neurons without any gradient (%), by layer": {
            way: [100 * v for v in untouched(problem, trained, within)]
            for way, within in (("sparse", WITHIN), ("whole", WHOLE))
        },
        "test (%), Adam's eps large": large_eps,
        "test (%)": {way: [100 * run.test for run in found] for way, found in runs.items()},
    }
    return {"numbers": numbers, "activity": activity.mean(0), "loss": loss, "net": trained}


def _ends(length: int) -> tuple[slice, slice]:
    tenth = max(1, length // 10)
    return slice(0, tenth), slice(length - tenth, length)


# The picture.

ROLES = ("membrane", "threshold")
"""Colours of the two data sets."""
WAYS = {"whole": ("muted", "--"), "sparse": ("surrogate", "-")}


def draw_activity(ax: Axes, found: dict[str, Any]) -> None:
    """Fig. 3A."""
    for (name, one), role in zip(found.items(), ROLES, strict=True):
        for layer, style in enumerate(("-", ":")):
            curve = smooth(one["activity"][:, layer])
            ax.plot(np.arange(len(curve)), curve, style, color=COLORS[role], label=f"{name}, layer {layer + 1}")
    ax.axhline(2, color=COLORS["muted"], linestyle="--", linewidth=1, label="the paper's upper limit")
    ax.set_ylim(0, 1.4 * ax.get_ylim()[1])
    label(ax, "updates", "neurons within B_th (%)", "A  activity at B_th = 0.2")
    ax.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper left")


def draw_gradients(axes: Sequence[Axes], problem: Problem, net: nn.Sequential) -> None:
    """Fig. 3B: weight gradients of the lower layer, and the gradient of one sample's spikes, whole and sparse."""
    images = []
    for within in (WHOLE, WITHIN):
        dW, below = gradients(problem, net, within, STEEPNESS)
        dS = below.carrier.grad  # type: ignore[union-attr]
        assert dS is not None
        if below.near is not None:  # errors in the order of (sample, step, neuron)
            near = unpack(below.near, below.size, torch.bool).transpose(0, 1)
            dS = torch.full(near.shape, math.nan).masked_scatter_(near, dS).transpose(0, 1)
        images.append((dW[0].T, dS[:, 0].T))
    for row, (what, y) in enumerate((("∂L/∂W of layer 1", "input"), ("∂L/∂S of layer 1, a sample", "neuron"))):
        size = float(np.nanquantile(images[0][row].abs().numpy(), 0.995))
        for column, way in enumerate(("whole", "sparse")):
            ax = axes[2 * row + column]
            ax.set_facecolor("#DDDDDD")
            picture = images[column][row].detach().numpy()[:40, :60]
            ax.imshow(picture, cmap="PuOr", vmin=-size, vmax=size, aspect="auto", interpolation="nearest")
            label(ax, "neuron" if row == 0 else "step", y if column == 0 else "")
            ax.set_title(f"{'B  ' if row == column == 0 else ''}{way} {what}", loc="left", fontsize="small")


def draw_cosine(ax: Axes, found: dict[str, Any]) -> None:
    """The match of the directions, which the paper shows by eye only."""
    for (name, one), role in zip(found.items(), ROLES, strict=True):
        rows = np.array(one["numbers"]["cosine"])
        for layer, style in enumerate(("o-", "s:")):
            ax.plot(
                one["numbers"]["updates looked at"], rows[:, layer], style, color=COLORS[role], markersize=4,
                label=f"{name}, layer {layer + 1}",
            )  # fmt: skip
    ax.set_ylim(min(0.98, ax.get_ylim()[0]), 1.0005)
    label(ax, "updates", "cosine of sparse to whole ∂L/∂W", "E  match of the gradients (ours)")
    ax.legend(frameon=False, fontsize="x-small")


def draw_loss(ax: Axes, name: str, one: dict[str, Any]) -> None:
    """Fig. 3C."""
    for way, (role, style) in WAYS.items():
        ax.plot(smooth(one["loss"][way]), style, color=COLORS[role], label=way)
    label(ax, "updates", "loss (nats)", f"C  training loss, {name}")
    ax.legend(frameon=False, fontsize="x-small")


def draw_accuracy(ax: Axes, found: dict[str, Any]) -> None:
    """Fig. 3D: a bar for the mean, a dot for each seed."""
    for i, (way, (role, _)) in enumerate(WAYS.items()):
        for j, one in enumerate(found.values()):
            test = one["numbers"]["test (%)"][way]
            x = j + 0.36 * (i - 0.5)
            bar = ax.bar(x, np.mean(test), 0.33, color=COLORS[role], alpha=0.8, label=way if j == 0 else None)
            ax.bar_label(bar, fmt="%.1f", fontsize="small", padding=4)
            ax.plot([x] * len(test), test, ".", color="black", markersize=3)
    ax.set_xticks(range(len(found)), list(found))
    ax.set_ylim(0, 119)
    label(ax, "", "test accuracy (%)", "D  test accuracy")
    ax.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper center")


def draw(found: dict[str, Any], problems: dict[str, Problem]) -> Figure:
    """The five panels."""
    figure = canvas(11, 6.4)
    parts = figure.add_gridspec(2, 1)
    upper, lower = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    name = list(found)[-1]
    grid = upper.add_gridspec(2, 3, width_ratios=(1.25, 1, 1))
    draw_activity(upper.add_subplot(grid[:, 0]), found)
    draw_gradients(
        [upper.add_subplot(grid[row, column]) for row in (0, 1) for column in (1, 2)],
        problems[name],
        found[name]["net"],
    )
    left, middle, right = lower.subplots(1, 3)
    draw_loss(left, name, found[name])
    draw_accuracy(middle, found)
    draw_cosine(right, found)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw, write."""
    args = arguments(__doc__, argv)
    quiet()
    problems = {p.name: p for p in (pictures(args.data), words(args.data))}
    updates, seeds = (12, 1) if args.quick else (None, 3)
    found = {name: measure(problem, updates, seeds) for name, problem in problems.items()}
    here = {"data": {name: one["numbers"] for name, one in found.items()}}
    settings = {
        "network": f"inputs-{HIDDEN}-{HIDDEN}-classes, LIF without synapses, strict threshold, reset by subtraction, "
        "not differentiated; leaky readout, cross-entropy of its mean over time",
        "slope": f"1 / (1 + {STEEPNESS:g} |U - theta|)**2, sparse: 0 from |U - theta| = {WITHIN} on",
        "data": {name: p.described for name, p in problems.items()},
        "training": f"Adam {RATE:g}, cosine, batches of {BATCH}, "
        + ", ".join(f"{updates or p.updates} updates on {name}" for name, p in problems.items()),
        "seeds": seeds,
        "large eps": LARGE_EPS,
        "silent neurons": "of 320 validation samples; without any gradient: of 64, sparse training, seed 0",
        "cosine": f"on {BATCH} validation samples, network of the sparse training, mean of the seeds",
    }
    save(
        args.out,
        "sparse_fig3",
        draw(found, problems),
        {"paper": PAPER, "here": here, "settings": settings, "claims": claims},
    )


if __name__ == "__main__":
    main()
