"""Direct feedback alignment: the output's error goes to every layer at once (tutorial Sec. V-A, Box 2, Fig. 5c)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.spatial.base import Loss, Outputs, Spatial, zero
from snnlearn.spatial.drawing import check_generator, check_layers, layer_sizes, normal

if TYPE_CHECKING:
    from snnlearn.events import EventNetwork
    from snnlearn.network import Network
    from snnlearn.rule import Rule


class DirectFeedback(Spatial):
    """e_l[n] = H_l^T dL/dy[n], with weights H_l (outputs, neurons of layer l) from the output to each hidden layer.

    Make it for a network: `random`, `uniform` or `adaptive` (Nøkland 2016; for eligibility traces, the broadcast of
    Bellec et al. 2020 and the feedback of Zenke & Ganguli 2018).

    Args:
        H: one matrix for each hidden layer, the lowest first.
        through_readout: the error is taken at the current of the last layer, behind its memory: H_l^T dL/da[n], with
            what the last layer's dynamics make of later errors (in the layer's own units: before its gain). By default
            it is taken at its output, as the tutorial's delta^L = dL/dy.
        learned: H receives the gradient of the weights that it stands in for; see `adaptive`.
    """

    def __init__(self, H: Sequence[Tensor], *, through_readout: bool = False, learned: bool = False):
        super().__init__()
        _checks.flag("through_readout", through_readout)
        _checks.flag("learned", learned)
        if not isinstance(H, list | tuple):
            raise TypeError(f"H must be a list of matrices, one for each hidden layer, got {type(H).__name__}")
        for i, h in enumerate(H):
            if not isinstance(h, Tensor) or h.dim() != 2 or not h.is_floating_point():
                came = f"shape {tuple(h.shape)}, {h.dtype}" if isinstance(h, Tensor) else type(h).__name__
                raise ValueError(f"H[{i}] must be a floating-point matrix (outputs, neurons of layer {i}), got {came}")
            if not _checks.finite(h):
                raise ValueError(f"H[{i}] holds NaN or infinity")
        self.H = nn.ParameterList(nn.Parameter(h.detach().clone(), requires_grad=learned) for h in H)
        self.through_readout = through_readout

    @classmethod
    def random(
        cls,
        net: Network,
        generator: torch.Generator,
        *,
        features: tuple[int, ...] | None = None,
        std: float | None = None,
        through_readout: bool = False,
    ) -> Self:
        """Matrices drawn once from N(0, std**2).

        Args:
            net: the network to draw for.
            generator: source of the draws.
            features: shape of a sample's input at one step; not needed where the first synapse is an nn.Linear.
            std: by default 1 / sqrt(outputs).
            through_readout: see the class.
        """
        check_generator(generator)
        *hidden, outputs = _sizes(net, features)
        std = 1 / math.sqrt(outputs) if std is None else std
        _checks.positive("std", std)
        like = next(net.parameters())
        return cls([normal((outputs, n), std, like, generator) for n in hidden], through_readout=through_readout)

    @classmethod
    def uniform(cls, net: Network, *, features: tuple[int, ...] | None = None) -> Self:
        """Every entry 1: all neurons are told the same, the sum of the errors (Zenke & Ganguli 2018)."""
        *hidden, outputs = _sizes(net, features)
        like = next(net.parameters())
        return cls([torch.ones(outputs, n, dtype=like.dtype, device=like.device) for n in hidden])

    @classmethod
    def adaptive(
        cls,
        net: Network,
        generator: torch.Generator,
        *,
        features: tuple[int, ...] | None = None,
        std: float | None = None,
    ) -> Self:
        """Random at first, then learned as the output's weights are (adaptive e-prop, Bellec et al. 2020).

        H receives the gradient of the readout's weights; given to the same optimiser, with weight decay, it becomes
        equal to them (Kolen & Pollack 1994). The error is taken through the readout.
        """
        found = cls.random(net, generator, features=features, std=std, through_readout=True)
        for h in found.H:
            h.requires_grad_(True)
        return found

    def extra_repr(self) -> str:
        """What is not a parameter."""
        return f"through_readout={self.through_readout}, learned={self.learns}"

    def down(self, i: int, synapse: nn.Module) -> nn.Module | None:
        """Nothing goes from layer to layer; the first layer's way to the network's input is its own."""
        return synapse if i == 0 else None

    def reaches(self, i: int, synapse: nn.Module) -> bool:
        """Of the last layer, where the error is taken at its current."""
        return self.through_readout and 0 < i == len(self.H)

    def inject(self, i: int, below: Sequence[Tensor]) -> Tensor | float:
        """At the last layer's current, H_l s_l of every hidden layer."""
        if not self.reaches(i, nn.Identity()):
            return 0.0
        return self._fed([s.flatten(1) for s in below[1:]])

    def objective(self, loss: Loss, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss of the last layer's outputs, to which H_l s_l of every hidden layer is added with value 0."""
        *hidden, last = outputs
        if self.through_readout or not hidden:
            return loss(last.s, y)
        fed = self._fed([layer.s.flatten(layer.lead) for layer in hidden])
        if fed.shape.numel() != last.s.shape.numel():
            raise ValueError(
                f"H comes from {fed.shape[-1]} outputs, the network has {tuple(last.s.shape[last.lead :])}; draw it "
                "for this network: DirectFeedback.random(net, generator)"
            )
        return loss(last.s + fed.reshape(last.s.shape), y)

    def _fed(self, hidden: Sequence[Tensor]) -> Tensor:
        for i, (s, h) in enumerate(zip(hidden, self.H, strict=True)):
            if s.shape[-1] != h.shape[1]:
                raise ValueError(
                    f"H[{i}] feeds {h.shape[1]} neurons, layer {i} has {s.shape[-1]}; draw it for this network, with "
                    "the features of its input"
                )
        parts = [s @ h.T for s, h in zip(hidden, self.H, strict=True)]
        return zero(sum(parts[1:], parts[0]))

    def check(self, net: Network | EventNetwork, loss: Loss, rule: Rule) -> None:
        """See `Spatial.check`.

        Raises:
            ValueError: H was drawn for another number of layers or outputs, or is on another device.
            TypeError: H has another dtype.
        """
        if len(self.H) != len(net.layers) - 1:
            raise ValueError(
                f"H for {len(self.H)} hidden layers, but the network has {len(net.layers) - 1}; draw it for this "
                "network: DirectFeedback.random(net, generator)"
            )
        first = next(net.parameters(), None)
        last = net.layers[-1].synapse
        for i, h in enumerate(self.H):
            if first is not None:
                _checks.same_kind(f"H[{i}]", h, "the network's weights", first)
            if not _checks.finite(h):
                raise ValueError(f"H[{i}] holds NaN or infinity: it has diverged, or was loaded so")
            if isinstance(last, nn.Linear) and len(h) != last.out_features:
                raise ValueError(f"H[{i}] comes from {len(h)} outputs, but the network has {last.out_features}")


def _sizes(net: Network, features: tuple[int, ...] | None) -> list[int]:
    check_layers(net)
    return layer_sizes(net, features)
