"""Recordings of event cameras: N-MNIST, DVS Gesture and CIFAR10-DVS, from their published files.

Units are (polarity, row, column) in all three: polarity 0 is OFF (darker), 1 is ON (brighter).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from snnlearn.datasets.files import opened, text
from snnlearn.datasets.recordings import LONGEST, Recordings
from snnlearn.datasets.store import Store

EVENTS = 2**16  # read at once
HEADER = 2**16  # bytes of text before the events at most

N_MNIST = (2, 34, 34)
OVERFLOW_ROW, OVERFLOW = 240, 2**13  # as in the authors' reader

DVS128 = (2, 128, 128)
GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
LABELS = ["class", "startTime_usec", "endTime_usec"]
MOST_WINDOWS = 1000  # gestures of one recording
MOST_LAYERS = 4  # gestures at the same time
PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)
POLARITY = 1  # the type of packets that hold brightness changes

Events = tuple[np.ndarray, np.ndarray]  # times int64, units


def n_mnist(folder: Path, names: tuple[str, ...], sort: bool) -> tuple[Recordings, Tensor]:
    """``folder/<digit>/*.bin`` (Orchard et al. 2015): 34 x 34 pixels, 300 ms in three saccades."""
    return _by_class(folder, names, "*.bin", Store(N_MNIST, sort), _n_mnist_file)


def cifar10_dvs(folder: Path, names: tuple[str, ...], sort: bool) -> tuple[Recordings, Tensor]:
    """``folder/<class>/*.aedat`` (Li et al. 2017): 128 x 128 pixels, about 1.3 s; times from the first event on."""
    return _by_class(folder, names, "*.aedat", Store(DVS128, sort), _aedat2_file)


def _by_class(folder: Path, names: tuple[str, ...], pattern: str, store: Store, read) -> tuple[Recordings, Tensor]:
    labels = []
    for label, name in enumerate(names):
        for path in sorted((folder / name).glob(pattern)):
            with opened(path) as file:
                for times, units in read(file):
                    store.add(times, units)
                store.end()
            labels.append(label)
    return store.recordings(), torch.tensor(labels, dtype=torch.int64)


def _n_mnist_file(file: IO[bytes]) -> Iterator[Events]:
    """Five bytes an event: column, row, then polarity (1 bit) and microseconds (23 bits), the highest byte first."""
    shift = 0
    while raw := file.read(5 * EVENTS):
        if len(raw) % 5:
            raise ValueError(f"its last event has {len(raw) % 5} of 5 bytes; it is cut off")
        column, row, high, middle, low = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 5).T.astype(np.int64)
        over = row == OVERFLOW_ROW
        times = ((high & 127) << 16 | middle << 8 | low) + shift + OVERFLOW * over.cumsum()
        shift += OVERFLOW * int(over.sum())
        yield _inside(times, high >> 7, row, column, ~over, N_MNIST)


def _aedat2_file(file: IO[bytes]) -> Iterator[Events]:
    """AEDAT 2: lines that begin with #, then address and microseconds, 32 bits each, the highest byte first.

    The address of a DVS128: bit 0 is 0 for ON; 7 bits each count columns and rows from the far corner, exchanged as the
    camera was turned; bit 15 marks what is no event of a pixel. Corner and turn as two public readers have them
    (SpikingJelly and Tonic), which show the pictures upright.
    """
    start = _text_before(file, "#!AER-DAT2.0")
    file.seek(start)
    first = None
    while raw := file.read(8 * EVENTS):
        if len(raw) % 8:
            raise ValueError(f"its last event has {len(raw) % 8} of 8 bytes; it is cut off")
        address, times = np.frombuffer(raw, dtype=">u4").reshape(-1, 2).T.astype(np.int64)
        if bool((address >> 16).any()):
            raise ValueError("it has an address beyond 16 bits, which a DVS128 does not have")
        first = int(times[0]) if first is None else first
        row, column = 127 - (address >> 1 & 127), 127 - (address >> 8 & 127)
        yield _inside(times - first, 1 - (address & 1), row, column, address >> 15 == 0, DVS128)


def _inside(times, polarity, row, column, kept, shape: tuple[int, int, int]) -> Events:
    if not kept.all():
        times, polarity, row, column = (v[kept] for v in (times, polarity, row, column))
    _, height, width = shape
    if len(row) and (row.max() >= height or column.max() >= width):
        raise ValueError(f"it has a pixel in row {row.max()}, column {column.max()}; there are {height} x {width}")
    return times, (polarity * height + row) * width + column


def _text_before(file: IO[bytes], magic: str, last: str | None = None) -> int:
    """Where the events begin: after the lines with #, or after the line ``last``."""
    if file.readline(HEADER).decode("latin-1").strip() != magic:
        raise ValueError(f"its first line is not '{magic}'")
    while True:
        start = file.tell()
        line = file.readline(HEADER)
        if start > HEADER:
            raise ValueError(f"its header is longer than {HEADER} bytes")
        if last is None and not line.startswith(b"#"):
            return start
        if last is not None and line.decode("latin-1").strip() == last:
            return file.tell()
        if not line:
            raise ValueError(f"its header does not end with '{last}'")


def dvs_gesture(folder: Path, trials: str) -> tuple[Recordings, Tensor]:
    """The gestures of the recordings that a list names (Amir et al. 2017): 128 x 128 pixels, about 6 s each.

    Each gesture is the window of ``<recording>_labels.csv``, start <= t < end, with its times from the start on. Rows
    and columns are as stored.
    """
    store, labels = Store(DVS128), []
    with opened(folder / trials) as file:
        names = [line.strip() for line in text(file) if line.strip()]
        for name in names:
            if not re.fullmatch(r"[\w.-]{1,100}\.aedat", name, re.ASCII):
                raise ValueError(f"'{name[:80]}' is not the name of a recording")
    for path in (folder / name for name in names):
        for layer in gestures(path.with_name(f"{path.stem}_labels.csv")):
            with opened(path) as file:
                _cut(file, layer, store)
            labels += layer[:, 0].tolist()
    return store.recordings(), torch.tensor(labels, dtype=torch.int64)


def gestures(path: Path) -> list[np.ndarray]:
    """Class from 0, start and end in microseconds (n, 3), by start, in groups that do not overlap.

    There is one group but in odd files.
    """
    with opened(path) as file:
        lines = text(file)
        if not lines or [v.strip() for v in lines[0].split(",")] != LABELS:
            raise ValueError(f"its first line is not '{','.join(LABELS)}'")
        rows = [line.split(",") for line in lines[1:] if line.strip()]
        if len(rows) > MOST_WINDOWS:
            raise ValueError(f"it has {len(rows)} gestures; at most {MOST_WINDOWS} are read")
        for row in rows:
            if len(row) != 3 or not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", v) for v in row):
                raise ValueError(f"'{','.join(row)[:80]}' is not a class, a start and an end")
        found = np.array(rows, dtype=object).astype(np.int64).reshape(-1, 3)
        for kind, start, end in found.tolist():
            if not 1 <= kind <= len(GESTURES):
                raise ValueError(f"class {kind} is not in 1..{len(GESTURES)}")
            if not start < end <= start + LONGEST:
                raise ValueError(f"a gesture from {start} to {end} microseconds is none")
        found[:, 0] -= 1
        return _layers(found[found[:, 1].argsort(kind="stable")])


def _layers(windows: np.ndarray) -> list[np.ndarray]:
    layers: list[list[np.ndarray]] = []
    for window in windows:
        free = next((layer for layer in layers if layer[-1][2] <= window[1]), None)
        if free is None:
            if len(layers) == MOST_LAYERS:
                raise ValueError(f"more than {MOST_LAYERS} gestures are labelled at the same time")
            layers.append([window])
        else:
            free.append(window)
    return [np.stack(layer) for layer in layers]


def _cut(file: IO[bytes], windows: np.ndarray, store: Store) -> None:
    """Add the events of windows that are in order and apart."""
    lengths = np.zeros(len(windows), dtype=np.int64)
    last = 0
    for times, units in _aedat3(file):
        if times[0] < last or bool((times[1:] < times[:-1]).any()):
            raise ValueError(f"its times run backwards after {last} microseconds")
        last = int(times[-1])
        which = windows[:, 1].searchsorted(times, "right") - 1
        kept = (which >= 0) & (times < windows[which, 2])
        which = which[kept]
        store.add(times[kept] - windows[which, 1], units[kept])
        lengths += np.bincount(which, minlength=len(windows))
    store.end_many(lengths)


def _aedat3(file: IO[bytes]) -> Iterator[Events]:
    """AEDAT 3.1: text, then packets of a head (28 bytes) and events, the lowest byte first.

    An event of polarity: bit 0 valid, bit 1 ON, bits 2-16 row, bits 17-31 column; then 31 bits of microseconds, and
    the packet's head counts how often these have overflown.
    """
    size = file.seek(0, 2)
    file.seek(0)
    at = _text_before(file, "#!AER-DAT3.1", "#!END-HEADER")
    while at < size:
        raw = file.read(PACKET.itemsize)
        if len(raw) < PACKET.itemsize:
            raise ValueError("the head of its last packet is cut off")
        head = dict(zip(PACKET.names or (), np.frombuffer(raw, dtype=PACKET)[0].tolist(), strict=True))
        at += PACKET.itemsize
        if min(head.values()) < 0 or head["valid"] > head["number"]:
            raise ValueError(f"the packet that ends its head at byte {at} has counts that cannot be: {head}")
        if head["number"] * head["size"] > size - at:
            raise ValueError(f"{head['number']} events are promised at byte {at}, where {size - at} bytes are left")
        at += head["number"] * head["size"]
        if head["type"] != POLARITY or not head["valid"]:
            file.seek(at)
            continue
        if (head["size"], head["offset"]) != (8, 4):
            raise ValueError(f"events of {head['size']} bytes with times at {head['offset']}; 8 and 4 are wanted")
        yield from _packet(file, head)


def _packet(file: IO[bytes], head: dict[str, int]) -> Iterator[Events]:
    left, valid = head["number"], 0
    while left:
        data, times = np.frombuffer(file.read(8 * min(left, EVENTS)), dtype="<u4").reshape(-1, 2).T.astype(np.int64)
        left -= len(data)
        if bool((times >> 31).any()):
            raise ValueError("it has a negative time")
        kept = np.ones(len(data), dtype=bool) if head["valid"] == head["number"] else data & 1 == 1
        valid += int(kept.sum())
        found = _inside(times + (head["overflow"] << 31), data >> 1 & 1, data >> 2 & 0x7FFF, data >> 17, kept, DVS128)
        if len(found[0]):
            yield found
    if valid != head["valid"]:
        raise ValueError(f"a packet promises {head['valid']} valid events and has {valid}")
