"""Twenty spoken digits as spikes, shipped with the library."""

from __future__ import annotations

import lzma
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from snnlearn.datasets.base import Dataset, Split
from snnlearn.datasets.heidelberg import read_named
from snnlearn.datasets.recordings import Recordings

CHANNELS = 70


def spoken() -> Dataset:
    """Zero to nine in English and German, spoken by the program espeak-ng and heard by a model of the inner ear.

    2400 samples of 70 channels, unit 0 the one of the highest frequency; times are the middles of milliseconds, the
    longest sample ends at 0.66 s. The voices of the three splits differ, 20, 4 and 6 of thirty; ``x.speakers`` says
    whose a sample is. How the data were made and what they do not prove stands beside them, in
    ``snnlearn/data/spoken/CARD.md``.

    Raises:
        ModuleNotFoundError: h5py is not there.
        FileNotFoundError, ValueError: the installed files are missing or damaged.
    """
    parts = {name: _part(name) for name in ("train", "validation", "test")}
    splits = {name: Split(part.x, part.y) for name, part in parts.items()}
    names = parts["train"].names
    return Dataset(**splits, classes=len(names), names=names)


class _Part(NamedTuple):
    x: Recordings
    y: Tensor
    names: tuple[str, ...]


def _part(name: str) -> _Part:
    packed = files("snnlearn") / "data" / "spoken" / f"spoken_{name}.h5.xz"
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / f"spoken_{name}.h5"
            with packed.open("rb") as source, lzma.open(source) as unpacked, open(plain, "wb") as target:
                shutil.copyfileobj(unpacked, target)
            return _Part(*read_named(plain, CHANNELS))
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise ValueError(f"{packed}: the installed file is damaged ({error}); install snnlearn again") from error
