"""Draws the pictures of the spoken digits: sound, what the ear makes of it, and what is in the files.

    python -m snnlearn.data.spoken.draw --out DIR

It needs the program espeak-ng (for the sound) and matplotlib.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnlearn.data.spoken.cochlea import Ear, basilar_membrane, bushy_cells, hair_cells, nerve_fibres
from snnlearn.data.spoken.make_spoken import WORDS, Settings, speakers, utterance
from snnlearn.training import write

BLUE, ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito, told apart with every colour vision


def _frequencies(axes: Any, ear: Ear) -> None:
    """Channels on the vertical axis, low frequencies below, marked in Hz."""
    marks = np.array([100, 200, 500, 1000, 2000, 5000])
    places = np.interp(marks, ear.frequencies()[::-1], np.arange(ear.channels)[::-1])
    axes.set_yticks(places, [f"{mark}" for mark in marks])
    axes.set_ylim(ear.channels - 0.5, -0.5)
    axes.set_ylabel("resonance (Hz)")


def sound_to_spikes(word: int = 7, speaker: int = 1) -> Any:
    """One word on its way: wave, membrane, nerve, bushy cells."""
    from matplotlib.figure import Figure

    ear, settings = Ear(), Settings()
    generator = np.random.default_rng(0)
    sound = utterance(word, speakers(settings)[speaker], settings, generator)
    velocity = basilar_membrane(sound[None], ear)
    rate = hair_cells(velocity, ear)
    spikes = bushy_cells(nerve_fibres(rate, ear, generator), ear)[:, 0]
    ms = 1e3 * np.arange(len(sound)) / ear.rate
    figure = Figure(figsize=(6.4, 7.2), layout="constrained")
    rows = figure.subplots(4, sharex=True, height_ratios=(1, 2, 2, 2))
    rows[0].plot(ms, sound, color=BLUE, linewidth=0.4)
    rows[0].set_ylabel("sound (rms 1)")
    rows[0].set_title(f"'{WORDS[word]}': the sound")
    loudness = 20 * np.log10(np.abs(velocity[:, 0]).T + 1e-9)
    extent = (0, ms[-1], ear.channels - 0.5, -0.5)
    for axes, values, bounds, title, label in (
        (rows[1], loudness, (loudness.max() - 60, loudness.max()), "speed of the basilar membrane", "dB"),
        (rows[2], rate[:, 0].T, (0, 1000), "rate of the nerve fibres", "spikes/s"),
    ):
        picture = axes.imshow(
            values, aspect="auto", cmap="cividis", extent=extent, vmin=bounds[0], vmax=bounds[1], interpolation="none"
        )
        figure.colorbar(picture, ax=axes, label=label)
        axes.set_title(title)
        _frequencies(axes, ear)
    at, unit = np.nonzero(spikes)
    rows[3].plot(ms[at], unit, ".", color="black", markersize=1.5)
    rows[3].set_title(f"{len(at)} spikes of {ear.channels} bushy cells")
    rows[3].set_xlabel("time (ms)")
    _frequencies(rows[3], ear)
    return figure


def words(labels: tuple[int, ...] = (1, 7, 11, 17), who: tuple[int, int] = (1, 27)) -> Any:
    """Four words of two speakers, from the file."""
    from matplotlib.figure import Figure

    from snnlearn.datasets.spoken import spoken

    train = spoken().train
    ear, voices = Ear(), speakers(Settings())
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    grid = figure.subplots(2, len(labels), sharex=True, sharey=True)
    for row, speaker in enumerate(who):
        for column, label in enumerate(labels):
            chosen = ((train.y == label) & (train.x.speakers == speaker)).nonzero()[:1, 0]
            one = train.x[chosen]
            axes = grid[row, column]
            axes.plot(one.times.numpy() / 1e3, one.units.numpy(), ".", color=(BLUE, ORANGE)[row], markersize=1.5)
            axes.set_title(WORDS[label] if row == 0 else "")
            if column == 0:
                _frequencies(axes, ear)
                axes.set_ylabel(f"{voices[speaker].variant}: resonance (Hz)")
            if row == 1:
                axes.set_xlabel("time (ms)")
    return figure


def counts() -> Any:
    """How many spikes the words have, and where: what a classifier without time sees."""
    from matplotlib.figure import Figure

    from snnlearn.datasets.spoken import spoken

    train = spoken().train
    number = train.x.counts()
    mean = torch.stack([number[train.y == label].mean(0) for label in range(len(WORDS))])
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(mean.T, aspect="auto", cmap="cividis", interpolation="none")
    figure.colorbar(picture, ax=axes, label="spikes of a channel in a word, mean")
    axes.set_xticks(range(len(WORDS)), WORDS, rotation=90)
    _frequencies(axes, Ear())
    return figure


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the spoken digits.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in (("sound", sound_to_spikes()), ("words", words()), ("counts", counts())):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
        write(out / f"spoken_{name}.png", buffer.getvalue())


if __name__ == "__main__":
    main()
