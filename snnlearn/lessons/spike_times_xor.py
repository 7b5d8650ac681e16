"""Tutorial 08, temporal XOR: Fig. 6 of the tutorial paper as a panel over training, and how many seeds come through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from snnlearn.lessons import spike_times_numbers as numbers
from snnlearn.lessons import spike_times_training as training
from snnlearn.lessons.common import heading, keys
from snnlearn.lessons.spike_times_training import LABELS as LABELS
from snnlearn.lessons.spike_times_training import PATTERNS as PATTERNS
from snnlearn.lessons.spike_times_training import History
from snnlearn.lessons.spike_times_training import grid_objective as grid_objective
from snnlearn.lessons.spike_times_training import start as start
from snnlearn.lessons.spike_times_training import train_exactly as train_exactly
from snnlearn.lessons.spike_times_training import train_on_grid as train_on_grid
from snnlearn.plots import COLORS, label, threshold_line
from snnlearn.widgets import Artists, LivePanel

HIDDEN_STYLES = (("membrane", "-"), ("current", "--"), ("loss", "-."), ("surrogate", ":"))
CLASS_STYLES = (("membrane", "-"), ("loss", "--"))
CLASS_NAMES = ("same", "different")
END = 40.0  # ms; the loss counts silence as 30 ms, but a spike may come later


def _new_xor(axes: Sequence[Axes]) -> dict[str, Any]:
    made: dict[str, Any] = {"hidden": [], "out": [], "spikes": [], "headings": []}
    for row in range(4):
        left, right = axes[2 * row : 2 * row + 2]
        label(left, "time (ms)" if row == 3 else "", "hidden U")
        label(right, "time (ms)" if row == 3 else "", "output U")
        for ax, styles, name in ((left, HIDDEN_STYLES, "hidden"), (right, CLASS_STYLES, "out")):
            threshold_line(ax)
            made[name].append([ax.plot([], color=COLORS[role], linestyle=line, lw=1.8)[0] for role, line in styles])
            tops = [ax.plot([], "v", color=COLORS[role], markersize=7)[0] for role, _ in styles]
            below = ax.plot([], "^", color=COLORS["spike"], markersize=5)[0]
            made["spikes"].append((below, *tops))
            made["headings"].append(heading(ax))
            ax.set(xlim=(-1, END), ylim=(-1.4, 1.5), yticks=[-1, 0, 1])
            if row < 3:
                ax.tick_params(labelbottom=False)
    keys(axes[1], *((0.62 + 0.17 * i, name, CLASS_STYLES[i][0]) for i, name in enumerate(CLASS_NAMES)), y=0.12)
    return made


def _draw_layer(lines: Any, marks: Any, W: np.ndarray, fed: np.ndarray, fired: np.ndarray) -> None:
    """Membranes up to the first spike, arrows below where inputs come and above where outputs go; times in ms."""
    below, *tops = marks
    heard = fed[np.isfinite(fed)]
    below.set_data(heard, np.full(len(heard), -1.25))
    for line, mark, w, t in zip(lines, tops, W, fired.tolist(), strict=True):
        stop = min(t, END)
        at = np.linspace(0, stop, 80)
        arrived = np.isfinite(fed)
        line.set_data(at, numbers.potential(w[arrived], fed[arrived], at) if arrived.any() else np.zeros(80))
        mark.set_data(*([[t], [1.25]] if t < END else [[], []]))


def draw_xor(axes: Sequence[Axes], artists: Artists | None, *, history: History, seed: int, record: int) -> Artists:
    """Hidden and output membranes for the four patterns, a row each, at one moment of one seed's training."""
    made: Any = _new_xor(axes) if artists is None else artists
    W, V = history.first[record, seed], history.second[record, seed]
    found = training.respond(W, V)
    for row in range(4):
        fed, hidden, out = 1e3 * training.PATTERNS[row].numpy(), 1e3 * found.hidden[row], 1e3 * found.out[row]
        _draw_layer(made["hidden"][row], made["spikes"][2 * row], W, fed, hidden)
        _draw_layer(made["out"][row], made["spikes"][2 * row + 1], V, hidden, out)
        step = f",  step {history.steps[record]},  seed {seed}" if row == 0 else ""
        made["headings"][2 * row].set_text(f"{training.NAMES[row]}{step}")
        made["headings"][2 * row + 1].set_text(verdict(out, int(training.LABELS[row])))
    return made


def verdict(out: np.ndarray, wanted: int) -> str:
    """What two output spike times (ms) say, and whether that is right."""
    first, other = min(out), max(out)
    if not np.isfinite(first):
        return f"no output spike ✘ (wanted: {CLASS_NAMES[wanted]})"
    answer = int(np.argmin(out))
    ahead = "alone" if np.isinf(other) else f"{other - first:.1f} ms ahead"
    right = answer == wanted and other > first
    return f"“{CLASS_NAMES[answer]}” fires first, {ahead} {'✔' if right else '✘'}"


def describe_xor(*, history: History, seed: int, record: int) -> str:
    """The text alternative of panel B."""
    found = training.respond(history.first[record, seed], history.second[record, seed])
    rows = "; ".join(
        f"{name}: {verdict(1e3 * out, int(wanted))}"
        for name, out, wanted in zip(training.NAMES, found.out, training.LABELS, strict=True)
    )
    return (
        "Four rows of two pictures over 40 ms, the membranes of four hidden neurons on the left and of two outputs on "
        f"the right, each up to its first spike. Seed {seed} after {history.steps[record]} steps. {rows}."
    )


def xor_panel(histories: dict[str, History]) -> LivePanel:
    """Panel B, for histories of the same seeds and steps."""
    first = next(iter(histories.values()))
    controls = {
        "trained": ipywidgets.ToggleButtons(options=list(histories), description="trained"),
        "seed": ipywidgets.IntSlider(0, min=0, max=first.loss.shape[1] - 1, description="seed"),
        "record": ipywidgets.SelectionSlider(
            options=[(str(step), i) for i, step in enumerate(first.steps.tolist())],
            value=len(first.steps) - 1,
            description="training step",
        ),
    }

    def draw(axes: Sequence[Axes], artists: Artists | None, *, trained: str, seed: int, record: int) -> Artists:
        return draw_xor(axes, artists, history=histories[trained], seed=seed, record=record)

    def describe(*, trained: str, seed: int, record: int) -> str:
        return describe_xor(history=histories[trained], seed=seed, record=record)

    return LivePanel(draw, controls, rows=4, columns=2, figsize=(9, 7.6), alt=describe, play="record")


def draw_losses(axes: Sequence[Axes], histories: dict[str, History]) -> None:
    """The loss of every seed over training, an axes a history; seeds that do not solve it in another style."""
    for ax, (name, history) in zip(axes, histories.items(), strict=True):
        solved = history.solved[-1]
        for seed, loss in enumerate(history.loss.T):
            style: dict[str, Any] = (
                {"color": COLORS["membrane"], "linewidth": 0.9}
                if solved[seed]
                else {"color": COLORS["threshold"], "linewidth": 1.6, "linestyle": "--"}
            )
            ax.plot(history.steps, loss, **style)
        label(ax, "training step", "cross-entropy", f"{name}: {solved.sum()} of {len(solved)} solved")
        ax.axhline(np.log(2), color=COLORS["muted"], linewidth=0.8)
        ax.text(history.steps[-1], 2.9, "grey: ln 2", ha="right", va="top", size="small")
        ax.set_ylim(0, 3)
