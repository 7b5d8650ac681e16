"""Drawing feedback weights: from a generator, at the scale of the weights that they stand in for."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from snnlearn.events import EventNetwork
    from snnlearn.network import Network


def check_generator(generator: object) -> torch.Generator:
    """Refuse what is no generator."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator such as torch.Generator().manual_seed(0), got {generator!r}"
        )
    return generator


def check_layers(net: object, *, events: bool = False) -> None:
    """Refuse what has no layers to draw weights for, and an EventNetwork unless it will do."""
    layers = getattr(net, "layers", None)
    if isinstance(net, nn.Module) and layers is not None and not any(True for _ in net.parameters()):
        raise ValueError("the network has no weights, so there is nothing to draw feedback for")
    if not isinstance(layers, nn.ModuleList) or not (events or all(hasattr(layer, "neuron") for layer in layers)):
        raise TypeError(f"these feedback weights are drawn for a Network, got {type(net).__name__}")


def normal(shape: tuple[int, ...], std: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers from N(0, std**2), of the dtype and on the device of ``like``; the draws are the generator's."""
    drawn = torch.randn(shape, dtype=like.dtype, device=generator.device, generator=generator)
    return (std * drawn).to(like.device)


def frozen_copy(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with random weights that do not learn: N(0, m), m the mean square of the weights it stands in for.

    Weights that are all 0 are stood in for by N(0, 1/inputs). A bias sends no error and is 0.
    """
    twin = copy.deepcopy(module).requires_grad_(False).eval()  # no running statistic of it shall move
    for name, p in twin.named_parameters():
        if p.dim() >= 2:
            p.grad = None
            p.copy_(normal(tuple(p.shape), _scale(p), p, generator))
        elif name.endswith("bias"):
            p.zero_()
    return twin


def _scale(weight: Tensor) -> float:
    return weight.square().mean().sqrt().item() or 1 / math.sqrt(weight[0].numel())


def layer_sizes(net: Network | EventNetwork, features: tuple[int, ...] | None) -> list[int]:
    """The number of neurons of each layer.

    Args:
        net: the network.
        features: shape of a sample's input at one step; not needed where the first synapse is an nn.Linear.

    Raises:
        ValueError: it is needed and missing, or the layers do not take it.
    """
    first = net.layers[0].synapse
    if features is None:
        if not isinstance(first, nn.Linear):
            raise ValueError(
                "the first synapse is no nn.Linear, so the shape of its input must be told: features=(channels, "
                "height, width), or whatever one step of one sample has"
            )
        features = (first.in_features,)
    if not isinstance(features, tuple | list) or not features:
        raise TypeError(f"features is the shape of one step of one sample, such as (2, 34, 34), got {features!r}")
    x: Tensor
    layers: Sequence[Any] = net.layers
    sizes, x = [], torch.zeros(1, *features, device="meta")
    for i, layer in enumerate(layers):
        try:  # on copies without data: nothing is computed, and no running statistic moves
            x = copy.deepcopy(layer.synapse).eval().to("meta", torch.get_default_dtype())(x)
        except RuntimeError as error:
            raise ValueError(f"layer {i} does not take inputs of shape {tuple(x.shape[1:])}: {error}") from error
        sizes.append(x[0].numel())
    return sizes
