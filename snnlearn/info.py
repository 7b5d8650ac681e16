"""What is here, and what is not and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import torch

from snnlearn import __version__, kernels

PACKAGES = ("numpy", "matplotlib", "scikit-learn", "tqdm", "h5py")
EXTRAS = {  # and what installs them
    "jupyterlab": "lab",
    "ipywidgets": "lab",
    "safetensors": "scale",
    "tensorboard": "scale",
    "nir": "nir",
    "nbval": "test",
}


def report() -> Iterator[tuple[str, str]]:
    """Pairs of a name and what there is to say of it."""
    yield "snnlearn", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    for name in (*PACKAGES, *EXTRAS):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            extra = f"[{EXTRAS[name]}]" if name in EXTRAS else ""
            yield name, f'not installed; pip install "snnlearn{extra}"'
    yield "device cpu", platform.processor() or platform.machine()
    yield "device cuda", _cuda()
    yield "device mps", "available" if torch.backends.mps.is_available() else "not available: this is no Apple GPU"
    yield from kernels.status().items()


def _cuda() -> str:
    if torch.version.cuda is None:
        return "not available: this build of torch has no CUDA; install a CUDA build of torch"
    if not torch.cuda.is_available():
        return f"not available: torch has CUDA {torch.version.cuda}, but no GPU or driver was found"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{names}, CUDA {torch.version.cuda}"
