"""Images in the published formats of MNIST, Fashion-MNIST (idx) and CIFAR10 (binary version)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snnlearn.datasets.files import opened

MOST_IMAGES = 200_000  # of one file
DEFLATE = 1032  # times longer than what it was packed into is the most that gzip's method reaches
RECORD = 1 + 3 * 32 * 32  # bytes: label, then red, green and blue, row by row


def idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Bytes (N, *shape), uint8, of an idx file, packed with gzip if its name ends with ``.gz``.

    The head: two zero bytes, 8 for unsigned bytes, the number of axes, and each axis's length, 32 bits with the highest
    byte first (LeCun, Cortes & Burges). No more is unpacked than the head promises, and a promise that is too large for
    the file is refused before.
    """
    packed = path.suffix == ".gz"
    with opened(path) as stored, gzip.open(stored) if packed else stored as file:
        magic = file.read(4)
        if magic != bytes([0, 0, 8, 1 + len(shape)]):
            raise ValueError(f"it begins with {magic.hex(' ')}; an idx file of {1 + len(shape)} axes is wanted")
        head = file.read(4 * (1 + len(shape)))
        if len(head) < 4 * (1 + len(shape)):
            raise ValueError("its head is cut off")
        count, *rest = np.frombuffer(head, dtype=">u4").tolist()
        if tuple(rest) != shape:
            raise ValueError(f"its images have shape {tuple(rest)}; {shape} is wanted")
        size = path.stat().st_size
        promised = count * int(np.prod(shape))
        if count > MOST_IMAGES or promised > size * (DEFLATE if packed else 1):
            raise ValueError(f"{count} entries are promised by a file of {size} bytes")
        out = torch.empty(promised, dtype=torch.uint8)
        held = memoryview(out.numpy())  # type: ignore[arg-type]
        filled = 0
        while filled < promised:
            got = file.readinto(held[filled : filled + 2**20])
            if not got:
                raise ValueError(f"it ends after {filled} of {promised} bytes")
            filled += got
        if file.read(1):
            raise ValueError(f"it goes on after the {promised} bytes that it promises")
    return out.view(count, *shape)


def labelled(images: Path, labels: Path, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28), uint8, and labels (N,), int64, of two idx files."""
    x, y = idx(images, (28, 28)), idx(labels, ())
    if len(x) != len(y):
        raise ValueError(f"{labels}: {len(y)} labels for the {len(x)} images of {images.name}")
    if len(y) and int(y.max()) >= classes:
        raise ValueError(f"{labels}: label {int(y.max())} is not in 0..{classes - 1}")
    return x.unsqueeze(1), y.long()


def cifar10(paths: list[Path], classes: int = 10) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32), uint8, and labels (N,), int64, of files of the binary version (Krizhevsky 2009)."""
    counts = []
    for path in paths:
        size = path.stat().st_size
        if size == 0 or size % RECORD or size // RECORD > MOST_IMAGES:
            raise ValueError(f"{path}: {size} bytes are not a whole number, 1..{MOST_IMAGES}, of {RECORD}")
        counts.append(size // RECORD)
    x, y = torch.empty(sum(counts), 3, 32, 32, dtype=torch.uint8), torch.empty(sum(counts), dtype=torch.int64)
    n = 0
    for path, count in zip(paths, counts, strict=True):
        with opened(path) as file:
            for first in range(n, n + count, 1000):
                some = min(1000, n + count - first)
                raw = np.frombuffer(file.read(some * RECORD), dtype=np.uint8).reshape(some, RECORD)
                if int(raw[:, 0].max()) >= classes:
                    raise ValueError(f"label {int(raw[:, 0].max())} is not in 0..{classes - 1}")
                y[first : first + some] = torch.from_numpy(raw[:, 0].astype(np.int64))
                x[first : first + some] = torch.from_numpy(raw[:, 1:].reshape(some, 3, 32, 32).copy())
        n += count
    return x, y
