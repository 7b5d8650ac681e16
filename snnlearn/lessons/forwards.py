"""Tutorial 04, the gradient backwards or forwards in time: the pictures and the panels.

The numbers come from `snnlearn.lessons.forwards_numbers`, the exercises from `forwards_exercises`. A ``draw_...``
function is what a `LivePanel` calls: at its first call it makes the artists, later it moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from snnlearn.lessons import forwards_numbers as numbers
from snnlearn.lessons.common import heading, slider
from snnlearn.lessons.forwards_cost import draw_leftover as draw_leftover
from snnlearn.lessons.forwards_cost import meter_panel as meter_panel
from snnlearn.lessons.forwards_cost import window_panel as window_panel
from snnlearn.lessons.forwards_exercises import break_even_exercise as break_even_exercise
from snnlearn.lessons.forwards_exercises import influence_exercise as influence_exercise
from snnlearn.lessons.forwards_exercises import size_exercise as size_exercise
from snnlearn.lessons.forwards_numbers import METHODS as METHODS
from snnlearn.lessons.forwards_numbers import cosine as cosine
from snnlearn.lessons.forwards_numbers import detached as detached
from snnlearn.lessons.forwards_numbers import hidden_gradient as hidden_gradient
from snnlearn.lessons.forwards_numbers import kept as kept
from snnlearn.lessons.forwards_numbers import late_batch as late_batch
from snnlearn.lessons.forwards_numbers import late_loss as late_loss
from snnlearn.lessons.forwards_numbers import late_network as late_network
from snnlearn.lessons.forwards_numbers import leftover as leftover
from snnlearn.lessons.forwards_numbers import train_late as train_late
from snnlearn.lessons.forwards_numbers import truncation as truncation
from snnlearn.lessons.forwards_numbers import work as work
from snnlearn.plots import COLORS, label, raster, threshold_line, update_raster
from snnlearn.plots import show as show
from snnlearn.temporal import Reset
from snnlearn.widgets import Artists, LivePanel, coarse_limits

SEEN: dict[str, Reset] = {"kept": Reset.KEPT, "ignored": Reset.IGNORED}
SIGNED = matplotlib.colormaps["PuOr_r"]  # negative violet, positive orange; told apart by colour-blind readers


def signed_colors(values: ArrayLike, largest: float) -> np.ndarray:
    """Colours (..., 4) of numbers: white at 0, full at +-largest and beyond, by the root, so that little is seen."""
    share = np.clip(np.asarray(values, float) / largest, -1, 1)
    return SIGNED(0.5 + 0.5 * np.sign(share) * np.sqrt(np.abs(share)))


def coarse_scale(largest: float) -> float:
    """The smallest of ..., 1, 3, 10, 30, ... that is at least `largest`: a colour's scale that stays put."""
    if not largest > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(largest))
    return float(f"{next(k * power for k in (1, 3, 10) if k * power >= largest * (1 - 1e-9)):.3g}")


# Panel A: the triangle of causes and effects.


def _new_triangle(axes: Sequence[Axes]) -> dict[str, Any]:
    membrane, memory, triangle, gradient = axes
    T, ticks = numbers.STEPS, np.arange(2 * numbers.STEPS + 1)
    label(membrane, "step n", "membrane U")
    label(memory, "tick of the clock", "numbers remembered")
    label(triangle, "cause: input at step m", "effect: loss at step n")
    label(gradient, "tick of the clock", "∂L/∂w so far")
    made: dict[str, Any] = {  # an image above the ticks is drawn much faster: they belong to what stays
        "U": membrane.plot([], color=COLORS["membrane"], marker=".")[0],
        "theta": threshold_line(membrane),
        "s": membrane.plot([], "|", color=COLORS["spike"], markersize=9, transform=membrane.get_xaxis_transform())[0],
        "image": triangle.imshow(np.ones((T, T, 4)), origin="upper", interpolation="nearest", aspect="auto", zorder=3),
        "other": memory.plot(ticks, ticks, color=COLORS["muted"], linewidth=1)[0],
        "memory": memory.plot(ticks, ticks, color=COLORS["membrane"], linewidth=2)[0],
        "other_gradient": gradient.plot(ticks, ticks, color=COLORS["muted"], linewidth=1)[0],
        "gradient": gradient.plot([], color=COLORS["loss"], linewidth=2)[0],
        "cursor": [ax.axvline(0, color=COLORS["spike"], linewidth=1) for ax in (memory, gradient)],
        "now": membrane.axvline(0, color=COLORS["spike"], linewidth=1),
        "headings": [heading(ax) for ax in axes],
    }
    membrane.axhline(numbers.AIM, color=COLORS["loss"], linewidth=1)
    membrane.text(
        1, numbers.AIM, " wanted", color=COLORS["loss"], transform=membrane.get_yaxis_transform(), va="center"
    )
    membrane.set_xlim(-0.5, T - 0.5)
    memory.set(xlim=(0, 2 * T), ylim=(-1, 2.15 * T))
    gradient.set_xlim(0, 2 * T)
    for ax in (memory, gradient):
        ax.axvline(T, color=COLORS["muted"], linewidth=0.6, linestyle=":")
    memory.text(T, 2.1 * T, " end of the sequence", color=COLORS["muted"], va="top", fontsize="small")
    return made


def triangle_image(found: numbers.Pairs, direction: str, tick: int) -> np.ndarray:
    """The triangle in colours: pale where a pair has not been added up, white where the cause lies after the effect."""
    colors = signed_colors(found.credit, coarse_scale(np.abs(found.credit).max()))
    n, m = np.indices(found.credit.shape)
    added = numbers.done(direction, tick, len(found.x))
    colors[~added] = (0.86, 0.86, 0.86, 1)
    colors[m > n] = 1
    return colors


def draw_triangle(
    axes: Sequence[Axes], artists: Artists | None, *, direction: str, tick: int, seen: str, **settings: float
) -> Artists:
    """Every pair of cause and effect, and which of them have been added up.

    Args:
        axes, artists: see `LivePanel`.
        direction: `forwards_numbers.BACKWARDS` or `FORWARDS`.
        tick: 0..2T.
        seen: one of `SEEN`.
        settings: see `forwards_numbers.pairs`.
    """
    made: Any = _new_triangle(axes) if artists is None else artists
    found, T = numbers.pairs(seen=SEEN[seen], **settings), numbers.STEPS
    ways = (numbers.BACKWARDS, numbers.FORWARDS)
    other = ways[direction == numbers.BACKWARDS]
    fired, part, ticks = np.flatnonzero(found.s), numbers.so_far(found, direction), np.arange(2 * T + 1)
    made["U"].set_data(np.arange(T), found.U)
    made["s"].set_data(fired, np.full(len(fired), 0.94))
    made["image"].set_data(triangle_image(found, direction, tick))
    made["memory"].set_ydata(numbers.numbers_kept(direction))
    made["other"].set_ydata(numbers.numbers_kept(other))
    made["gradient"].set_data(ticks[: tick + 1], part[: tick + 1])
    made["other_gradient"].set_ydata(numbers.so_far(found, other))
    for line in made["cursor"]:
        line.set_xdata([tick, tick])
    backwards = direction == numbers.BACKWARDS and tick > T
    made["now"].set_xdata([2 * T - tick if backwards else min(tick, T) - 1] * 2)
    axes[0].set_ylim(*coarse_limits(min(0.0, found.U.min()), found.U.max(), 0.5))
    both = np.concatenate([part, numbers.so_far(found, other)])
    axes[3].set_ylim(*coarse_limits(both.min() - 0.5, both.max() + 0.5, max(1.0, coarse_scale(np.ptp(both)) / 10)))
    scale = coarse_scale(np.abs(found.credit).max())
    texts = (
        f"{len(fired)} spikes; the cursor is where the work is",
        f"remembered now: {numbers.numbers_kept(direction)[tick]:.0f}  (grey: the other way)",
        f"{numbers.done(direction, tick).sum()} of {T * (T + 1) // 2} pairs added  (full colour: ±{scale:g})",
        f"{part[tick]:.3f}, in the end {found.gradient:.3f}",
    )
    for line, text in zip(made["headings"], texts, strict=True):
        line.set_text(text)
    return made


def describe_triangle(*, direction: str, tick: int, seen: str, **settings: float) -> str:
    """The text alternative of panel A."""
    found, T = numbers.pairs(seen=SEEN[seen], **settings), numbers.STEPS
    kept = numbers.numbers_kept(direction)
    return (
        f"Four pictures of {T} steps. The membrane fires {found.s.sum():.0f} times. A triangle of pairs, cause before "
        f"effect, of which {numbers.done(direction, tick).sum()} of {T * (T + 1) // 2} have been added up, "
        f"{'column by column from the right' if direction == numbers.BACKWARDS else 'row by row from the top'}. "
        f"{kept[tick]:.0f} numbers are remembered now, {kept.max():.0f} at most. The gradient so far is "
        f"{numbers.so_far(found, direction)[tick]:.3f}, in the end {found.gradient:.3f}."
    )


def triangle_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "direction": ipywidgets.ToggleButtons(options=[numbers.BACKWARDS, numbers.FORWARDS], description="credit goes"),
        "tick": ipywidgets.IntSlider(44, min=0, max=2 * numbers.STEPS, description="tick"),
        "w": slider("weight w", 0.2, 0.02, 0.6, 0.02, ".2f"),
        "tau_mem": slider("τ_mem (ms)", 20, 1, 60, 1, ".0f"),
        "width": slider("surrogate width", 0.1, 0.02, 1, 0.02, ".2f"),
        "seen": ipywidgets.ToggleButtons(options=list(SEEN), description="reset in the gradient"),
    }
    return LivePanel(draw_triangle, controls, rows=2, columns=2, figsize=(9, 6.4), alt=describe_triangle, play="tick")


# Panel B: P while it runs.


def _new_influence(axes: Sequence[Axes]) -> dict[str, Any]:
    spikes, image = axes
    N, K = numbers.NEURONS, numbers.INPUTS
    label(spikes, "time (ms)", "neuron")
    label(image, "weights: those of each neuron side by side", "state of neuron")
    made: dict[str, Any] = {
        "raster": raster(spikes, np.zeros((numbers.RUN, N)), linewidths=2),
        "now": spikes.axvline(0, color=COLORS["threshold"], linewidth=1.5),
        "image": image.imshow(np.ones((N, N * (K + N), 4)), interpolation="nearest", aspect="auto", zorder=3),
        "headings": [heading(ax) for ax in axes],
    }
    spikes.set_xlim(-1, numbers.RUN)
    spikes.set_yticks(np.arange(N) + 0.4, map(str, range(N)))
    image.set_yticks(range(N))
    starts = [*range(0, N * K, K), *range(N * K, N * (K + N), N)]
    image.set_xticks(
        [(K - 1) / 2 + i * K for i in range(N)] + [N * K + (N - 1) / 2 + i * N for i in range(N)],
        [f"W to {i}" for i in range(N)] + [f"V to {i}" for i in range(N)],
    )
    image.tick_params(length=0, labelsize="small")
    for i, start in enumerate(starts):
        width = K if i < N else N
        image.axvline(start - 0.5, color=COLORS["muted"], linewidth=0.5, zorder=4)
        frame: dict[str, Any] = {"fill": False, "edgecolor": COLORS["spike"], "linewidth": 1.4, "zorder": 5}
        image.add_patch(Rectangle((start - 0.5, i % N - 0.5), width, 1, **frame))
    return made


def draw_influence(
    axes: Sequence[Axes], artists: Artists | None, *, step: int, seen: str, **settings: float
) -> Artists:
    """P of a recurrent layer at one step, below the spikes.

    Args:
        axes, artists: see `LivePanel`.
        step: 1..RUN, how many steps have been made.
        seen: one of `SEEN`.
        settings: see `forwards_numbers.influences`.
    """
    made: Any = _new_influence(axes) if artists is None else artists
    found = numbers.influences(seen=SEEN[seen], **settings)
    P, scale = found.P[step - 1], coarse_scale(np.abs(found.P).max())
    update_raster(made["raster"], found.s)
    made["now"].set_xdata([step - 0.5] * 2)
    made["image"].set_data(signed_colors(P, scale))
    made["headings"][0].set_text(f"{found.s.sum():.0f} spikes of {numbers.NEURONS} neurons; now step {step}")
    made["headings"][1].set_text(
        f"P[{step}]: {np.count_nonzero(P)} of {P.size} not zero; {numbers.own_share(P, found.own):.0%} of Σ|P| in the "
        f"boxes  (full colour: ±{scale:g}, largest now {np.abs(P).max():.2g})"
    )
    return made


def describe_influence(*, step: int, seen: str, **settings: float) -> str:
    """The text alternative of panel B."""
    found = numbers.influences(seen=SEEN[seen], **settings)
    P = found.P[step - 1]
    return (
        f"Above, {found.s.sum():.0f} spikes of {numbers.NEURONS} neurons over {numbers.RUN} ms. Below, the matrix P "
        f"after {step} steps, a row a neuron and a column a weight: {np.count_nonzero(P)} of {P.size} entries are not "
        f"zero, the largest is {np.abs(P).max():.2g}, and {numbers.own_share(P, found.own):.0%} of their sum lies "
        "where weight and neuron belong together."
    )


def influence_panel() -> LivePanel:
    """Panel B."""
    controls = {
        "step": ipywidgets.IntSlider(30, min=1, max=numbers.RUN, description="step"),
        "strength": slider("recurrent strength", 0.1, 0, 0.5, 0.02, ".2f"),
        "tau_mem": slider("τ_mem (ms)", 20, 1, 60, 1, ".0f"),
        "width": slider("surrogate width", 0.3, 0.02, 1, 0.02, ".2f"),
        "seen": ipywidgets.ToggleButtons(options=list(SEEN), description="reset in the gradient"),
    }
    return LivePanel(draw_influence, controls, rows=2, figsize=(9, 4.6), alt=describe_influence, play="step")
