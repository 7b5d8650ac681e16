"""What a measurement was made on."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from snnlearn import __version__, kernels


def describe(device: torch.device) -> dict[str, str]:
    """The machine, by what there is to say of it. What cannot be found out is left out."""
    found = {
        "cpu": _model(),
        "cores": f"{_cores()} usable of {os.cpu_count()}",
        "caches": _caches(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "compiler": _compiler(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "snnlearn": __version__,
        "threads": str(torch.get_num_threads()),
        **kernels.status(),
        "load": _load(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {name: value for name, value in found.items() if value}


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model", "Hardware")))
    return next(names, "") or platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caches() -> str:
    """Of the first core, where the system tells: "L1 48K, L2 2M, L3 32M"; instructions left out."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)


def _compiler() -> str:
    name = next(filter(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++")), None)
    if name is None:
        return "none"
    out = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
    return out.partition("\n")[0]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
