"""Tutorial Fig. 1 (Neftci, Mostafa & Zenke 2019): four inputs, the synaptic current and the membrane of one LIF neuron.

The paper's spike times and constants are not given; these are ours, alone for 0.4 s and then together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import COLORS, arguments, canvas, label, save

from snnlearn.lessons.one_neuron_theory import THETA, dynamics, input_spikes, peak_time
from snnlearn.plots import raster, threshold_line

ALONE = 400  # ms, the time in which spikes come one by one
WEIGHT, TAU_MEM, TAU_SYN = 0.08, 20e-3, 10e-3


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    single = here["single PSP"]
    return {
        "the first 0.4 s are strictly sub-threshold": here["output spikes before 0.4 s"] == 0,
        "single PSPs are discernible: as many maxima of the membrane as input spikes": here["their maxima"]
        == here["input spikes before 0.4 s"],
        "one PSP alone does not reach the threshold": single["peak"] < THETA,
        "when PSPs sum up, output spikes are generated": here["output spikes after 0.4 s"] > 0,
        "each output spike comes when the membrane has reached the threshold": here["membrane at output spikes, least"]
        >= THETA,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    x = input_spikes()
    run = dynamics(x, weight=WEIGHT, tau_mem=TAU_MEM, tau_syn=TAU_SYN)
    one = np.zeros((200, 1))
    one[0] = 1
    psp = dynamics(one, weight=WEIGHT, tau_mem=TAU_MEM, tau_syn=TAU_SYN).U
    U = run.U[: ALONE + 20]  # the last of them peaks a little later
    spikes = np.flatnonzero(run.S)
    here = {
        "input spikes before 0.4 s": int(x[:ALONE].sum()),
        "their maxima": int(((U[1:-1] > U[:-2]) & (U[1:-1] >= U[2:])).sum()),
        "output spikes before 0.4 s": int(run.S[:ALONE].sum()),
        "output spikes after 0.4 s": int(run.S[ALONE:].sum()),
        "output spike times (ms)": spikes.tolist(),
        "highest membrane before 0.4 s": float(run.U[:ALONE].max()),
        "membrane at output spikes, least": float(run.U[spikes].min()),
        "single PSP": {
            "peak": float(psp.max()),
            "time to peak (ms)": int(psp.argmax()) - 2,
            "time to peak by formula (ms)": float(peak_time(1e3 * TAU_MEM, 1e3 * TAU_SYN)),
        },
    }
    figure = canvas(7.5, 5.0)
    membrane, current, inputs = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1.3, 1))
    membrane.plot(run.U, color=COLORS["membrane"], lw=1.2)
    threshold_line(membrane)
    membrane.plot(spikes, np.full(len(spikes), 1.35), ".", color=COLORS["spike"])
    membrane.text(10, 1.04, "threshold θ", color=COLORS["threshold"], fontsize="small")
    membrane.text(10, 1.3, "output spikes", fontsize="small")
    current.plot(run.I, color=COLORS["current"], lw=1.2)
    raster(inputs, x)
    for ax in (membrane, current, inputs):
        ax.axvspan(0, ALONE, color=COLORS["muted"], alpha=0.12, lw=0)
    label(membrane, "", "membrane U (θ = 1)", "a LIF neuron, Eqs. 7 and 8; grey: spikes come one by one")
    label(current, "", "current I (θ/ms)")
    label(inputs, "time (ms)", "input neuron")
    inputs.set_yticks([0.4, 1.4, 2.4, 3.4], ["1", "2", "3", "4"])
    figure.align_ylabels()
    paper = {
        "Fig. 1": "four inputs, one LIF neuron; sub-threshold with discernible PSPs in the first 0.4 s; only when "
        "several PSPs sum up is the threshold reached and spikes are generated"
    }
    settings = {
        "weight (θ/ms)": WEIGHT, "tau_mem (ms)": 1e3 * TAU_MEM, "tau_syn (ms)": 1e3 * TAU_SYN, "dt (ms)": 1,
        "reset": "subtraction of θ (Eq. 8)", "input spikes": "ours, the paper does not print its own",
    }  # fmt: skip
    save(args.out, "tutorial_fig1", figure, {"paper": paper, "here": here, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
