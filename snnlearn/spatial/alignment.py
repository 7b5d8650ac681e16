"""Feedback alignment: the error goes down through fixed random weights (tutorial Sec. V-A, Fig. 5b)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.spatial.base import Loss, Spatial, has_matrix
from snnlearn.spatial.drawing import check_generator, check_layers, frozen_copy

if TYPE_CHECKING:
    from snnlearn.events import EventNetwork
    from snnlearn.network import Network
    from snnlearn.rule import Rule


class FeedbackAlignment(Spatial):
    """Error below = G delta in place of W^T delta, with weights G of their own (Lillicrap et al. 2016).

    Make it for a network: `random`, `concordant` or `kolen_pollack`. Recurrent weights are aligned too: credit that
    goes from step to step through a layer's own spikes goes through random weights of its own.

    Args:
        backs: for each layer from the second on, a module like its synapse.
        recurrent: by the number of the layer, a module like its recurrent synapse; a layer left out keeps its own.
        signs: sign-concordant: of the weights in ``backs`` only the magnitudes count, their signs are those that the
            forward weights have at the time.
        learned: see `kolen_pollack`; otherwise the weights are frozen. The modules given are copied.

    A pooling or another leaf without weights keeps its own derivative. The first layer's way down, to the network's
    input, is its own.
    """

    events = True

    def __init__(
        self,
        backs: Sequence[nn.Module],
        recurrent: Mapping[int, nn.Module] | None = None,
        *,
        signs: bool = False,
        learned: bool = False,
    ):
        super().__init__()
        recurrent = recurrent or {}
        _checks.modules("feedback weights", backs)
        _checks.modules("feedback weights", list(recurrent.values()))
        _checks.flag("signs", signs)
        _checks.flag("learned", learned)
        for i in recurrent:
            _checks.whole("the number of a recurrent layer", i)
        # copies: what is frozen or learned here is nobody else's
        self.backs = nn.ModuleList(copy.deepcopy(module) for module in backs)
        self.recurrent = nn.ModuleDict({str(i): copy.deepcopy(module) for i, module in recurrent.items()})
        self.signs = signs
        for p in self.parameters():
            p.requires_grad_(learned and p.dim() >= 2)
        if signs and learned:
            raise ValueError("signs=True takes the signs from the forward weights, so nothing is left to learn")

    @classmethod
    def random(cls, net: Network | EventNetwork, generator: torch.Generator) -> Self:
        """Feedback weights that are drawn once, at the scale of the network's own, and never change.

        Args:
            net: the network to draw for; it is not changed.
            generator: source of the draws.
        """
        return cls(*_copies(net, generator))

    @classmethod
    def concordant(cls, net: Network | EventNetwork, generator: torch.Generator) -> Self:
        """Random magnitudes with the signs of the forward weights (Liao, Leibo & Poggio 2016)."""
        return cls(*_copies(net, generator), signs=True)

    @classmethod
    def kolen_pollack(cls, net: Network, generator: torch.Generator) -> Self:
        """Feedback weights that learn (Kolen & Pollack 1994; Akrout et al. 2019).

        They receive the same gradient as the forward weights, and have to be given to the same optimiser, with weight
        decay: then the difference of the two shrinks by the decay at every step, and G becomes W^T.
        """
        check_layers(net, events=True)
        every = [id(p) for layer in net.layers for p in layer.parameters(recurse=True)]
        if len(set(every)) < len(every):
            raise ValueError(
                "two layers share weights, which receive the gradients of both where their feedback receives one's; "
                "use FeedbackAlignment.random, or weights of their own"
            )
        return cls(*_copies(net, generator), learned=True)

    def extra_repr(self) -> str:
        """What is not a submodule."""
        return f"signs={self.signs}, learned={self.learns}"

    def down(self, i: int, synapse: nn.Module) -> nn.Module | None:
        """The random copy, from the second layer on."""
        if i == 0:
            return synapse
        back = self.backs[i - 1]
        return _concordant(synapse, back) if self.signs else back

    def back(self, i: int, recurrent: nn.Module) -> nn.Module:
        """The random copy of the layer's recurrent weights."""
        if str(i) not in self.recurrent:
            return recurrent
        back = self.recurrent[str(i)]
        return _concordant(recurrent, back) if self.signs else back

    @torch.no_grad()
    def angles(self, net: Network | EventNetwork) -> list[float]:
        """The angle between forward and feedback weights of each layer from the second on that has some, in degrees.

        Each layer's weights are taken as one vector. Near 90 for weights drawn apart; the smaller, the nearer the error
        that goes down is to backpropagation's (Lillicrap et al. 2016).
        """
        self._fits(net)
        found = []
        for i, layer in enumerate(net.layers):
            if i == 0 or not has_matrix(layer.synapse):  # type: ignore[arg-type]
                continue
            synapse: Any = layer.synapse
            back = self.down(i, synapse)
            assert back is not None
            w, g = (torch.cat([m.flatten().double() for m in _matrices(module)]) for module in (synapse, back))
            found.append(math.degrees(math.acos(torch.cosine_similarity(w, g, 0).clamp(-1, 1).item())))
        return found

    def check(self, net: Network | EventNetwork, loss: Loss, rule: Rule) -> None:
        """See `Spatial.check`.

        Raises:
            ValueError: the feedback weights were drawn for another network, or are on another device.
            TypeError: they have another dtype.
        """
        self._fits(net)

    def _fits(self, net: Network | EventNetwork) -> None:
        layers: list[Any] = list(net.layers)
        if len(self.backs) != len(layers) - 1:
            raise ValueError(
                f"feedback for {len(self.backs) + 1} layers, but the network has {len(layers)}; draw it for this "
                "network: FeedbackAlignment.random(net, generator)"
            )
        pairs = [
            (f"layer {i}", layer.synapse, back)
            for i, (layer, back) in enumerate(zip(layers[1:], self.backs, strict=True), 1)
        ]
        for key, back in self.recurrent.items():
            own = getattr(layers[int(key)], "recurrent", None) if int(key) < len(layers) else None
            if own is None:
                raise ValueError(f"feedback for recurrent weights of layer {key}, which has none")
            pairs.append((f"layer {key}'s recurrence", own, back))
        for name, synapse, back in pairs:
            own, twin = ({k: p for k, p in module.named_parameters() if p.dim() >= 2} for module in (synapse, back))
            shapes = [{k: tuple(p.shape) for k, p in found.items()} for found in (own, twin)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"the feedback of {name} has weights {shapes[1]}, its synapse {shapes[0]}; draw it for this "
                    "network: FeedbackAlignment.random(net, generator)"
                )
            for k, p in own.items():
                _checks.same_kind(f"the feedback {k} of {name}", twin[k], "the forward weight", p)
                if not _checks.finite(twin[k]):
                    raise ValueError(f"the feedback {k} of {name} holds NaN or infinity: it has diverged")


def _copies(net: Network | EventNetwork, generator: torch.Generator) -> tuple[list[nn.Module], dict[int, nn.Module]]:
    """Random copies of all synapses but the first, and of the recurrent ones."""
    check_layers(net, events=True)
    check_generator(generator)
    layers: list[Any] = list(net.layers)
    backs = [frozen_copy(layer.synapse, generator) for layer in layers[1:]]
    own = {i: module for i, layer in enumerate(layers) if (module := getattr(layer, "recurrent", None)) is not None}
    return backs, {i: frozen_copy(module, generator) for i, module in own.items()}


def _concordant(synapse: nn.Module, back: nn.Module) -> nn.Module:
    """A module like the synapse with the magnitudes of ``back`` and the synapse's present signs."""
    if isinstance(synapse, nn.Sequential) and isinstance(back, nn.Sequential):
        return nn.Sequential(*(_concordant(*pair) for pair in zip(synapse, back, strict=True)))
    return _Concordant(synapse, back) if has_matrix(synapse) else synapse


def _matrices(module: nn.Module) -> list[Tensor]:
    """The weights of two or more axes that an error goes through, in order."""
    if isinstance(module, nn.Sequential):
        return [m for part in module for m in _matrices(part)]
    if isinstance(module, _Concordant):
        return list(module.values.values())
    return [p for p in module.parameters() if p.dim() >= 2]


class _Concordant(nn.Module):
    """Made anew at each call, so that it follows the forward weights."""

    def __init__(self, synapse: nn.Module, back: nn.Module):
        super().__init__()
        magnitudes = dict(back.named_parameters())
        self.module = back
        self.values = {
            name: magnitudes[name].abs() * p.detach().sign() for name, p in synapse.named_parameters() if p.dim() >= 2
        }

    @property
    def weight(self) -> Tensor:
        """The weight of a module that has one of this name."""
        return self.values["weight"]

    def forward(self, x: Tensor) -> Tensor:
        """The module's output with these weights."""
        return torch.func.functional_call(self.module, self.values, (x,))
