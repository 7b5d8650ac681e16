"""Weights in a file of the safetensors format, which other programs read and which executes nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnlearn.rule import Rule
from snnlearn.training.checkpoints import write

CHECKSUM = "snnlearn sha256"


def _format() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ValueError('safetensors is not installed; pip install "snnlearn[scale]"') from error
    return safetensors


def writable() -> bool:
    """Whether safetensors is installed."""
    return importlib.util.find_spec("safetensors") is not None


def _named(net: nn.Module, rule: Rule | None) -> dict[str, Tensor]:
    """Parameters and buffers by name, those of a rule's feedback after "spatial.", as its gradients are named."""
    named = dict(net.state_dict())
    if rule is not None:
        named |= {f"spatial.{name}": value for name, value in rule.spatial.state_dict().items()}
    return named


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of names, kinds, shapes and bits, and of what is told about them."""
    told = {k: v for k, v in metadata.items() if k != CHECKSUM}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name].contiguous()
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        digest.update(x.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_weights(
    net: nn.Module,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    rule: Rule | None = None,
) -> None:
    """Write a network's weights; the file is there whole or not at all.

    Args:
        net: a `Network`, `EventNetwork` or any other module.
        path: of the file, by custom NAME.safetensors.
        metadata: names and texts to go with them.
        rule: a rule whose feedback weights shall be saved too, as "spatial." and their name.

    Raises:
        ValueError: safetensors is not installed.
        TypeError: metadata is not text.
    """
    told = dict(metadata or {})
    if not all(isinstance(text, str) for pair in told.items() for text in pair):
        raise TypeError(f"metadata must be text by name, such as {{'rule': 'bptt'}}, got {told!r}")
    # copies of their own: the format takes no two tensors that share memory, as those of tied layers do
    tensors = {name: x.detach().cpu().clone().contiguous() for name, x in _named(net, rule).items()}
    told[CHECKSUM] = _checksum(tensors, told)
    write(Path(path), _format().torch.save(tensors, told))


def load_weights(net: nn.Module, path: str | os.PathLike[str], *, rule: Rule | None = None) -> dict[str, str]:
    """Read weights that `save_weights` wrote into a network, in place, all of them or none.

    Args:
        net: a network of the same layers.
        path: of the file.
        rule: a rule whose feedback weights shall be read too; those in the file are left alone if not given.

    Returns:
        The file's metadata.

    Raises:
        ValueError: there is no such file, it is damaged, or it belongs to another network; it says which weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file of weights {path}")
    library = _format()
    content = path.read_bytes()
    try:
        tensors = library.torch.load(content)
        told = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except (library.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no file of weights: {error}") from error
    if told.get(CHECKSUM) != _checksum(tensors, told):
        raise ValueError(
            f"{path} is damaged, or not by save_weights: its checksum is wrong or missing; save the weights again, or "
            "read a file of another program by safetensors.torch.load_file and net.load_state_dict"
        )
    own = _named(net, rule)
    if rule is None:
        tensors = {name: x for name, x in tensors.items() if name in own or not name.startswith("spatial.")}
    wrong = [f"{name} is missing" for name in own if name not in tensors]
    wrong += [f"{name} is not of this network" for name in tensors if name not in own]
    for name in own.keys() & tensors.keys():
        mine, its = (f"{tuple(x.shape)} {x.dtype}" for x in (own[name], tensors[name]))
        if mine != its:
            wrong.append(f"{name} is {its}, the network's {mine}")
    if wrong:
        raise ValueError(f"{path} does not fit this network: {'; '.join(sorted(wrong))}")
    for name, value in own.items():
        value.copy_(tensors[name])
    return told
