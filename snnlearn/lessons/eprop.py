"""Tutorial 12, recurrence and e-prop: the pictures and the panels.

The numbers come from `eprop_numbers` and `eprop_training`. A ``draw_...`` function is what a `LivePanel` calls: at its
first call it makes the artists, later it moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from snnlearn.lessons import eprop_numbers as numbers
from snnlearn.lessons.common import heading, keys, slider
from snnlearn.lessons.eprop_exercises import recurrent_exercise as recurrent_exercise
from snnlearn.lessons.eprop_exercises import signal_exercise as signal_exercise
from snnlearn.lessons.eprop_exercises import slow_exercise as slow_exercise
from snnlearn.lessons.eprop_runs import DELAYS as DELAYS
from snnlearn.lessons.eprop_runs import FOUND as FOUND
from snnlearn.lessons.eprop_runs import held as held
from snnlearn.lessons.eprop_runs import run as run
from snnlearn.lessons.eprop_tasks import LOSS as LOSS
from snnlearn.lessons.eprop_tasks import RELAY as RELAY
from snnlearn.lessons.eprop_tasks import SILENT as SILENT
from snnlearn.lessons.eprop_tasks import STORE as STORE
from snnlearn.lessons.eprop_tasks import XOR as XOR
from snnlearn.lessons.eprop_tasks import Constants as Constants
from snnlearn.lessons.eprop_tasks import Task, Weights
from snnlearn.lessons.eprop_tasks import accuracy as accuracy
from snnlearn.lessons.eprop_tasks import as_network as as_network
from snnlearn.lessons.eprop_tasks import linear as linear
from snnlearn.lessons.eprop_tasks import with_delay as with_delay
from snnlearn.lessons.eprop_tasks import without_recurrence as without_recurrence
from snnlearn.lessons.eprop_training import ADAPTIVE as ADAPTIVE
from snnlearn.lessons.eprop_training import BPTT as BPTT
from snnlearn.lessons.eprop_training import EPROP as EPROP
from snnlearn.lessons.eprop_training import FAST_ONLY as FAST_ONLY
from snnlearn.lessons.eprop_training import RANDOM as RANDOM
from snnlearn.lessons.eprop_training import READOUT as READOUT
from snnlearn.lessons.eprop_training import Credit as Credit
from snnlearn.lessons.eprop_training import Run
from snnlearn.lessons.eprop_training import gradient as gradient
from snnlearn.lessons.eprop_training import leaky as leaky
from snnlearn.lessons.eprop_training import simulate as simulate
from snnlearn.lessons.eprop_training import train as train
from snnlearn.plots import COLORS, label
from snnlearn.plots import show as show
from snnlearn.surrogate import FastSigmoid
from snnlearn.widgets import Artists, LivePanel, coarse_limits

PAIRS = ("00", "01", "10", "11")
ROLES = {"no recurrence": "muted", "e-prop": "membrane", "BPTT": "loss", "adaptive, no recurrence": "surrogate"}


def raster_of(ax: Axes, trials: Sequence[Any]) -> Any:
    """Trials of the four pairs of cues, each (T, H) spikes, on top of each other; the image, for `move_raster`."""
    T, H = np.asarray(trials[0]).shape
    for k, pair in enumerate(PAIRS):
        ax.text(-0.02, (k + 0.5) / 4, pair, transform=ax.transAxes, ha="right", va="center")
        if k:
            ax.axhline(k * H, color=COLORS["threshold"], linewidth=0.8)
    look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(np.zeros((4 * H, T)), origin="lower", extent=(0, T, 0, 4 * H), **look)
    ax.set_yticks([])
    move_raster(image, trials)
    return image


def move_raster(image: Any, trials: Sequence[Any]) -> None:
    """Show other spikes with the image of `raster_of`."""
    image.set_data(np.concatenate([np.asarray(trial, float) for trial in trials], axis=1).T)


def draw_phases(ax: Axes, phases: Sequence[tuple[float, float, str]]) -> None:
    """Name the parts of a trial above an axes, (from, to, name), and mark their edges."""
    for start, end, name in phases:
        for edge in (start, end):
            ax.axvline(edge, color=COLORS["reference"], linewidth=1)
        ax.text((start + end) / 2, 1.01, name, transform=ax.get_xaxis_transform(), ha="center", va="bottom")


XOR_PHASES = ((0, 10, "cue 1"), (50, 60, "cue 2"), (60, 70, "answer"))


def four_trials(task: Task, seed: int = 3) -> tuple[Tensor, Tensor]:
    """A trial for each of the pairs 00, 01, 10, 11 of delayed XOR: spikes (T, 4, N) and labels (T, 4)."""
    x, y = task.trials(torch.Generator().manual_seed(seed), 64)
    half, end = task.inputs // 2, len(x) - 20
    first, second = (x[start : start + 10, :, half:].sum((0, 2)) > 0 for start in (0, end))
    pair = 2 * first.int() + second.int()
    chosen = [int((pair == k).nonzero()[0, 0]) for k in range(4)]
    return x[:, chosen], y[:, chosen]


def band(share: float) -> str:
    """An accuracy in words, for what comes out of a training."""
    return "above 95 %" if share > 0.95 else "60 to 95 %" if share > 0.6 else "below 60 %"


def slow_trace(weights: Weights, x: Tensor, constants: Constants) -> np.ndarray:
    """eps^a of the input synapses of one run in the first trial, (T, H, N): Eq. 24 with a synaptic current."""
    alpha, beta, _, rho = constants.decays
    q = leaky(beta, leaky(alpha, x[:, 0].double()))
    U = simulate({name: w[:1].double() for name, w in weights.items()}, x[:, :1].double(), constants).U[:, 0, 0]
    f = FastSigmoid(width=constants.width).slope(U - 1)
    eps, out = torch.zeros(U.shape[1], x.shape[2], dtype=torch.float64), []
    for f_n, q_n in zip(f, q, strict=True):
        out.append(eps.numpy())
        eps = rho * eps + f_n[:, None] * (q_n - constants.strength * eps)
    return np.array(out)


# Panel A: one synapse of an adaptive neuron.


def _new_synapse(axes: Sequence[Axes]) -> dict[str, Any]:
    top, slope, traces, eligible = axes
    label(top, "", "membrane V")
    label(slope, "", "slope f")
    label(traces, "", "q, ε")
    label(eligible, "time (ms)", "eligibility")
    keys(top, (0.55, "threshold", "threshold"), (0.7, "spikes", "spike"), (0.8, "input spike", "current"), y=1.08)
    keys(traces, (0.7, "fast: q", "membrane"), (0.84, "slow: ε", "surrogate"))
    keys(eligible, (0.62, "f q (fast)", "membrane"), (0.77, "−f · strength · ε (slow)", "surrogate"))
    for ax in axes:
        ax.set_xlim(0, numbers.SPAN)
        if ax is not eligible:
            ax.tick_params(labelbottom=False)
    slope.set_ylim(-0.02, 0.35)
    eligible.axhline(0, color=COLORS["muted"], linewidth=0.6)
    look: dict[str, Any] = {"linestyle": "", "marker": "|", "markersize": 9, "markeredgewidth": 1.8}
    return {
        "V": top.plot([], color=COLORS["membrane"], linewidth=1)[0],
        "theta": top.plot([], color=COLORS["threshold"], linestyle="--")[0],
        "s": top.plot([], color=COLORS["spike"], transform=top.get_xaxis_transform(), **look)[0],
        "x": top.plot([], color=COLORS["current"], transform=top.get_xaxis_transform(), **look)[0],
        "f": slope.plot([], color=COLORS["surrogate"], linewidth=1)[0],
        "q": traces.plot([], color=COLORS["membrane"])[0],
        "eps": traces.plot([], color=COLORS["surrogate"])[0],
        "fast": eligible.plot([], color=COLORS["membrane"], linewidth=1.2)[0],
        "slow": eligible.plot([], color=COLORS["surrogate"], linewidth=1.2)[0],
        "headings": [heading(top), heading(eligible)],
    }


def draw_synapse(axes: Sequence[Axes], artists: Artists | None, **settings: Any) -> Artists:
    """One synapse, from the input spike on. Arguments: `numbers.synapse`."""
    made: Any = _new_synapse(axes) if artists is None else artists
    case, t = numbers.synapse(**settings), np.arange(numbers.SPAN)
    for name in ("V", "f", "q", "eps", "fast", "slow"):
        made[name].set_data(t, getattr(case, name))
    made["theta"].set_data(t, case.threshold)
    for name, height in (("s", 0.93), ("x", 0.07)):
        at = np.flatnonzero(getattr(case, name))
        made[name].set_data(at, np.full(len(at), height))
    low, high = coarse_limits(min(-0.9, case.V.min()), max(2.5, case.V.max(), case.threshold.max()), 1.5)
    axes[0].set_ylim(low - 0.3, high + 0.3)
    axes[2].set_ylim(-0.05, coarse_limits(0, max(1.0, case.eps.max()), 2)[1])
    axes[3].set_ylim(*coarse_limits(min(-0.15, case.slow.min()), max(0.25, case.fast.max()), 0.3))
    made["headings"][0].set_text(f"{case.s.sum():.0f} output spikes")
    made["headings"][1].set_text(
        f"something left after the input spike: fast {case.lasts(case.fast)} ms, slow {case.lasts(case.slow)} ms"
    )
    return made


def describe_synapse(**settings: Any) -> str:
    """The text alternative of panel A."""
    case = numbers.synapse(**settings)
    return (
        f"Four pictures over {numbers.SPAN} ms: membrane and moving threshold, with {case.s.sum():.0f} output spikes; "
        f"the slope; the presynaptic trace q, up to {case.q.max():.1f}, and the slow component, up to "
        f"{case.eps.max():.2f}; the fast part of the eligibility, above 2 percent of its largest for "
        f"{case.lasts(case.fast)} ms after the input spike, and the slow part, for {case.lasts(case.slow)} ms."
    )


def synapse_panel() -> LivePanel:
    """Panel A."""
    controls = {
        "tau_mem": slider("τ_mem (ms)", 20, 5, 60, 5, ".0f"),
        "tau_adapt": slider("τ_adapt (ms)", 200, 20, 1000, 20, ".0f"),
        "strength": slider("strength", 0.2, 0, 2, 0.1, ".1f"),
        "pre": ipywidgets.IntSlider(57, min=10, max=150, description="input spike (ms)", continuous_update=True),
    }
    return LivePanel(draw_synapse, controls, rows=4, figsize=(9, 6.4), alt=describe_synapse)


# Panel B: a network learns to keep a cue.


class Film(NamedTuple):
    """What the panel shows of a training, at the updates that were kept."""

    updates: tuple[int, ...]
    spikes: np.ndarray  # (kept, 4, T, H), bool
    lead: np.ndarray  # (kept, 4, T), output 1 minus output 0
    history: np.ndarray  # (updates,), accuracy, smoothed over ten


def film(task: Task, run: Run, updates: Sequence[int], index: int = 0) -> Film:
    """The four trials on the weights that `train` kept before these updates."""
    x, _ = four_trials(task)
    spikes, lead = [], []
    for weights in run.kept:
        one = {name: w[index : index + 1] for name, w in weights.items()}
        now = simulate(one, x.float(), task.constants)
        spikes.append(now.s[:, 0].transpose(0, 1).numpy() > 0)
        lead.append((now.y[:, 0, :, 1] - now.y[:, 0, :, 0]).T.numpy())
    smooth = np.convolve(run.history[:, index].numpy(), np.ones(10) / 10, "valid")
    return Film(tuple(updates), np.array(spikes), np.array(lead), smooth)


def learning_panel(shown: Film) -> LivePanel:
    """Panel B: the four trials while the network learns."""
    frames = {str(update): k for k, update in enumerate(shown.updates)}
    T = shown.spikes.shape[2]

    def draw(axes: Sequence[Axes], artists: Artists | None, update: int) -> Artists:
        raster, lead, curve = axes
        made: Any = artists
        if made is None:
            label(raster, "", "")
            label(lead, "time (ms)", "output 1 − 0")
            label(curve, "update", "accuracy (%)")
            draw_phases(raster, ((0, 10, "cue 1"), (T - 20, T - 10, "cue 2"), (T - 10, T, "answer")))
            curve.plot(np.arange(len(shown.history)) + 9, 100 * shown.history, color=COLORS["membrane"], linewidth=1)
            curve.axhline(50, color=COLORS["muted"], linestyle="--", linewidth=1)
            curve.set(xlim=(-5, shown.updates[-1] + 5), ylim=(40, 102))
            lead.axhline(0, color=COLORS["muted"], linewidth=0.6)
            size = coarse_limits(0, np.abs(shown.lead).max(), 2)[1]
            lead.set(xlim=(0, T), ylim=(-size, 1.3 * size))
            keys(lead, (0.02, "00 and 11: answer 0", "membrane"), (0.25, "01 and 10: answer 1", "threshold"))
            made = {
                "raster": raster_of(raster, shown.spikes[0]),
                "lead": [
                    lead.plot([], color=COLORS["threshold" if k in (1, 2) else "membrane"], linewidth=1.2)[0]
                    for k in range(4)
                ],
                "dot": curve.axvline(0, color=COLORS["spike"], linewidth=1.2),
                "heading": heading(curve),
            }
        move_raster(made["raster"], shown.spikes[update])
        for line, values in zip(made["lead"], shown.lead[update], strict=True):
            line.set_data(np.arange(T), values)
        made["dot"].set_xdata([shown.updates[update]] * 2)
        rate = shown.spikes[update].mean()
        made["heading"].set_text(f"update {shown.updates[update]}: neurons fire at {100 * rate:.0f} % of the steps")
        return made

    def describe(update: int) -> str:
        between = shown.spikes[update][:, 20 : T - 20].mean()
        return (
            f"Rasters of four trials before update {shown.updates[update]}; during the delay neurons fire at "
            f"{100 * between:.0f} percent of the steps. Below, the difference of the two outputs, and the accuracy "
            f"over training, which ends at {100 * shown.history[-1]:.0f} percent."
        )

    control = ipywidgets.SelectionSlider(
        options=list(frames.items()), value=len(frames) - 1, description="update", continuous_update=True
    )
    return LivePanel(draw, {"update": control}, rows=3, figsize=(9, 7), alt=describe, play="update")


# Panel C: accuracy against delay.


def draw_delays(axes: Sequence[Axes], artists: Artists | None, *, delay: int) -> Artists:
    """What five seeds of each network came to at each delay, and at one of them."""
    curve, here = axes
    made: Any = artists
    if made is None:
        label(curve, "delay (ms)", "accuracy (%)")
        label(here, "", "accuracy (%)")
        for k, (name, role) in enumerate(ROLES.items()):
            values = np.array([FOUND[f"{name}, {d} ms"] for d in DELAYS])
            curve.plot(DELAYS, values.mean(1), "o-", color=COLORS[role], linewidth=1.5, markersize=4)
            curve.fill_between(DELAYS, values.min(1), values.max(1), color=COLORS[role], alpha=0.12, linewidth=0)
            here.text(k, 38, name.replace(", ", ",\n"), ha="center", va="top", color=COLORS[role], fontsize="small")
        here.set(xlim=(-0.6, 3.6), xticks=[], ylim=(40, 103))
        curve.set_ylim(40, 103)
        here.set_xlabel("\n\n")
        for ax in axes:
            ax.axhline(50, color=COLORS["muted"], linestyle="--", linewidth=1)
        made = {
            "at": curve.axvline(0, color=COLORS["spike"], linewidth=1),
            "dots": [here.plot([], "o", color=COLORS[role], alpha=0.7)[0] for role in ROLES.values()],
            "headings": [heading(curve), heading(here)],
        }
        made["headings"][0].set_text("mean and range of five seeds")
    made["at"].set_xdata([delay, delay])
    for k, (name, line) in enumerate(zip(ROLES, made["dots"], strict=True)):
        line.set_data(k + np.linspace(-0.2, 0.2, 5), FOUND[f"{name}, {delay} ms"])
    made["headings"][1].set_text(f"delay {delay} ms")
    return made


def describe_delays(*, delay: int) -> str:
    """The text alternative of panel C."""
    said = (f"{name}: {min(v)} to {max(v)}" for name in ROLES for v in [FOUND[f"{name}, {delay} ms"]])
    return f"Accuracy against delay for four networks, in percent. At {delay} ms {'; '.join(said)}."


def delay_panel() -> LivePanel:
    """Panel C."""
    control = ipywidgets.SelectionSlider(
        options=list(DELAYS), value=40, description="delay (ms)", continuous_update=True
    )
    return LivePanel(draw_delays, {"delay": control}, columns=2, figsize=(9, 3.6), alt=describe_delays)
