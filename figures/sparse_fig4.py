"""Sparse spiking gradient descent, Fig. 4: how much faster the backward pass gets, and how much memory it saves.

Perez-Nieves & Goodman 2021, Sec. 3.3. Measured as there: forward and backward of the second hidden layer, which owes
gradients to its weights and to the layer below; over data sets and over the number of neurons. The baseline is the loop
over time that autograd differentiates. Between it and the sparse gradient stands the whole gradient, computed by
events: what it gains already is no merit of the sparse gradient. The paper measured on a GPU, this is a CPU.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sparse_fig3 as fig3
import torch
from common import COLORS, arguments, canvas, label, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from snnlearn import kernels
from snnlearn.bench import child, memory
from snnlearn.bench.contenders import NARROW, Outcome, StepProblem, agree, event_step, naive_step, on_grid
from snnlearn.bench.memory import growth
from snnlearn.bench.naive import lif_loop
from snnlearn.bench.timing import in_turn, ratio
from snnlearn.eventlayers import LinearLIF
from snnlearn.neurons import Neuron
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes
from snnlearn.surrogate import FastSigmoid

WAYS = ("loop", "whole", "sparse")
"""The loop; the whole gradient by events; the sparse gradient by events."""
LOOPS = 2
"""Processes in which the loop's memory is measured, which differs from one to the next by as much as a factor of 2."""


@dataclass(frozen=True)
class Second:
    """The second hidden layer and what leads to it, in numpy, which a process of its own can be sent.

    Args:
        x: input spikes as bits (T, B, words).
        weights: of both hidden layers, multiples of a power of two, so that every way adds up the same currents.
        beta: decay of the membranes.
        steepness: of the surrogate, 1 / (1 + steepness |x|)**2.
        within: B_th.
    """

    x: np.ndarray
    weights: tuple[np.ndarray, np.ndarray]
    beta: float
    steepness: float
    within: float

    @classmethod
    def make(cls, x: Spikes, weights: Sequence[Tensor], beta: float, steepness: float, within: float) -> Second:
        """From tensors."""
        lower, upper = (on_grid(W.detach(), 2.0**-9).numpy() for W in weights[:2])
        return cls(x.bits.numpy(), (lower, upper), beta, steepness, within)

    @property
    def size(self) -> tuple[int, int, int]:
        """T, B, N."""
        return self.x.shape[0], self.x.shape[1], len(self.weights[1])

    def part(self) -> Second:
        """A little of it, to set up what a first use loads."""
        return replace(self, x=np.ascontiguousarray(self.x[:40, :2]))

    def spikes(self) -> Spikes:
        """The input."""
        return Spikes(torch.from_numpy(self.x), self.weights[0].shape[1])

    def layers(self, way: str) -> list[LinearLIF]:
        """Both hidden layers of "whole" or "sparse", after a first use on a few steps."""
        surrogate, made = FastSigmoid.from_steepness(self.steepness), []
        for w in map(torch.from_numpy, self.weights):
            layer = LinearLIF(
                w.shape[1],
                w.shape[0],
                Neuron(beta=self.beta),
                surrogate=Near(surrogate, self.within) if way == "sparse" else surrogate,
                bias=False,
            )
            with torch.no_grad():
                layer.weight.copy_(w)
            made.append(layer)
        made[1](made[0](Spikes(self.spikes().bits[:40, :2].contiguous(), made[0].inputs)))
        return made

    def passes(self, way: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Forward and backward pass of the second layer; each backward pass needs a forward one before it."""
        errors = torch.randn(math.prod(self.size), generator=torch.Generator().manual_seed(0))
        box: list[Any] = []
        if way == "loop":
            s, W = self.below(), torch.from_numpy(self.weights[1]).requires_grad_()
            s.requires_grad_()
            e = errors.view(self.size)
            return (
                lambda: box.append(lif_loop(functional.linear(s, W), self.beta, self.steepness)),
                lambda: torch.autograd.grad(box.pop(), (W, s), e),
            )
        lower, upper = self.layers(way)
        below = lower(self.spikes())
        assert isinstance(below, Spikes)
        assert below.carrier is not None
        wanted = (upper.weight, below.carrier)

        def backward() -> Any:
            carrier = box.pop().carrier
            return torch.autograd.grad(carrier, wanted, errors[: carrier.numel()].view_as(carrier))

        return lambda: box.append(upper(below)), backward

    def below(self) -> Tensor:
        """Spikes of the lower layer, by the loop."""
        with torch.no_grad():
            a = functional.linear(self.spikes().dense(), torch.from_numpy(self.weights[0]))
            return lif_loop(a, self.beta, self.steepness)

    def check(self) -> float:
        """See that all ways fire alike, and that their weights' gradients are what they should be.

        Returns:
            The cosine of the sparse weight gradient to the whole one.

        Raises:
            Disagreement: says where they differ.
        """
        e = torch.randn(self.size, generator=torch.Generator().manual_seed(0))
        wanted, s = {}, self.below()
        for way, within in (("whole", math.inf), ("sparse", self.within)):
            W = torch.from_numpy(self.weights[1]).requires_grad_()
            out = lif_loop(functional.linear(s, W), self.beta, self.steepness, within=within)
            wanted[way] = Outcome((out.detach(),), torch.autograd.grad(out, W, e))
            lower, upper = self.layers(way)
            found = upper(lower(self.spikes())).dense()
            agree(way, Outcome((found.detach(),), torch.autograd.grad(found, upper.weight, e)), wanted[way])
        whole, sparse = (wanted[way].gradients[0].flatten() for way in WAYS[1:])
        return functional.cosine_similarity(whole, sparse, dim=0).item()


def seconds(second: Second, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Processor time of both passes, by way and pass; every round has each way once."""
    steps: dict[str, Callable[[], object]] = {}
    for way in WAYS:
        steps[f"{way} forward"], steps[f"{way} backward"] = second.passes(way)
    in_turn(steps, 1)  # what is set up by a first use
    found = in_turn(steps, rounds)
    return {way: {pass_: found[f"{way} {pass_}"] for pass_ in ("forward", "backward")} for way in WAYS}


def speed(second: Second, rounds: int) -> dict[str, Any]:
    """How many times as fast as the loop: median of the rounds, with quartiles; backward, and both passes together."""
    found = seconds(second, rounds)
    numbers: dict[str, Any] = {}
    for way in WAYS[1:]:
        both = {w: np.add(found[w]["forward"], found[w]["backward"]).tolist() for w in ("loop", way)}
        backward = ratio(found["loop"]["backward"], found[way]["backward"])
        overall = ratio(both["loop"], both[way])
        numbers[way] = {
            "backward": backward.median,
            "backward, quartiles": [backward.low, backward.high],
            "overall": overall.median,
            "overall, quartiles": [overall.low, overall.high],
            "backward share of the loop's": 1 / backward.median,
        }
    return numbers


def taken(second: Second, way: str) -> int:
    """Bytes by which both passes of the second layer raise the peak of this process; see `snnlearn.bench.memory`."""
    torch.set_num_threads(1)
    fig3.quiet()
    kernels.ready(kernels.WORTH)

    def step(passes: tuple[Callable[[], Any], Callable[[], Any]]) -> Any:
        passes[0]()
        return passes[1]()

    step(second.part().passes(way))
    ready = second.passes(way)
    return growth(lambda: step(ready))


def peak(second: Second, ways: Sequence[str] = WAYS, *, apart: bool = True) -> dict[str, int]:
    """`taken` of each way, each in a process of its own unless time is short; the least of `LOOPS` for the loop."""
    found = {}
    for way in ways:
        if not apart:
            found[way] = 1 + taken(second, way)
            continue
        context, found[way] = multiprocessing.get_context("spawn"), 2**62
        for _ in range(LOOPS if way == "loop" else 1):
            with context.Pool(1) as pool:
                found[way] = min(found[way], pool.apply(taken, (second, way)))
    return found


def saved(found: dict[str, int]) -> dict[str, float]:
    """Eq. 14: percent of the loop's memory."""
    return {way: 100 * (1 - found[way] / found["loop"]) for way in found if way != "loop"}


def activity(second: Second) -> list[float]:
    """The share within B_th in both layers."""
    below, found = second.spikes().dense(), []
    for w in second.weights:
        trace = Neuron(beta=second.beta).simulate(functional.linear(below, torch.from_numpy(w)))
        found.append(float(((trace.U - 1).abs() < second.within).float().mean()))
        below = trace.s
    return found


def data_set(problem: fig3.Problem, net: torch.nn.Sequential, batch: int = fig3.BATCH) -> Second:
    """The second layer of a network on validation samples."""
    x, _ = fig3.few(problem, batch)
    weights = [p for p in net.parameters()]
    return Second.make(x, weights, problem.beta, fig3.STEEPNESS, fig3.WITHIN)


def over_data(problem: fig3.Problem, rounds: int, updates: int | None, *, apart: bool = True) -> dict[str, Any]:
    """Fig. 4A and B: one data set, N = 200; speed before, during and after a training."""
    nets: dict[int, torch.nn.Sequential] = {}

    def look(done: int, net: torch.nn.Sequential) -> None:
        twin = fig3.network(problem, fig3.WITHIN)
        twin.load_state_dict(net.state_dict())
        nets[done] = twin

    fig3.train(problem, fig3.WITHIN, seed=0, updates=updates, look=look)
    chosen = {done: nets[done] for done in sorted(nets)[::3]}
    during = {done: speed(data_set(problem, net), rounds) for done, net in chosen.items()}
    last = data_set(problem, chosen[max(chosen)])
    cosine, bytes_ = last.check(), peak(last, apart=apart)
    return {
        "speed-up": during[max(during)],
        "backward share of the loop's, by updates": {
            way: {done: one[way]["backward share of the loop's"] for done, one in during.items()} for way in WAYS[1:]
        },
        "memory saved (%)": saved(bytes_),
        "MB": {way: b / 1e6 for way, b in bytes_.items()},
        "activity (%)": [100 * a for a in activity(last)],
        "cosine": cosine,
    }


def over_neurons(shape: tuple[int, int], N: int, rounds: int, *, apart: bool = True) -> dict[str, Any]:
    """Fig. 4C at one N: the second layer, and the whole step of three layers, on drawn spikes of 700 inputs."""
    T, B = shape
    problem = StepProblem.make(T, B, N, torch.device("cpu"), sparse=True)
    x = Spikes.pack(problem.x)
    second = Second.make(x, problem.weights, math.exp(-1 / 20), NARROW, problem.within)
    cosine, bytes_ = second.check(), peak(second, apart=apart)
    whole = replace(problem, within=math.inf)
    steps = {
        "loop": naive_step(whole).step,
        "whole": event_step(whole).step,
        "sparse": event_step(problem).step,
    }
    in_turn(steps, 1)
    times = in_turn(steps, rounds)
    step_bytes = {}
    for way, contender in zip(WAYS, ("naive", "exact", "sparse"), strict=True):
        job: dict[str, Any] = {"contender": contender, "T": T, "B": B, "N": N}
        tries = range(LOOPS if way == "loop" else 1)
        found = [memory.in_child({"what": "step"} | job) for _ in tries] if apart else [1 + child.step(**job)]
        step_bytes[way] = min(found)
    return {
        "B_th": problem.within,
        "activity (%)": [100 * a for a in activity(second)],
        "cosine": cosine,
        "second layer": {
            "speed-up": speed(second, rounds),
            "memory saved (%)": saved(bytes_),
            "MB": {way: b / 1e6 for way, b in bytes_.items()},
        },
        "whole step": {
            "speed-up": {way: ratio(times["loop"], times[way]).median for way in WAYS[1:]},
            "memory saved (%)": saved(step_bytes),
            "MB": {way: b / 1e6 for way, b in step_bytes.items()},
        },
    }


PAPER = {
    "Fig. 4A": "second layer of 200 neurons: backward 40 times as fast, 35 % of the memory saved (RTX 6000); up to 70 "
    "times on N-MNIST and SHD on a GTX 1060 or 1080 Ti",
    "Fig. 4B": "backward pass about 640 ms and 17 ms, nearly constant during training",
    "Fig. 4C": "backward speed-up and memory saved constant up to 1000 neurons, the overall speed-up increases",
}


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """The paper's statements of Sec. 3.3, true or false of what was measured."""
    found, sweep = here["data"].values(), list(here["neurons"].values())
    layer = [row["second layer"] for row in sweep]
    backward = [row["speed-up"]["sparse"]["backward"] for row in layer]
    overall = [row["speed-up"]["sparse"]["overall"] for row in layer]
    memory_ = [row["memory saved (%)"]["sparse"] for row in layer]
    during = [list(d["backward share of the loop's, by updates"]["sparse"].values()) for d in found]
    return {
        "backward pass of 200 neurons 40 times as fast as the loop, on every data set": all(
            d["speed-up"]["sparse"]["backward"] >= 40 for d in found
        ),
        "backward pass at least 5 times as fast as the loop, on every data set": all(
            d["speed-up"]["sparse"]["backward"] >= 5 for d in found
        ),
        "at least 35 % of the memory saved, on every data set": all(
            d["memory saved (%)"]["sparse"] >= 35 for d in found
        ),
        "backward time varies by less than a half during training": all(max(d) < 1.5 * min(d) for d in during),
        "backward speed-up constant over N, within a factor of 1.5": max(backward) < 1.5 * min(backward),
        "memory saved constant over N, within 10 points": max(memory_) - min(memory_) < 10,
        "overall speed-up larger at the largest N than at the smallest": overall[-1] > overall[0],
        "the sparse gradient is at least 2 times as fast backward as the whole one by events, at every N": all(
            row["speed-up"]["sparse"]["backward"] >= 2 * row["speed-up"]["whole"]["backward"] for row in layer
        ),
    }


# The picture.

STYLE = {"whole": ("membrane", "s", "whole gradient, by events"), "sparse": ("surrogate", "o", "sparse gradient")}


def bars(ax: Axes, found: dict[str, Any], value: Callable[[dict[str, Any], str], float], text: str) -> None:
    """A group for each data set, a bar for each way."""
    for i, (way, (role, _, name)) in enumerate(STYLE.items()):
        for j, one in enumerate(found.values()):
            height = value(one, way)
            bar = ax.bar(j + 0.38 * (i - 0.5), height, 0.35, color=COLORS[role], label=name if j == 0 else None)
            ax.bar_label(bar, fmt=text, fontsize="small")
    ax.set_xticks(range(len(found)), list(found))
    ax.set_ylim(0, 1.25 * max(value(one, way) for one in found.values() for way in STYLE))


def lines(ax: Axes, x: Sequence[float], rows: Sequence[Any], value: Callable[[Any, str], float], style: str) -> None:
    """A line for each way."""
    for way, (role, marker, _) in STYLE.items():
        ax.plot(x, [value(row, way) for row in rows], marker + style, color=COLORS[role], markersize=5)


def draw(here: dict[str, Any]) -> Figure:
    """Six panels: data sets above, numbers of neurons below."""
    figure = canvas(10.5, 6.4)
    axes = figure.subplots(2, 3)
    found = here["data"]
    bars(axes[0, 0], found, lambda one, way: one["speed-up"][way]["backward"], "%.1f")
    label(axes[0, 0], "", "backward speed-up over the loop (times)", "A  second layer, N = 200")
    axes[0, 0].legend(frameon=False, fontsize="x-small", loc="upper left")
    bars(axes[0, 1], found, lambda one, way: one["memory saved (%)"][way], "%.0f")
    label(axes[0, 1], "", "peak memory saved (%)", "A  second layer, N = 200")
    for (name, one), shape in zip(found.items(), ("-", ":"), strict=False):
        for way, (role, marker, _) in STYLE.items():
            times = one["backward share of the loop's, by updates"][way]
            axes[0, 2].plot(
                [int(done) for done in times], [100 * v for v in times.values()], marker + shape, color=COLORS[role],
                markersize=5, label=f"{name}, {way}",
            )  # fmt: skip
    axes[0, 2].set_ylim(0)
    label(axes[0, 2], "updates", "backward time (% of the loop's)", "B  during training")
    axes[0, 2].legend(frameon=False, fontsize="x-small")
    x, rows = [int(N) for N in here["neurons"]], list(here["neurons"].values())
    layer = [row["second layer"] for row in rows]
    step = [row["whole step"] for row in rows]
    lines(axes[1, 0], x, layer, lambda row, way: row["speed-up"][way]["backward"], "-")
    label(axes[1, 0], "neurons N of each hidden layer", "backward speed-up (times)", "C  second layer, backward")
    lines(axes[1, 1], x, layer, lambda row, way: row["speed-up"][way]["overall"], "-")
    lines(axes[1, 1], x, step, lambda row, way: row["speed-up"][way], ":")
    label(axes[1, 1], "neurons N of each hidden layer", "speed-up (times)", "C  forward and backward")
    lines(axes[1, 2], x, layer, lambda row, way: row["memory saved (%)"][way], "-")
    lines(axes[1, 2], x, step, lambda row, way: row["memory saved (%)"][way], ":")
    axes[1, 2].set_ylim(top=101)
    label(axes[1, 2], "neurons N of each hidden layer", "peak memory saved (%)", "C  memory")
    for ax in axes[1, 1:]:
        for style, name in (("-", "second layer"), (":", "whole step, three layers")):
            ax.plot([], [], style, color=COLORS["muted"], label=name)
        ax.legend(frameon=False, fontsize="x-small")
    for ax in axes[1, :2]:
        ax.set_ylim(0)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw, write."""
    args = arguments(__doc__, argv)
    fig3.quiet()
    kernels.ready(kernels.WORTH)
    quick = args.quick
    rounds, updates = (2, 6) if quick else (9, None)
    shape, sizes = ((60, 8), (64,)) if quick else ((200, 32), (200, 400, 700, 1000))
    problems = [fig3.pictures(args.data)] if quick else [fig3.pictures(args.data), fig3.words(args.data)]
    here = {
        "data": {p.name: over_data(p, rounds, updates, apart=not quick) for p in problems},
        "neurons": {N: over_neurons(shape, N, rounds, apart=not quick) for N in sizes},
    }
    settings = {
        "baseline": "loop over time, spikes by autograd.Function, torch.nn.functional.linear before it; one thread, "
        "processor time, ways in turn, medians of the rounds",
        "rounds": rounds,
        "data": {p.name: p.described for p in problems},
        "A and B": f"N = {fig3.HIDDEN}, {fig3.BATCH} validation samples, network trained as in sparse_fig3 at "
        f"B_th = {fig3.WITHIN}, slope 1 / (1 + {fig3.STEEPNESS:g} |x|)**2, reset differentiated",
        "C": f"T = {shape[0]}, B = {shape[1]}, 700 inputs of density 0.02, hidden neurons fire at 0.025, B_th so that "
        f"2 % are within, slope 1 / (1 + {NARROW:g} |x|)**2; as `snnlearn bench`",
        "memory": "growth of the peak of resident memory over what was there before both passes, a process for each; "
        f"for the loop the least of {LOOPS} processes",
        "kernels": kernels.status()["cpu kernels"],
    }
    save(
        args.out,
        "sparse_fig4",
        draw(here),
        {"paper": PAPER, "here": here, "settings": settings, "claims": claims},
    )


if __name__ == "__main__":
    main()
