"""Tutorial 05: the panels that look at a training that has been run (`superspike_training`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes

from snnlearn.lessons.common import heading
from snnlearn.lessons.superspike_drawing import key, set_ticks, ticks, whole
from snnlearn.lessons.superspike_numbers import convolved, error_filter, kernel
from snnlearn.lessons.superspike_training import STEPS, THETA, Fit, Sweep
from snnlearn.plots import COLORS, label, raster, threshold_line, update_raster
from snnlearn.surrogate import FastSigmoid
from snnlearn.widgets import Artists, LivePanel, coarse_limits

FLOOR = 0.01  # a loss of exactly 0 is drawn here, on a logarithmic axis


def _new_loss(ax: Axes, losses: np.ndarray) -> dict[str, Any]:
    """A learning curve with a dot on it."""
    label(ax, "epoch", "distance")
    ax.set_yscale("log")
    ax.plot(losses.clip(FLOOR), color=COLORS["loss"], linewidth=1)
    ax.set(xlim=(-0.02 * len(losses), len(losses)), ylim=(max(FLOOR, losses.min()) / 2, 2 * losses.max()))
    return {"dot": ax.plot([], "o", color=COLORS["spike"])[0], "loss": heading(ax)}


def _move_loss(made: dict[str, Any], losses: np.ndarray, epoch: int) -> None:
    made["dot"].set_data([epoch], [max(losses[epoch], FLOOR)])
    made["loss"].set_text(f"epoch {epoch}: distance {losses[epoch]:.2f}")


# Panel D: one neuron learns.


def _new_neuron(axes: Sequence[Axes], fit: Fit) -> dict[str, Any]:
    membrane, history, loss = axes
    label(membrane, "", "membrane U")
    label(history, "time (ms)", "epoch")
    key(membrane, (0.55, "output spikes", "spike"), (0.72, "target spikes", "reference"))
    epochs, times = np.nonzero(fit.spikes[:, 0, :, 0])
    wanted = np.flatnonzero(fit.target[:, 0])
    for ax in (membrane, history):
        ax.set_xlim(0, len(fit.target))
    membrane.set_ylim(*(lim + extra for lim, extra in zip(_membrane_limits(fit), (0, 0.5), strict=True)))
    history.vlines(wanted, 0, len(fit.losses), color=COLORS["reference"], linewidth=4, alpha=0.6)
    history.plot(times, epochs, ".", color=COLORS["spike"], markersize=2)
    history.set_ylim(len(fit.losses), 0)
    made = _new_loss(loss, fit.losses[:, 0])
    threshold_line(membrane)
    return made | {
        "U": membrane.plot([], color=COLORS["membrane"])[0],
        "ticks": [ticks(membrane, "reference", markeredgewidth=4), ticks(membrane, "spike")],
        "here": history.axhline(0, color=COLORS["threshold"], linewidth=1.2),
        "heading": heading(membrane),
    }


def _membrane_limits(fit: Fit) -> tuple[float, float]:
    """Of all epochs but the wildest."""
    low, high = np.percentile(fit.membranes, [0.5, 99.9])
    return coarse_limits(float(low), max(1.0, float(high)), 0.5)


def neuron_panel(fit: Fit) -> LivePanel:
    """Panel D, for the first run of a fit with one output."""
    losses, wanted = fit.losses[:, 0], int(fit.target.sum())

    def draw(axes: Sequence[Axes], artists: Artists | None, *, epoch: int) -> Artists:
        made: Any = _new_neuron(axes, fit) if artists is None else artists
        s = fit.spikes[epoch, 0, :, 0]
        made["U"].set_data(np.arange(len(s)), fit.membranes[epoch, 0, :, 0])
        set_ticks(made["ticks"][0], fit.target[:, 0], 0.93)
        set_ticks(made["ticks"][1], s, 0.93)
        made["here"].set_ydata([epoch, epoch])
        made["heading"].set_text(f"{s.sum()} spikes, {wanted} wanted")
        _move_loss(made, losses, epoch)
        return made

    def describe(*, epoch: int) -> str:
        s = np.flatnonzero(fit.spikes[epoch, 0, :, 0])
        return (
            f"Three pictures. The membrane at epoch {epoch} with output spikes at {', '.join(map(str, s)) or 'no'} ms; "
            f"targets at {', '.join(map(str, np.flatnonzero(fit.target[:, 0])))} ms. The output spikes of every epoch "
            f"as dots. The distance over {len(losses)} epochs, from {losses[0]:.1f} to {losses[-1]:.2f}; "
            f"here {losses[epoch]:.2f}."
        )

    chosen = whole("epoch", len(losses) - 1, 0, len(losses) - 1)
    return LivePanel(draw, {"epoch": chosen}, rows=3, figsize=(9, 7), alt=describe, play="epoch")


# Panel E: a layer learns.


def layer_panel(fit: Fit) -> LivePanel:
    """Panel E, for the first run of a fit with several outputs."""
    losses = fit.losses[:, 0]

    def new(axes: Sequence[Axes]) -> dict[str, Any]:
        picture, loss = axes
        label(picture, "time (ms)", "output neuron")
        key(picture, (0.55, "output", "spike"), (0.75, "target", "reference"))
        raster(picture, fit.target, color=COLORS["reference"], linewidths=5)
        out = raster(picture, fit.spikes[0, 0])
        return _new_loss(loss, losses) | {"out": out, "heading": heading(picture)}

    def draw(axes: Sequence[Axes], artists: Artists | None, *, epoch: int) -> Artists:
        made: Any = new(axes) if artists is None else artists
        update_raster(made["out"], fit.spikes[epoch, 0])
        made["heading"].set_text(f"{fit.spikes[epoch, 0].sum()} spikes, {fit.target.sum():.0f} wanted")
        _move_loss(made, losses, epoch)
        return made

    def describe(*, epoch: int) -> str:
        return (
            f"A raster of {fit.target.shape[1]} output neurons over {len(fit.target)} ms at epoch {epoch}: "
            f"{fit.spikes[epoch, 0].sum()} spikes over the {fit.target.sum():.0f} of the target, which reads SNN. "
            f"The distance falls from {losses[0]:.0f} to {losses[-1]:.1f}; here it is {losses[epoch]:.1f}."
        )

    chosen = whole("epoch", len(losses) - 1, 0, len(losses) - 1)
    return LivePanel(draw, {"epoch": chosen}, columns=2, figsize=(9, 3.2), alt=describe, play="epoch")


# Panel F: the width of the surrogate.


def _new_width(axes: Sequence[Axes], sweep: Sweep) -> dict[str, Any]:
    slope, eligible, curves, final = axes
    label(slope, "U − θ", "slope f")
    label(eligible, "time (ms)", "eligibility ε ∗ (f q)")
    label(curves, "epoch", "distance")
    label(final, "surrogate width", "distance at the end")
    slope.set(xlim=(-1, 1), ylim=(0, 1.05), xticks=(-1, -0.5, 0, 0.5, 1))
    eligible.set_yscale("log")
    eligible.set(xlim=(0, STEPS), ylim=(FLOOR, 3 * _eligibility(sweep, -1).max()))
    curves.set_yscale("log")
    curves.set(ylim=(FLOOR / 2, 3 * sweep.losses.max()), xlim=(0, len(sweep.losses)))
    final.set_xscale("log")
    final.set_yscale("log")
    ends = sweep.final.clip(FLOOR)
    final.plot(sweep.settings, ends, ".", color=COLORS["muted"])
    final.plot(sweep.settings, np.median(ends, 1), color=COLORS["loss"])
    final.set_ylim(FLOOR * 5, 3 * ends.max())
    seeds = sweep.losses.shape[2]
    key(final, (0.0, f"dots: {seeds} seeds; ", "muted"), (0.3, "line: their median", "loss"))
    return {
        "f": slope.plot([], color=COLORS["surrogate"], linewidth=2)[0],
        "E": eligible.plot([], color=COLORS["membrane"])[0],
        "runs": [curves.plot([], color=COLORS["muted"], linewidth=0.6)[0] for _ in range(seeds)],
        "median": curves.plot([], color=COLORS["loss"], linewidth=2)[0],
        "dot": final.plot([], "o", color=COLORS["spike"], markersize=8)[0],
        "headings": [heading(ax) for ax in (slope, eligible, curves)],
    }


def _eligibility(sweep: Sweep, i: int) -> np.ndarray:
    """Of the busiest input before training, at the i-th width, (T,)."""
    f = FastSigmoid(width=sweep.settings[i]).slope(_tensor(sweep.first[i] - THETA)).numpy()
    return convolved(kernel(error_filter(), STEPS), f * sweep.q)


def _tensor(x: np.ndarray) -> Any:
    return torch.from_numpy(x.astype(float))


def width_panel(sweep: Sweep) -> LivePanel:
    """Panel F, for what `by_width` found."""
    eligibilities = [_eligibility(sweep, i) for i in range(len(sweep.settings))]
    ends = np.median(sweep.final, 1)

    def draw(axes: Sequence[Axes], artists: Artists | None, *, width: float) -> Artists:
        made: Any = _new_width(axes, sweep) if artists is None else artists
        i = sweep.settings.index(width)
        x = np.linspace(-1, 1, 201)
        made["f"].set_data(x, FastSigmoid(width=width).slope(_tensor(x)).numpy())
        made["E"].set_data(np.arange(STEPS), eligibilities[i].clip(FLOOR / 2))
        for line, run in zip([*made["runs"], made["median"]], _curves(sweep, i), strict=True):
            line.set_data(np.arange(len(run)), run.clip(FLOOR))
        made["dot"].set_data([width], [max(ends[i], FLOOR)])
        texts = (
            f"width {width:g}",
            f"the largest: {eligibilities[i].max():.2f}",
            f"median at the end: {ends[i]:.1f}",
        )
        for name, text in zip(made["headings"], texts, strict=True):
            name.set_text(text)
        return made

    def describe(*, width: float) -> str:
        i = sweep.settings.index(width)
        return (
            f"Four pictures at the surrogate width {width:g}: its slope; the eligibility of one synapse over {STEPS} "
            f"ms, at most {eligibilities[i].max():.2f}; the distance over {len(sweep.losses)} epochs, "
            f"{ends[i]:.0f} at the end in the median; that number against the width, from {ends[0]:.0f} at "
            f"{sweep.settings[0]:g} to {ends[-1]:.0f} at {sweep.settings[-1]:g}."
        )

    slider = ipywidgets.SelectionSlider(
        options=[(f"{w:g}", w) for w in sweep.settings],
        value=sweep.settings[len(sweep.settings) // 3],
        description="surrogate width",
    )
    return LivePanel(draw, {"width": slider}, rows=2, columns=2, figsize=(9, 5.6), alt=describe, play="width")


def _curves(sweep: Sweep, i: int) -> list[np.ndarray]:
    """The learning curve of every seed, and their median."""
    runs = sweep.losses[:, i]
    return [*runs.T, np.median(runs, 1)]


# Plain figures.


def draw_rates(ax: Axes, sweeps: dict[str, Sweep], chance: float) -> None:
    """The distance at the end against the learning rate, a curve for each sweep; ``chance`` is that of silence."""
    looks = ((COLORS["loss"], "-"), (COLORS["loss"], "--"), (COLORS["membrane"], "-"), (COLORS["membrane"], "--"))
    for (name, sweep), (color, line) in zip(sweeps.items(), looks, strict=False):
        ends = np.median(sweep.final, 1).clip(0.1)
        ax.plot(sweep.settings, ends, line, marker="o", markersize=4, color=color, label=name)
    ax.axhline(chance, color=COLORS["muted"], linestyle=":", label="silence")
    ax.set_xscale("log")
    ax.set_yscale("log")
    label(ax, "learning rate", "distance at the end")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")
