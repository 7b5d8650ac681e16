"""Sparse spiking gradient descent, Fig. 5: how narrow may B_th be, and what a shallow slope makes of that.

Perez-Nieves & Goodman 2021, Sec. 3.5. Accuracy, loss, activity, speed and memory over B_th. The paper's axis is its
code's: 0.95 there is B_th = 1 - 0.95 = 0.05, which is |U - theta| < B_th here. The paper's slope is steep, 100; with a
shallow one, 5, the same B_th cuts away more of the gradient. That price the paper does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sparse_fig3 as fig3
import sparse_fig4 as fig4
import torch
from common import COLORS, arguments, canvas, label, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snnlearn import kernels

STEEP, MIDDLE, SHALLOW = fig3.STEEPNESS, 25.0, 5.0
WHOLE = fig3.WHOLE
BANDS = (0.005, 0.02, 0.05, 0.2, 0.5)
DEFAULT, EXTREME = 0.2, 0.05
"""The paper's settings: b_th = 0.8, its code's default, and 0.95."""


def name_of(within: float) -> str:
    """As it is written in the results."""
    return "whole" if within == WHOLE else f"{within:g}"


def learning(problem: fig3.Problem, bands: Sequence[float], updates: int | None, seeds: int) -> dict[str, Any]:
    """Accuracies and losses over B_th, for the steep and the shallow slope, and for a readout alone."""
    rows: dict[str, Any] = {}
    nets: dict[float, torch.nn.Sequential] = {}
    for steepness in (STEEP, SHALLOW):
        for within in (*bands, WHOLE):
            found = []
            for seed in range(seeds):
                net, run = fig3.train(problem, within, steepness, seed=seed, updates=updates)
                found.append(run)
                if seed == 0 and within == WHOLE:
                    nets[steepness] = net
            rows.setdefault(f"{steepness:g}", {})[name_of(within)] = _numbers(found)
    alone = [fig3.train(problem, WHOLE, seed=seed, updates=updates, frozen=True)[1] for seed in range(seeds)]
    return {"rows": rows, "alone": _numbers(alone), "nets": nets}


def _numbers(found: Sequence[fig3.Run]) -> dict[str, Any]:
    loss = np.mean([run.loss for run in found], axis=0)
    tenth = max(1, len(loss) // 10)
    return {
        "test (%)": [100 * run.test for run in found],
        "early validation (%)": [100 * run.early for run in found],
        "final loss": float(loss[-tenth:].mean()),
        "activity (%)": (100 * np.mean([run.activity for run in found], axis=(0, 1))).tolist(),
        "loss": loss[:: max(1, len(loss) // 100)].tolist(),
    }


def matches(problem: fig3.Problem, nets: dict[float, torch.nn.Sequential], bands: Sequence[float]) -> dict[str, Any]:
    """Cosines of sparse to whole gradient, (bands, layers), by slope; networks trained with the whole gradient."""
    return {
        f"{steepness:g}": [fig3.cosines(problem, nets.get(steepness, nets[STEEP]), w, steepness) for w in bands]
        for steepness in (STEEP, MIDDLE, SHALLOW)
    }


def costs(second: fig4.Second, bands: Sequence[float], rounds: int, *, apart: bool) -> list[dict[str, Any]]:
    """Activity, speed and memory of the second layer over B_th, on the same spikes."""
    loop = fig4.peak(second, ("loop",), apart=apart)
    found = []
    for within in bands:
        one = replace(second, within=within)
        one.check()
        times, bytes_ = fig4.speed(one, rounds), loop | fig4.peak(one, ("sparse",), apart=apart)
        found.append(
            {
                "activity (%)": [100 * a for a in fig4.activity(one)],
                "backward speed-up": times["sparse"]["backward"],
                "backward speed-up, quartiles": times["sparse"]["backward, quartiles"],
                "backward speed-up of the whole gradient": times["whole"]["backward"],
                "memory saved (%)": fig4.saved(bytes_)["sparse"],
            }
        )
    return found


PAPER = {
    "Fig. 5A": "SHD, two layers of 400: the test accuracy is unchanged up to b_th = 0.95, which is B_th = 0.05",
    "Fig. 5B": "so is the loss",
    "Fig. 5C": "activity falls as B_th narrows; at 0.95 the backward pass is nearly 150 times as fast, 85 % of the "
    "memory is saved (RTX 6000)",
    "not in the paper": "any slope other than its own",
}


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """The paper's statements of Sec. 3.5 and those on shallow slopes, true or false of what was measured."""
    steep, shallow = (here["learning"][f"{k:g}"] for k in (STEEP, SHALLOW))
    bands = [name_of(w) for w in here["bands"]]
    costs_ = dict(zip(bands, here["costs"], strict=True))
    cosine = {k: dict(zip(bands, rows, strict=True)) for k, rows in here["cosine"].items()}
    extreme, default = name_of(EXTREME), name_of(DEFAULT)

    def test(row: dict[str, Any]) -> float:
        return float(np.mean(row["test (%)"]))

    def early(row: dict[str, Any]) -> float:
        return float(np.mean(row["early validation (%)"]))

    speeds = [row["backward speed-up"] for row in here["costs"]]
    shares = [sum(row["activity (%)"]) for row in here["costs"]]
    return {
        "steep slope: test accuracy at B_th = 0.05 within 1.5 points of the whole gradient's": test(steep[extreme])
        > test(steep["whole"]) - 1.5,
        "steep slope: the loss at B_th = 0.05 ends within a tenth of the whole gradient's": abs(
            steep[extreme]["final loss"] / steep["whole"]["final loss"] - 1
        )
        < 0.1,
        "steep slope: at the narrowest B_th the accuracy is lower than the whole gradient's by 3 points or more": test(
            steep[bands[0]]
        )
        <= test(steep["whole"]) - 3,
        "activity falls as B_th narrows": shares == sorted(shares),
        "the backward pass is faster at the narrowest B_th than at the widest": speeds[0] > speeds[-1],
        "at B_th = 0.05 the backward pass is 150 times as fast as the loop": costs_[extreme]["backward speed-up"]
        >= 150,
        "at B_th = 0.05 at least 85 % of the memory is saved": costs_[extreme]["memory saved (%)"] >= 85,
        "steep slope: cosine above 0.99 at B_th = 0.2, both layers": min(cosine[f"{STEEP:g}"][default]) > 0.99,
        "shallow slope: cosine above 0.99 at B_th = 0.2, both layers": min(cosine[f"{SHALLOW:g}"][default]) > 0.99,
        "at B_th = 0.05 the shallow slope's cosine is lower than the steep one's by 0.1 or more, lower layer": cosine[
            f"{SHALLOW:g}"
        ][extreme][0]
        <= cosine[f"{STEEP:g}"][extreme][0] - 0.1,
        "shallow slope: at B_th = 0.05 accuracy after a fifth of the training is 2 points or more below the whole "
        "gradient's": early(shallow[extreme]) <= early(shallow["whole"]) - 2,
        "shallow slope: at B_th = 0.05 test accuracy is 2 points or more below the whole gradient's": test(
            shallow[extreme]
        )
        <= test(shallow["whole"]) - 2,
        "the shallow slope's whole gradient learns at least as well as the steep one's": test(shallow["whole"])
        >= test(steep["whole"]) - 0.5,
        "even at B_th = 0.05 the shallow slope is at least as good as the steep one's whole gradient": test(
            shallow[extreme]
        )
        >= test(steep["whole"]),
        "every B_th does better than the readout alone": all(
            test(row) > test(here["readout alone"]) for k in (steep, shallow) for row in k.values()
        ),
    }


# The picture.

STYLE = {
    STEEP: ("membrane", "o", "steep, 100"),
    MIDDLE: ("current", "^", "25"),
    SHALLOW: ("threshold", "s", "shallow, 5"),
}


def over_bands(ax: Axes, bands: Sequence[float], whole: bool = False) -> None:
    """The axis of B_th, with the paper's two settings."""
    ax.set_xscale("log")
    ticks = {w: f"{w:g}" for w in bands} | ({at_whole(bands): "whole"} if whole else {})
    ax.set_xticks(list(ticks), list(ticks.values()), fontsize="small")
    ax.minorticks_off()
    for w in (DEFAULT, EXTREME):
        ax.axvline(w, color=COLORS["muted"], linewidth=0.8, linestyle=":")


def at_whole(bands: Sequence[float]) -> float:
    """Where the gradient without a B_th is drawn."""
    return 2.5 * bands[-1]


def draw_accuracy(ax: Axes, here: dict[str, Any], bands: Sequence[float]) -> None:
    """Fig. 5A, for both slopes."""
    x = [*bands, at_whole(bands)]
    for steepness in (STEEP, SHALLOW):
        role, marker, name = STYLE[steepness]
        rows = list(here["learning"][f"{steepness:g}"].values())
        test = [row["test (%)"] for row in rows]
        ax.plot(x, np.mean(test, 1), marker + "-", color=COLORS[role], markersize=5, label=f"{name}: test, at the end")
        for at, run in zip(x, test, strict=True):
            ax.plot([at] * len(run), run, ".", color=COLORS[role], markersize=3, alpha=0.6)
        early = [np.mean(row["early validation (%)"]) for row in rows]
        ax.plot(
            x, early, marker + ":", color=COLORS[role], markersize=4, markerfacecolor="white",
            label=f"{name}: validation, after 1/5",
        )  # fmt: skip
    alone = np.mean(here["readout alone"]["test (%)"])
    ax.axhline(alone, color=COLORS["muted"], linestyle="--", linewidth=1, label="readout alone: test")
    label(ax, "B_th (membrane units, threshold 1)", "accuracy (%)", "A  accuracy, by steepness of the slope")
    over_bands(ax, bands, whole=True)
    ax.legend(frameon=False, fontsize="x-small", loc="lower right")


def draw_loss(ax: Axes, here: dict[str, Any], updates: int) -> None:
    """Fig. 5B."""
    shown = here["learning"][f"{STEEP:g}"]
    for i, (name, row) in enumerate(shown.items()):
        curve = row["loss"]
        x = np.linspace(0, updates, len(curve))
        line = fig3.smooth(curve, 5)
        color = COLORS["muted"] if name == "whole" else plot_color(i / len(shown))
        ax.plot(x[: len(line)], line, "--" if name == "whole" else "-", color=color, label=name, linewidth=1.3)
    label(ax, "updates", "training loss (nats)", f"B  loss, steepness {STEEP:g}")
    ax.legend(frameon=False, fontsize="x-small", title="B_th", title_fontsize="x-small", ncols=2)


def plot_color(share: float) -> Any:
    """Of a scale that colour-blind readers can follow."""
    from matplotlib import colormaps

    return colormaps["cividis"](share)


def draw_costs(axes: Sequence[Axes], here: dict[str, Any], bands: Sequence[float]) -> None:
    """Fig. 5C: activity; speed-up and memory."""
    rows = here["costs"]
    for layer, style in enumerate(("o-", "s--")):
        y = [row["activity (%)"][layer] for row in rows]
        axes[0].plot(bands, y, style, color=COLORS["membrane"], markersize=5, label=f"activity of layer {layer + 1}")
    axes[0].set_yscale("log")
    label(axes[0], "B_th (membrane units)", "neurons within B_th (%)", "C  activity")
    axes[1].plot(
        bands, [row["backward speed-up"] for row in rows], "o-", color=COLORS["surrogate"], markersize=5, label="sparse"
    )
    whole = np.median([row["backward speed-up of the whole gradient"] for row in rows])
    axes[1].axhline(whole, color=COLORS["membrane"], linestyle="--", linewidth=1, label="whole gradient, by events")
    axes[1].plot([], [], "^:", color=COLORS["current"], markersize=5, label="memory saved (right axis)")
    axes[1].set_ylim(0, 1.2 * max(row["backward speed-up"] for row in rows))
    label(axes[1], "B_th (membrane units)", "backward speed-up (times)", "C  speed and memory, layer 2")
    right = axes[1].twinx()
    right.plot(bands, [row["memory saved (%)"] for row in rows], "^:", color=COLORS["current"], markersize=5)
    right.set(ylim=(0, 109), ylabel="peak memory saved (%)")
    right.spines["top"].set_visible(False)
    for ax in axes:
        over_bands(ax, bands)
        ax.legend(frameon=False, fontsize="x-small")


def draw_cosine(ax: Axes, here: dict[str, Any], bands: Sequence[float]) -> None:
    """The direction that is lost, by slope and layer."""
    for steepness, (role, marker, name) in STYLE.items():
        rows = np.array(here["cosine"][f"{steepness:g}"])
        for layer, style in enumerate(("-", ":")):
            text = f"{name}" if layer == 0 else None
            ax.plot(bands, rows[:, layer], marker + style, color=COLORS[role], markersize=5, label=text)
    ax.plot([], [], "-", color=COLORS["muted"], label="layer 1")
    ax.plot([], [], ":", color=COLORS["muted"], label="layer 2")
    over_bands(ax, bands)
    ax.set_ylim(0, 1.03)
    label(ax, "B_th (membrane units)", "cosine of sparse to whole ∂L/∂W", "D  the price at shallow slopes (ours)")
    ax.legend(frameon=False, fontsize="x-small", loc="lower right", ncols=2)


def draw(here: dict[str, Any], updates: int) -> Figure:
    """Five panels."""
    figure, bands = canvas(10.4, 6.2), here["bands"]
    parts = figure.add_gridspec(2, 1)
    upper, lower = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    left, right = upper.subplots(1, 2, width_ratios=(1.5, 1))
    draw_accuracy(left, here, bands)
    draw_loss(right, here, updates)
    activity, speed, cosine = lower.subplots(1, 3)
    draw_costs((activity, speed), here, bands)
    draw_cosine(cosine, here, bands)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, draw, write."""
    args = arguments(__doc__, argv)
    fig3.quiet()
    kernels.ready(kernels.WORTH)
    problem = fig3.pictures(args.data) if args.quick else fig3.words(args.data)
    bands, updates, seeds, rounds = ((0.05, 0.2), 8, 1, 2) if args.quick else (BANDS, None, 3, 7)
    found = learning(problem, bands, updates, seeds)
    second = fig4.data_set(problem, found["nets"][STEEP])
    here = {
        "data": problem.name,
        "bands": list(bands),
        "learning": found["rows"],
        "readout alone": found["alone"],
        "costs": costs(second, bands, rounds, apart=not args.quick),
        "cosine": matches(problem, found["nets"], bands),
    }
    settings = {
        "data": {problem.name: problem.described},
        "network": f"inputs-{fig3.HIDDEN}-{fig3.HIDDEN}-classes, as sparse_fig3; the paper has 400",
        "training": f"Adam {fig3.RATE:g}, cosine, {updates or problem.updates} updates of {fig3.BATCH} samples",
        "seeds": seeds,
        "slopes": f"1 / (1 + k |U - theta|)**2 with k = {STEEP:g}, {MIDDLE:g} and {SHALLOW:g}; peak 1",
        "speed and memory": f"second layer against the loop as in sparse_fig4, {fig3.BATCH} samples, {rounds} rounds, "
        f"on the network trained with the whole gradient at k = {STEEP:g}",
        "cosine": f"networks trained with the whole gradient, {fig3.BATCH} validation samples, seed 0; k = {MIDDLE:g} "
        f"on the network of k = {STEEP:g}",
        "kernels": kernels.status()["cpu kernels"],
    }
    save(
        args.out,
        "sparse_fig5",
        draw(here, updates or problem.updates),
        {"paper": PAPER, "here": here, "settings": settings, "claims": claims},
    )


if __name__ == "__main__":
    main()
