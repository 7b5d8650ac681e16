"""Reading the golden vectors: numbers made by running the original authors' code (a sidecar .md says how)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """One file; 0-d entries come as Python numbers, `tm` gives (B, T, ...) as (T, B, ...)."""

    def __init__(self, stem: str, dtype: torch.dtype = torch.float64):
        with np.load(FOLDER / f"{stem}.npz") as file:
            self.arrays = {k: file[k] for k in file.files if file[k].dtype.kind in "fib"}
        self.dtype = dtype

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str):
        array = self.arrays[key]
        if array.ndim == 0:
            return array.item()
        tensor = torch.as_tensor(array)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def tm(self, key: str) -> Tensor:
        return self[key].transpose(0, 1)


def linear(weight: Tensor) -> nn.Linear:
    """A Linear without bias with these weights (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def equal(got: Tensor, wanted: Tensor, rtol: float = 1e-9) -> None:
    """Assert closeness relative to the largest entry; refuse a comparison with nothing but zeros."""
    assert wanted.abs().max() > 0, "a comparison with zeros proves nothing"
    torch.testing.assert_close(got.detach(), wanted, rtol=0, atol=rtol * wanted.abs().max().item())
