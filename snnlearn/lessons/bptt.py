"""Tutorial 03, training by backpropagation through time: the pictures and the panels.

The numbers come from `snnlearn.lessons.bptt_numbers`. A ``draw_...`` function is what a `LivePanel` calls: at its
first call it makes the artists, later it moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from numpy.typing import ArrayLike

from snnlearn.lessons import bptt_numbers as numbers
from snnlearn.lessons.bptt_numbers import carry_exercise as carry_exercise
from snnlearn.lessons.bptt_numbers import mean_exercise as mean_exercise
from snnlearn.lessons.bptt_numbers import record as record
from snnlearn.lessons.bptt_numbers import step_exercise as step_exercise
from snnlearn.lessons.bptt_numbers import weight_exercise as weight_exercise
from snnlearn.lessons.common import heading, slider
from snnlearn.plots import COLORS, label, raster, threshold_line, update_raster
from snnlearn.plots import show as show
from snnlearn.temporal import Reset
from snnlearn.widgets import Artists, LivePanel, coarse_limits

# The unrolled graph of the case by hand.


def _edge(ax: Axes, start: tuple[float, float], end: tuple[float, float], role: str, bend: float = 0.0) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=12,
            shrinkA=17,
            shrinkB=17,
            color=COLORS[role],
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def _node(ax: Axes, x: float, y: float, text: str, role: str) -> None:
    ax.plot(x, y, "o", markersize=32, color="white", markeredgecolor=COLORS[role], markeredgewidth=1.6)
    ax.text(x, y, text, ha="center", va="center", color=COLORS[role])


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def draw_unrolled(
    ax: Axes,
    x: ArrayLike,
    f: ArrayLike,
    e: ArrayLike,
    lam: ArrayLike,
    kap: ArrayLike,
    *,
    alpha: float,
    beta: float,
    theta: float,
) -> None:
    """The graph of one neuron, unrolled: every arrow carries its local derivative, every node what flowed back to it.

    Args:
        ax: empty axes.
        x, f, e, lam, kap: inputs, slopes, errors, dL/dU and dL/dI, (T,) each.
        alpha, beta, theta: constants of the neuron.
    """
    rows = [np.asarray(v, float).tolist() for v in (x, f, e, lam, kap)]
    for n, (x_n, f_n, e_n, lam_n, kap_n) in enumerate(zip(*rows, strict=True)):
        _edge(ax, (n, 0), (n, 1), "current")
        _edge(ax, (n, 1), (n, 2), "muted")
        _edge(ax, (n, 2), (n, 3), "surrogate")
        _edge(ax, (n, 3), (n, 3.9), "loss")
        left: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": "small"}
        ax.text(n - 0.03, 0.5, f"∂I/∂w = x = {x_n:g}", color=COLORS["current"], **left)
        ax.text(n - 0.03, 1.5, "1", color=COLORS["muted"], **left)
        ax.text(n - 0.03, 2.5, f"f = {f_n:.2g}", color=COLORS["surrogate"], **left)
        ax.text(n - 0.03, 3.5, f"e = {_number(e_n)}", color=COLORS["loss"], **left)
        for y, name, role in ((0, "w", "muted"), (1, f"I[{n}]", "current"), (2, f"U[{n}]", "membrane")):
            _node(ax, n, y, name, role)
        _node(ax, n, 3, f"s[{n}]", "spike")
        found: dict[str, Any] = {"ha": "left", "va": "top", "fontweight": "bold", "fontsize": "small"}
        ax.text(n + 0.08, 1.8, f"λ = {_number(lam_n)}", color=COLORS["membrane"], **found)
        ax.text(n + 0.08, 0.8, f"κ = {_number(kap_n)}", color=COLORS["current"], **found)
        if n + 1 < len(rows[0]):
            above: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": "small"}
            _edge(ax, (n, 1), (n + 1, 1), "current")
            _edge(ax, (n, 2), (n + 1, 2), "membrane")
            _edge(ax, (n, 3), (n + 1, 2), "threshold")
            ax.text(n + 0.5, 1.03, f"α = {alpha:g}", color=COLORS["current"], **above)
            ax.text(n + 0.5, 2.03, f"β = {beta:g}", color=COLORS["membrane"], **above)
            ax.text(
                n + 0.53,
                2.53,
                f"−θ = {_number(-theta)}",
                color=COLORS["threshold"],
                ha="left",
                va="bottom",
                size="small",
            )
    ax.plot([-0.15, len(rows[0]) - 0.85], [3.95, 3.95], color=COLORS["loss"], linewidth=3)
    ax.text(len(rows[0]) / 2 - 0.5, 4.05, "loss L", ha="center", color=COLORS["loss"])
    ax.set(xlim=(-0.5, len(rows[0]) - 0.6), ylim=(-0.4, 4.3))
    ax.set_axis_off()


# Panel A: the backward wave.

SEEN: dict[str, Reset] = {"kept": Reset.KEPT, "detached": Reset.DETACHED, "absent": Reset.IGNORED}
_SCALES = (1, 3, 10, 30, 100)  # one for all that is small: a wave that shrinks is seen to shrink


def signed_limits(values: ArrayLike) -> tuple[float, float]:
    """Limits of an axis with room for the values, in coarse steps; below zero only where the values go there."""
    values = np.asarray(values, float)
    scale = next((s for s in _SCALES if np.abs(values).max() <= s), _SCALES[-1])
    return (-1.1 * scale if values.min() < -0.08 * scale else -0.1 * scale), 1.1 * scale


def _new_wave(axes: Sequence[Axes]) -> dict[str, Any]:
    top, drive, lam, kap = axes
    label(top, "", "membrane U")
    label(drive, "", "slope f,\nerror e")
    label(lam, "", "λ = ∂L/∂U")
    label(kap, "time (ms)", "κ = ∂L/∂I")
    ticks: dict[str, Any] = {"transform": top.get_xaxis_transform(), "linestyle": "", "marker": "|", "markersize": 9}
    dots: dict[str, Any] = {"marker": "o", "markersize": 4.5, "linestyle": "", "color": COLORS["spike"]}
    artists: dict[str, Any] = {
        "U": top.plot([], color=COLORS["membrane"])[0],
        "theta": threshold_line(top),
        "s": top.plot([], color=COLORS["spike"], markeredgewidth=1.8, **ticks)[0],
        "x": top.plot([], color=COLORS["current"], markeredgewidth=1.4, **ticks)[0],
        "f": drive.plot([], color=COLORS["surrogate"])[0],
        "e": drive.plot([], color=COLORS["loss"], linewidth=3)[0],
        "lam": lam.plot([], color=COLORS["membrane"], linewidth=1.8)[0],
        "kap": kap.plot([], color=COLORS["current"], linewidth=1.8)[0],
        "dw": kap.plot([], **dots)[0],
        "headings": [heading(top), heading(lam)],
        "cursor": [ax.axvline(0, color=COLORS["muted"], linewidth=1) for ax in axes],
    }
    for ax in axes:
        ax.set_xlim(-1, numbers.STEPS)
        if ax is not kap:
            ax.tick_params(labelbottom=False)
    for ax in (lam, kap):
        ax.axhline(0, color=COLORS["muted"], linewidth=0.6)
    drive.set_ylim(-0.05, 1.1)
    keys = (
        (top, 0.5, 1.02, "output spikes (top)", "spike"),
        (top, 0.7, 1.02, "input spikes (bottom)", "current"),
        (top, 0.91, 1.02, "threshold", "threshold"),
        (drive, 0.01, 0.9, "slope f", "surrogate"),
        (drive, 0.11, 0.9, "error e", "loss"),
        (kap, 0.01, 0.9, "● at input spikes: these add up to ∂L/∂w", "spike"),
    )
    for ax, x, y, text, role in keys:  # plain texts are drawn much faster than legends
        place: dict[str, Any] = {"va": "bottom" if y > 1 else "center", "fontsize": "small"}
        ax.text(x, y, text, transform=ax.transAxes, color=COLORS[role], **place)
    return artists


def draw_wave(axes: Sequence[Axes], artists: Artists | None, *, seen: str, back: int, **settings: Any) -> Artists:
    """Forward traces above, the backward recursion below, as far back as it has come.

    Args:
        axes, artists: see `LivePanel`.
        seen: one of `SEEN`.
        back: steps that the recursion has made, from the last step on.
        settings: see `bptt_numbers.wave`.
    """
    made: Any = _new_wave(axes) if artists is None else artists
    wave = numbers.wave(seen=SEEN[seen], **settings)
    t = np.arange(numbers.STEPS)
    done = numbers.STEPS - back  # the first step that has its lam and kap
    fed, fired = np.flatnonzero(wave.x), np.flatnonzero(wave.run.s)
    reached = fed[fed >= done]
    made["U"].set_data(t, wave.run.U)
    made["s"].set_data(fired, np.full(len(fired), 0.93))
    made["x"].set_data(fed, np.full(len(fed), 0.07))
    made["f"].set_data(t, wave.f)
    made["e"].set_data([settings["pulse"]] * 2, [0, 1])
    made["lam"].set_data(t[done:], wave.credit.lam[done:])
    made["kap"].set_data(t[done:], wave.credit.kap[done:])
    made["dw"].set_data(reached, wave.credit.kap[reached])
    for line in made["cursor"]:
        line.set_xdata([done - 0.5] * 2)
    low, high = coarse_limits(min(0.0, wave.run.U.min()), max(1.0, wave.run.U.max()), 0.5)
    axes[0].set_ylim(low - 0.3, high + 0.3)
    axes[2].set_ylim(*signed_limits(wave.credit.lam))
    axes[3].set_ylim(*signed_limits(wave.credit.kap))
    made["headings"][0].set_text(f"{len(fired)} output spikes")
    made["headings"][1].set_text(_wave_heading(wave, done))
    return made


def _wave_heading(wave: numbers.Wave, done: int) -> str:
    total = wave.credit.kap @ wave.x
    if done == numbers.STEPS:
        return "the recursion starts at the right"
    here = f"at {done} ms:  c = {wave.c[done]:.2f},  λ = {wave.credit.lam[done]:.3f},  κ = {wave.credit.kap[done]:.3f}"
    so_far = wave.credit.kap[done:] @ wave.x[done:]
    return f"{here};   ∂L/∂w so far {so_far:.3f}, in the end {total:.3f}"


def describe_wave(*, seen: str, back: int, **settings: Any) -> str:
    """The text alternative of panel A."""
    wave = numbers.wave(seen=SEEN[seen], **settings)
    lam, pulse = wave.credit.lam, settings["pulse"]
    far = np.flatnonzero(np.abs(lam) > 0.1 * np.abs(lam).max())
    return (
        f"Four pictures over 100 ms. The membrane fires {wave.run.s.sum():.0f} times. The error is 1 at {pulse} ms, "
        f"where the slope is {wave.f[pulse]:.2f}. Lambda is 0 after it, {lam[pulse]:.2f} at it, and before it below a "
        f"tenth of its largest size until {far.min() if len(far) else pulse} ms. Kappa is at most "
        f"{np.abs(wave.credit.kap).max():.2f}; its sum over the input spikes, the gradient of the weight, is "
        f"{wave.credit.kap @ wave.x:.3f}. The recursion has come back to {numbers.STEPS - back} ms."
    )


def wave_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "w": slider("input weight w", 0.14, 0, 0.4, 0.01, ".2f"),
        "width": slider("surrogate width", 0.1, 0.02, 1, 0.02, ".2f"),
        "tau_mem": slider("τ_mem (ms)", 20, 2, 60, 1, ".0f"),
        "tau_syn": slider("τ_syn (ms)", 5, 1, 30, 1, ".0f"),
        "pulse": ipywidgets.IntSlider(80, min=0, max=numbers.STEPS - 1, description="error at (ms)"),
        "update": ipywidgets.Dropdown(options=list(numbers.UPDATES), description="reset"),
        "seen": ipywidgets.ToggleButtons(options=list(SEEN), description="in the gradient it is"),
        "back": ipywidgets.IntSlider(100, min=0, max=numbers.STEPS, step=2, description="steps back"),
    }
    return LivePanel(draw_wave, controls, rows=4, figsize=(9, 6.6), alt=describe_wave, play="back")


# Panel B: a trained network reads a digit.


def draw_pixels(ax: Axes, pixels: ArrayLike) -> Any:
    """One image, (8, 8) in 0..1, dark on white; the artist that holds it."""
    image = ax.imshow(np.asarray(pixels), cmap="gray_r", vmin=0, vmax=1)
    ax.set_xticks([0, 7])
    ax.set_yticks([0, 7])
    label(ax, "column", "row")
    return image


def _new_reading(axes: Sequence[Axes], rec: numbers.Record) -> dict[str, Any]:
    picture, inputs, hidden, readouts = axes
    label(inputs, "time (ms)", "input (OFF above, ON below)")
    label(hidden, "time (ms)", "hidden neuron")
    label(readouts, "time (ms)", "membranes of the 10 readouts")
    inputs.axhline(rec.inputs.shape[2] // 2, color=COLORS["muted"], linewidth=0.8)
    low, high = rec.out.min(), rec.out.max()
    readouts.set(xlim=(0, rec.out.shape[1] - 1), ylim=(low - 0.05 * (high - low), high + 0.3 * (high - low)))
    artists: dict[str, Any] = {
        "pixels": draw_pixels(picture, rec.pixels[0]),
        "headings": [heading(ax) for ax in axes],
        "inputs": raster(inputs, rec.inputs[0], linewidths=3),
        "hidden": raster(hidden, rec.hidden[0], linewidths=3),
        "others": [readouts.plot([], color=COLORS["muted"], linewidth=0.8)[0] for _ in range(rec.out.shape[2])],
        "rival": readouts.plot([], color=COLORS["threshold"], linewidth=2, linestyle="--")[0],
        "right": readouts.plot([], color=COLORS["membrane"], linewidth=2.4)[0],
    }
    names = [(artists["right"], "the digit"), (artists["rival"], "its rival"), (artists["others"][0], "the others")]
    for ax in (inputs, hidden):
        ax.set_xlim(-1, rec.inputs.shape[1])
    artists["legend"] = readouts.legend(
        *zip(*names, strict=True), loc="upper left", ncols=3, frameon=False, fontsize="small", handlelength=1.6
    )
    return artists


def draw_reading(axes: Sequence[Axes], artists: Artists | None, *, rec: numbers.Record, image: int) -> Artists:
    """Pixels, input spikes, hidden spikes and readouts for one sample of a record."""
    made: Any = _new_reading(axes, rec) if artists is None else artists
    right, scores = int(rec.label[image]), rec.scores[image]
    rival, t = numbers.strongest_other(scores, right), np.arange(rec.out.shape[1])
    made["pixels"].set_data(rec.pixels[image])
    update_raster(made["inputs"], rec.inputs[image])
    update_raster(made["hidden"], rec.hidden[image])
    for line, membrane in zip(made["others"], rec.out[image].T, strict=True):
        line.set_data(t, membrane)
    made["right"].set_data(t, rec.out[image, :, right])
    made["rival"].set_data(t, rec.out[image, :, rival])
    names = made["legend"].get_texts()
    names[0].set_text(f"{right}, the digit")
    names[1].set_text(f"{rival}, its strongest rival")
    answer = int(rec.answer[image])
    texts = (
        f"test image {image}: a {right}",
        f"{rec.inputs[image].sum()} input spikes",
        f"{rec.hidden[image].sum()} hidden spikes",
        f"answer: {answer} ({'right' if answer == right else 'wrong'})",
    )
    for head, text in zip(made["headings"], texts, strict=True):
        head.set_text(text)
    return made


def describe_reading(rec: numbers.Record, image: int) -> str:
    """The text alternative of panel B."""
    right, scores = int(rec.label[image]), rec.scores[image]
    rival = numbers.strongest_other(scores, right)
    return (
        f"Four pictures. An image of a {right}; its {rec.inputs[image].sum()} input spikes on ON and OFF channels; "
        f"{rec.hidden[image].sum()} spikes of {rec.hidden.shape[2]} hidden neurons; the ten readouts over "
        f"{rec.out.shape[1]} ms. The readout of {right} has the score {scores[right]:.1f}, its strongest rival, "
        f"{rival}, {scores[rival]:.1f}. The answer is {rec.answer[image]}."
    )


def reading_panel(rec: numbers.Record) -> LivePanel:
    """Panel B, for a record."""
    slider = ipywidgets.IntSlider(0, min=0, max=len(rec.label) - 1, description="test image")

    def draw(axes: Sequence[Axes], artists: Artists | None, *, image: int) -> Artists:
        return draw_reading(axes, artists, rec=rec, image=image)

    def describe(*, image: int) -> str:
        return describe_reading(rec, image)

    return LivePanel(draw, {"image": slider}, rows=2, columns=2, figsize=(9, 6.4), alt=describe, play="image")


def draw_mistakes(axes: Sequence[Axes], rec: numbers.Record) -> None:
    """The first mistakes of a record, one on each axes; axes that are left over are hidden."""
    for ax in axes:
        ax.set_axis_off()
    for ax, i in zip(axes, rec.mistakes, strict=False):
        ax.imshow(rec.pixels[i], cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(f"{i}: {rec.label[i]} as {rec.answer[i]}", fontsize="medium")
