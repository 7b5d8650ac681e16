"""EXODUS Table 1 (Bauer et al. 2023): accuracy of EXODUS and SLAYER, and their speed against BPTT.

On handwritten digits, and on spoken digits (or SHD where ``--data`` has it), with Adam and a surrogate of scale 1 as in
the table. Times are of the processor, one thread, the contenders in turn; BPTT is autograd through the unrolled loop.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import COLORS, SERIES, arguments, canvas, data, label, save
from exodus_fig2 import BATCH, OPTIMIZERS, RULES, Problem, at_start, digits, heidelberg, learn, rule
from matplotlib.axes import Axes
from torch import Tensor

from snnlearn import Rule, datasets, kernels, recipes
from snnlearn.bench.timing import no_collector, ratio
from snnlearn.datasets import Dataset, Split, spoken
from snnlearn.lessons.exodus_training import loss
from snnlearn.network import Network
from snnlearn.surrogate import Exponential

SCALE = 1.0
PAPER = {"EXODUS": 14.3, "SLAYER": 13.3}
"""Table 1, mean speed-up of the backward pass over three data sets."""


def words(samples: Dataset, quick: bool) -> Problem:
    """Spoken digits, 80 steps of 10 ms, four layers."""
    inputs, *_, outputs = (problem := heidelberg(samples, quick)).sizes
    return Problem(problem.samples, (inputs, 64, 64, 64, outputs), 80, 10e-3)


def contenders() -> dict[str, tuple[Rule, bool]]:
    """Rules to time, and whether with compiled kernels."""
    found = {"BPTT": (recipes.bptt(surrogate=Exponential.from_scale(SCALE, 0.5)), False)}
    for name in RULES:
        found[f"{name}, tensors"] = (rule(name, SCALE), False)
        if kernels.ready(kernels.WORTH):
            found[f"{name}, kernels"] = (rule(name, SCALE), True)
    return found


def timed(net: Network, x: Tensor, y: Tensor, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each contender's forward and backward pass, in turn, a number a round."""
    found: dict[str, dict[str, list[float]]] = {name: {"forward": [], "backward": []} for name in contenders()}
    with no_collector():
        for turn in range(rounds + 1):
            for name, (chosen, compiled) in contenders().items():
                net.zero_grad()
                forward, backward = _once(lambda chosen=chosen: chosen.objective(net, x, y, loss), compiled)
                if turn:  # the first only warms up
                    found[name]["forward"].append(forward)
                    found[name]["backward"].append(backward)
    return found


def as_in_the_paper(quick: bool) -> dict[str, dict[str, list[float]]]:
    """Times of a step of the paper's network for SHD, on random spikes."""
    samples = Dataset(*[Split(torch.empty(0), torch.empty(0))] * 3, classes=20)
    problem = Problem(samples, (700, 128, 128, 128, 20), 25 if quick else 250)
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(problem.steps, BATCH, 700, generator=generator) < 0.03).float()
    return timed(problem.network(0), x, torch.arange(BATCH) % 20, 1 if quick else 7)


def _once(objective: Callable[[], Tensor], compiled: bool) -> tuple[float, float]:
    def run() -> tuple[float, float]:
        start = time.process_time()
        value = objective()
        middle = time.process_time()
        value.backward()
        return 1e3 * (middle - start), 1e3 * (time.process_time() - middle)

    if compiled:
        return run()
    with kernels.off():
        return run()


def faster(found: dict[str, dict[str, list[float]]], what: str) -> dict[str, list[float]]:
    """How many times as fast as BPTT, round by round: median and quartiles of each contender."""
    spreads = {name: ratio(found["BPTT"][what], times[what]) for name, times in found.items() if name != "BPTT"}
    return {name: [spread.median, spread.low, spread.high] for name, spread in spreads.items()}


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the table's statements."""
    tasks = here["tasks"]
    accuracy = {task: {name: statistics.mean(v) for name, v in row["accuracy"].items()} for task, row in tasks.items()}
    backward = [*(row["backward"] for row in tasks.values()), here["SHD's size"]["backward"]]
    exodus, slayer = ([row[f"{name}, {here['fastest']}"][0] for row in backward] for name in RULES)
    better = {task: v["EXODUS"] > v["SLAYER"] + 0.02 for task, v in accuracy.items()}
    return {f"EXODUS is more than 2 points ahead of SLAYER on {task}": holds for task, holds in better.items()} | {
        "EXODUS's backward pass is faster than BPTT's, with kernels where there are some": min(exodus) > 1,
        "it is so in plain tensors too": all(row["EXODUS, tensors"][0] > 1 for row in backward),
        "it is at least ten times as fast at SHD's size, as in the paper": exodus[-1] >= 10,
        "taking the reset into account costs less than a quarter of the speed": all(
            ours > 0.75 * theirs for ours, theirs in zip(exodus, slayer, strict=True)
        ),
        "SLAYER's gradient at the first layer is more than ten times EXODUS's": all(
            row["norms"]["SLAYER"][0] > 10 * row["norms"]["EXODUS"][0] for row in tasks.values()
        ),
    }


def draw(here: dict[str, Any]) -> Any:
    """The picture: a row a task with accuracy, lengths of gradients and speed; below, the speed at SHD's size."""
    names = list(here["tasks"])
    figure = canvas(11.0, 3.0 * len(names) + 2.4)
    wide = figure.subplot_mosaic(
        [*([f"{what} {n}" for what in ("accuracy", "lengths", "speed")] for n in range(len(names))), ["large"] * 3],
        height_ratios=[*[3.0] * len(names), 2.4],
    )
    for n, (task, row) in enumerate(here["tasks"].items()):
        accuracy, lengths = wide[f"accuracy {n}"], wide[f"lengths {n}"]
        for i, name in enumerate(RULES):
            role, marker = SERIES[i]
            runs = [100 * v for v in row["accuracy"][name]]
            accuracy.barh(i, statistics.mean(runs), height=0.6, color=COLORS[role], alpha=0.5)
            accuracy.plot(runs, [i] * len(runs), marker, color=COLORS[role], markersize=5)
            layers = range(1, len(row["norms"][name]) + 1)
            lengths.plot(layers, row["norms"][name], marker + "-", color=COLORS[role], label=name)
        accuracy.set_yticks(range(len(RULES)), list(RULES))
        accuracy.axvline(100 / row["classes"], color=COLORS["muted"], linestyle=":", linewidth=1)
        accuracy.set_xlim(0, 100)
        lengths.set(yscale="log", xticks=list(layers))
        lengths.legend(frameon=False, fontsize="small")
        label(accuracy, "test accuracy (%), dotted: chance", "", task)
        label(lengths, "layer", "length of the gradient of W", "untrained")
        sizes = "-".join(str(size) for size in row["sizes"])
        _draw_speed(wide[f"speed {n}"], row, f"{sizes}, T = {row['steps']}")
    _draw_speed(wide["large"], here["SHD's size"], "700-128-128-128-20, T = 250")
    return figure


def _draw_speed(ax: Axes, times: dict[str, dict[str, list[float]]], title: str) -> None:
    for what, height, alpha in (("backward", 0.2, 0.9), ("forward", -0.2, 0.35)):
        for i, (name, (median, low, high)) in enumerate(times[what].items()):
            role, y = SERIES[[*RULES].index(name.partition(",")[0])][0], i + height
            ax.barh(y, median, 0.36, xerr=[[median - low], [high - median]], color=COLORS[role], alpha=alpha)
            ax.annotate(f"{median:.1f} {what}", (high, y), (4, -3), textcoords="offset points", fontsize="x-small")
    ax.set_yticks(range(len(times["backward"])), list(times["backward"]))
    ax.axvline(1, color=COLORS["muted"], linewidth=1)
    ax.set_xlim(0, 1.35 * max(v[2] for what in ("forward", "backward") for v in times[what].values()))
    label(ax, f"times as fast as BPTT, {BATCH} samples", "", title)


def measured(problem: Problem, epochs: int, runs: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    rate, train = OPTIMIZERS["Adam"][1], problem.samples.train
    x = problem.inputs(train.x[:BATCH], torch.Generator().manual_seed(1))
    times = timed(problem.network(0), x, train.y[:BATCH], rounds)
    return {
        "classes": problem.samples.classes,
        "steps": problem.steps,
        "sizes": problem.sizes,
        "accuracy": {
            name: [learn(problem, name, SCALE, "Adam", rate, epochs, seed)[0] for seed in range(runs)] for name in RULES
        },
        "norms": {name: at_start(problem, name, SCALE, 0) for name in RULES},
        "backward": faster(times, "backward"),
        "forward": faster(times, "forward"),
        "milliseconds of BPTT": {what: statistics.median(times["BPTT"][what]) for what in ("forward", "backward")},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    problems = {"digits": digits(datasets.digits(), args.quick)}
    samples, name = data("shd", args.data, spoken)
    problems[name] = words(samples, args.quick) if name == "spoken" else heidelberg(samples, args.quick)
    epochs = dict.fromkeys(problems, 1) if args.quick else {"digits": 15, name: 30}
    runs, rounds = (1, 1) if args.quick else (3, 15)
    large = as_in_the_paper(args.quick)
    here = {
        "SHD's size": {what: faster(large, what) for what in ("backward", "forward")},
        "tasks": {name: measured(problem, epochs[name], runs, rounds) for name, problem in problems.items()},
        "fastest": "kernels" if kernels.ready() else "tensors",
    }
    paper = {
        "validation accuracy (%), EXODUS and SLAYER": {
            "DVS Gesture, 5 layers": [92.8, 87.8], "SHD": [78.01, 70.58], "SSC": [55.41, 40.1]
        },
        "backward pass, times as fast as BPTT, mean of three data sets": PAPER,
        "device": "GTX 1080 Ti, CUDA; BPTT as plain PyTorch",
    }  # fmt: skip
    settings = {
        "SHD's size": "700-128-128-128-20, 250 steps, random spikes with probability 0.03, for the times alone",
        "neuron": "integrate and fire, theta 1, reset by subtraction", "scale": SCALE, "batch": BATCH,
        "loss": "cross-entropy of spike counts", "optimizer": "Adam", "rate": OPTIMIZERS["Adam"][1], "epochs": epochs,
        "seeds": runs, "clock": "time of the processor, one thread; median and quartiles of rounds", "rounds": rounds,
    }  # fmt: skip
    save(args.out, "exodus_table1", draw(here), {"paper": paper, "here": here, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
