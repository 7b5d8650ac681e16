"""What a data set is here."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Split(NamedTuple):
    """Samples x and integer labels y (N,).

    x is a tensor (N, *features) or `Recordings`; both are taken apart alike, by ``x[chosen]`` and ``x.split(batch)``.
    """

    x: Any
    y: Tensor

    def __len__(self) -> int:
        """The number of samples, not of fields."""
        return self.y.shape[0]


class Dataset(NamedTuple):
    """Three splits: learn on the first, choose settings on the second, look at the third once."""

    train: Split
    validation: Split
    test: Split
    classes: int
    names: tuple[str, ...] = ()  # of the classes, where they have some
