"""A split for torch's DataLoader: batches are cut out of the flat events by the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from snnlearn import _checks
from snnlearn.datasets.base import Split


class Samples(torch.utils.data.Dataset):
    """A split as torch's DataLoader wants it, with `collate`; `loader` puts the two together.

    Args:
        split: the samples.
        encode: what is done to the x of a batch, in the worker; by default nothing.
    """

    def __init__(self, split: Split, encode: Callable[[Any], Any] | None = None):
        if len(split.x) != len(split.y):
            raise ValueError(f"the split has {len(split.x)} samples and {len(split.y)} labels")
        self.split, self.encode = split, encode

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.split)

    def __getitem__(self, n: int) -> tuple[Any, Tensor]:
        """One sample as a batch of one."""
        _checks.whole("n", n)
        if n >= len(self):
            raise IndexError(f"there are {len(self)} samples, got {n}")
        return self.__getitems__([n])

    def __getitems__(self, chosen: list[int]) -> tuple[Any, Tensor]:
        """The chosen samples as one batch."""
        where = torch.as_tensor(chosen, dtype=torch.int64)
        x = self.split.x[where]
        return (x if self.encode is None else self.encode(x)), self.split.y[where]


def collate(batch: Any) -> tuple[Any, Tensor]:
    """The batch as `Samples` made it; torch's own would take it apart."""
    return batch


def loader(
    split: Split,
    batch: int,
    *,
    generator: torch.Generator | None = None,
    encode: Callable[[Any], Any] | None = None,
    **more: Any,
) -> DataLoader:
    """Batches (x, y), x `Recordings` or a tensor (B, *features), y (B,).

    The order is drawn from a generator that nothing else draws from, so that it is the same with any number of workers,
    in every epoch. (Where `DataLoader` itself is given the generator it also draws the workers' seeds from it, for
    persistent workers in the first epoch only.)

    Args:
        split: the samples.
        batch: how many of them at once.
        generator: shuffles them, anew in every epoch; without one they come in order.
        encode: what is done to the x of a batch, in the worker; for example ``lambda x: x.dense(100, 10e-3)`` (a
            function of a module where workers are spawned).
        **more: what else `DataLoader` takes, such as ``num_workers``, ``persistent_workers`` or ``drop_last``.

    >>> [y.tolist() for x, y in loader(Split(torch.eye(3), torch.arange(3)), 2)]
    [[0, 1], [2]]
    """
    samples = Samples(split, encode)
    seeds = torch.Generator().manual_seed(0 if generator is None else generator.initial_seed())
    order = None if generator is None else RandomSampler(samples, generator=generator)
    return DataLoader(samples, batch, sampler=order, collate_fn=collate, generator=seeds, **more)
