"""Data that is simply there, in splits that never change."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Samples x (N, *features) and integer labels y (N,)."""

    x: Tensor
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


def digits(split_seed: int = 0) -> Dataset:
    """Handwritten digits, 8 x 8 pixels in 0..1, from scikit-learn (Alpaydin & Kaynak 1998; UCI, CC BY 4.0).

    1797 images; a fifth is held out for the test and a tenth for validation, by class.

    Args:
        split_seed: which images go where. The figures in this project's README belong to 0.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = x / 16  # 4-bit pixels
    rest_x, test_x, rest_y, test_y = train_test_split(x, y, test_size=0.2, stratify=y, random_state=split_seed)
    train_x, val_x, train_y, val_y = train_test_split(
        rest_x, rest_y, test_size=0.125, stratify=rest_y, random_state=split_seed
    )

    def split(x, y) -> Split:
        return Split(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y))

    return Dataset(split(train_x, train_y), split(val_x, val_y), split(test_x, test_y), classes=10)
