"""Handwritten digits, from scikit-learn."""

from __future__ import annotations

import torch

from snnlearn.datasets.base import Dataset, Split


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
