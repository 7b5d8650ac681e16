"""TSSL-BP Figs. 7 and 8 (Zhang & Li 2020): how many neurons of a trained network fire, and how often.

Fig. 7 counts the spikes of a network that sees an image for five steps, Fig. 8 the rates of one that is given 100 steps
of spikes. Both are convolutional and trained by TSSL-BP with all of its code; here on handwritten digits, the second
time as random spikes, and where ``--data`` has them on CIFAR10 and N-MNIST. Each is shown before training too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import COLORS, arguments, canvas, data, label, save
from exodus_fig2 import drawn
from torch import Tensor
from tssl_bp_network import RULES, WHOLE, currents, network, train

from snnlearn import Rule
from snnlearn.datasets import Dataset, Recordings
from snnlearn.network import Network

SEEN = 100
"""Test samples that are looked at, as in the paper."""
RECORDED = 0.3
"""Seconds of a recording of N-MNIST."""
EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
"""Of the bins of rates, spikes a step; a neuron that never fires has a bin of its own."""


def as_spikes(steps: int) -> Callable[[Any], Tensor]:
    """Images or recordings to spikes (T, B, channels, size, size); an image's are drawn anew at each call."""
    draw = torch.Generator().manual_seed(7)

    def encode(x: Any) -> Tensor:
        if isinstance(x, Recordings):
            return x.dense(steps, RECORDED / steps)
        return drawn(x, steps, draw).unflatten(2, (2, math.isqrt(x.shape[1]), -1))

    return encode


def spikes(net: Network, rule: Rule, x: Tensor) -> list[Tensor]:
    """Of each layer, (T, B, neurons)."""
    with torch.no_grad():
        return [trace.s.flatten(2) for trace in net(x, rule)]


def measured(net: Network, rule: Rule, x: Tensor) -> dict[str, Any]:
    """Shares of the neurons, averaged over samples: by number of spikes or rate, by layer and by step."""
    layers = spikes(net, rule, x)
    steps = len(x)
    counts = torch.cat([s.sum(0) for s in layers], 1)
    found: dict[str, Any] = {
        "silent": (counts == 0).double().mean().item(),
        "at every step": (counts == steps).double().mean().item(),
        "more than once": (counts > 1).double().mean().item(),
        "above a rate of 10 %": (counts > 0.1 * steps).double().mean().item(),
        "silent by layer": [(s.sum(0) == 0).double().mean().item() for s in layers],
        "firing by layer and step": [s.double().mean((1, 2)).tolist() for s in layers],
        "neurons": [s.shape[2] for s in layers],
    }
    if steps < 10:
        found["by number of spikes"] = [(counts == n).double().mean().item() for n in range(steps + 1)]
    else:
        rate = counts / steps
        found["by rate"] = [
            ((rate > low) & (rate <= high)).double().mean().item() for low, high in itertools.pairwise(EDGES)
        ]
    return found


def before_and_after(samples: Dataset, encode: Callable[[Any], Tensor], epochs: int) -> dict[str, Any]:
    """A network before training, and trained by two rules; what fires on the same test samples."""
    x = encode(samples.test.x[:SEEN])
    start = network(x.shape[-1], x.shape[2], samples.classes, torch.Generator().manual_seed(0))
    found = {"untrained": measured(start, RULES[WHOLE], x)}
    for name, rule in (("TSSL-BP", RULES[WHOLE]), ("BPTT", RULES["BPTT"])):
        net, shares = train(samples, rule, epochs, 0, encode)
        found[name] = {**measured(net, rule, x), "accuracy": shares[-1]}
    return found


def claims(here: dict[str, Any]) -> dict[str, bool]:
    """What the numbers say of the paper's statements."""
    five, hundred = here["five steps"], here["hundred steps"]
    return {
        "in five steps most neurons of the trained network are silent": five["TSSL-BP"]["silent"] > 0.5,
        "in five steps 84 % or more are silent, as in Fig. 7": five["TSSL-BP"]["silent"] >= 0.84,
        "in five steps at most 4 % fire at every step, as in Fig. 7": five["TSSL-BP"]["at every step"] <= 0.045,
        "in a hundred steps 75 % or more are silent, as in Fig. 8": hundred["TSSL-BP"]["silent"] >= 0.75,
        "in a hundred steps at most 5 % fire in more than 10 % of them, as in Fig. 8": hundred["TSSL-BP"][
            "above a rate of 10 %"
        ]
        <= 0.05,
        "training by TSSL-BP silences neurons that fired before, in both": all(
            row["TSSL-BP"]["silent"] > row["untrained"]["silent"] + 0.02 for row in (five, hundred)
        ),
        "BPTT leaves more neurons silent than TSSL-BP, in both": all(
            row["BPTT"]["silent"] > row["TSSL-BP"]["silent"] for row in (five, hundred)
        ),
    }


LOOKS = {"untrained": "muted", "TSSL-BP": "membrane", "BPTT": "threshold"}


def draw(here: dict[str, Any]) -> Any:
    """The picture: a row a network; how often neurons fire, who is silent, when they fire."""
    figure = canvas(11.0, 6.2)
    axes = figure.subplots(2, 3)
    rates = [f"{100 * low:.0f}-{100 * high:.0f}" for low, high in itertools.pairwise(EDGES)]
    for (often, layer, step), (title, row) in zip(axes, here.items(), strict=True):
        for i, (name, color) in enumerate(LOOKS.items()):
            found, shift = row[name], 0.27 * (i - 1)
            bars = found.get("by number of spikes") or [found["silent"], *found["by rate"]]
            places = [n + shift for n in range(len(bars))]
            often.bar(places, [100 * v for v in bars], 0.25, color=COLORS[color], label=name)
            silent = [100 * v for v in found["silent by layer"]]
            layer.bar([n + 1 + shift for n in range(len(silent))], silent, 0.25, color=COLORS[color])
            if name != "TSSL-BP":
                continue
            for n, firing in enumerate(found["firing by layer and step"]):
                style = ("-", "--", ":", "-.")[n % 4]
                step.plot([100 * v for v in firing], style, color=COLORS[color], label=f"layer {n + 1}")
        often.set_ylim(0, 100)
        layer.set(ylim=(0, 100), xticks=range(1, len(silent) + 1))
        step.set_ylim(0)
        if len(bars) > 6:
            often.set_xticks(range(len(bars)), ["0", *rates], fontsize="small")
        often.legend(frameon=False, fontsize="small")
        step.legend(frameon=False, fontsize="small")
        unit = "spikes of a neuron in five steps" if len(bars) == 6 else "rate of a neuron (% of the steps)"
        label(often, unit, "share of neurons (%)", title)
        label(layer, "layer", "silent neurons (%)")
        label(step, "step", "neurons that fire (%)", "TSSL-BP")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    args = arguments(__doc__, argv)
    images, name = data("cifar10", args.data)
    events, source = data("n-mnist", args.data)
    passes = (1, 1) if args.quick else (20, 5)
    if args.quick:
        images, events = (d._replace(train=type(d.train)(*(v[:128] for v in d.train))) for d in (images, events))
    steps = 20 if args.quick else 100
    here = {
        "five steps": before_and_after(images, currents, passes[0]),
        "hundred steps": before_and_after(events, as_spikes(steps), passes[1]),
    }
    paper = {
        "Fig. 7, CIFAR10, 5 steps": "more than 84 % silent, 12 % fire more than once, about 4 % at every step",
        "Fig. 8, N-MNIST, 100 steps": "more than 75 % silent, about 5 % with a rate above 10 %",
    }
    settings = {
        "data": {"five steps": name, "hundred steps": source}, "test samples": SEEN,
        "passes": passes, "steps": [5, steps],
        "network": "12C3-P2-24C3-P2-10 on digits, else 15C5-P2-40C5-P2-300-10; as figures/tssl_bp_network.py",
        "bins of rates": EDGES, "seeds": 1,
    }  # fmt: skip
    save(args.out, "tssl_bp_fig7_8", draw(here), {"paper": paper, "here": here, "settings": settings, "claims": claims})


if __name__ == "__main__":
    main()
