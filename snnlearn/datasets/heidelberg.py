"""The Heidelberg data sets of spoken words in spikes, SHD and SSC (Cramer et al. 2020), and files of their layout.

The layout (HDF5): ``spikes/times`` and ``spikes/units``, one entry of variable length per sample, times in seconds
(float16 in the published files) and units from 0; ``labels``; in SHD also ``extra/speaker`` and the names of the
classes in ``extra/keys``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.datasets import hdf5
from snnlearn.datasets.recordings import Recordings

UNITS = 700


def read_heidelberg(
    path: str | os.PathLike[str], units: int = UNITS, *, classes: int | None = None
) -> tuple[Recordings, Tensor]:
    """Spikes and labels (N,) of a file in the layout of SHD.

    Times are cast to float64 before they are scaled to microseconds and rounded: SHD's are float16, whose steps are
    0.5 ms between 0.5 and 1 s. Spikes that are out of order are sorted within their sample. The file is read by a
    process of its own with limits on memory and time (`snnlearn.datasets.hdf5`), which costs a tenth of a second.

    Args:
        path: of the HDF5 file.
        units: how many there are; a spike of any other is refused.
        classes: how many there are; by default as many as the file names, or as the largest label asks for.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: h5py is not installed.
        ValueError: the file is damaged or holds something else; the message names it.
    """
    x, labels, _ = read_named(path, units, classes=classes)
    return x, labels


def read_named(
    path: str | os.PathLike[str], units: int = UNITS, *, classes: int | None = None
) -> tuple[Recordings, Tensor, tuple[str, ...]]:
    """As `read_heidelberg`, with the names of the classes, which are none where the file gives none."""
    _checks.whole("units", units, least=1)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with _apart(path, units) as found:
        samples, total = len(found.lengths), int(found.lengths.sum())
        pointer = torch.zeros(samples + 1, dtype=torch.int64)
        pointer[1:] = torch.from_numpy(found.lengths).cumsum(0)
        kind = torch.int16 if units <= 2**15 else torch.int32
        times, which = torch.empty(total, dtype=torch.int32), torch.empty(total, dtype=kind)
        filled = 0
        for some, fired in found.pieces:
            times[filled : filled + len(some)] = torch.from_numpy(some)
            which[filled : filled + len(some)] = torch.from_numpy(fired)
            filled += len(some)
    most = classes if classes is not None else len(found.names) or None
    if most is not None and samples and found.labels.max() >= most:
        raise ValueError(f"{path}: label {found.labels.max()} is beyond the {most} classes, 0..{most - 1}")
    speakers = None if found.speakers is None else torch.from_numpy(found.speakers)
    return Recordings(times, which, pointer, (units,), speakers), torch.from_numpy(found.labels), found.names


@contextmanager
def _apart(path: Path, units: int) -> Iterator[hdf5.Contents]:
    if importlib.util.find_spec("h5py") is None:
        raise ModuleNotFoundError("files of the Heidelberg layout are read by h5py: pip install h5py")
    command = [sys.executable, "-P", hdf5.__file__, os.path.abspath(path), str(units)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": os.devnull}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=surroundings) as process,
    ):
        assert process.stdout is not None
        whole = True
        try:
            yield _received(process.stdout)
        except EOFError:
            whole = False
        except BaseException:
            process.kill()
            raise
        if process.wait() or not whole:
            said.seek(0)
            reason = said.read().decode("utf-8", "replace") if process.returncode == 3 else ""
            raise ValueError(f"{path}: {reason or 'the HDF5 library fails on it; it is damaged'}")


def _received(stream: IO[bytes]) -> hdf5.Contents:
    line = stream.readline()
    if not line:
        raise EOFError
    head: dict[str, Any] = json.loads(line)
    lengths = _array(stream, head["samples"], np.int64)
    labels = _array(stream, head["samples"], np.int64)
    speakers = _array(stream, head["samples"], np.int64) if head["speakers"] else None

    def pieces() -> Iterator[hdf5.Piece]:
        left = int(lengths.sum())
        while left:
            count = int(_array(stream, 1, np.int64)[0])
            left -= count
            yield _array(stream, count, np.int32), _array(stream, count, np.int32)

    return hdf5.Contents(lengths, labels, speakers, tuple(head["names"]), pieces())


def _array(stream: IO[bytes], count: int, kind: type) -> np.ndarray:
    out: np.ndarray = np.empty(count, dtype=kind)
    if stream.readinto(out.view(np.uint8)) != out.nbytes:  # type: ignore[attr-defined]
        raise EOFError
    return out
