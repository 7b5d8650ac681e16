"""Local errors: each layer has a critic of its own, and nothing goes down (tutorial Sec. V-D, Eq. 19, Fig. 5d)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.losses import CurrentCount, OverTime, SpikeCount
from snnlearn.spatial.base import Loss, Output, Outputs, Spatial
from snnlearn.spatial.drawing import check_generator, check_layers, layer_sizes, normal

if TYPE_CHECKING:
    from snnlearn.events import EventNetwork
    from snnlearn.network import Network
    from snnlearn.rule import Rule

Regularizer = Callable[[Tensor], Tensor]


class LocalErrors(Spatial):
    """L = sum_l L(G_l s_l, y): a fixed random readout G_l of each layer is compared with the target (Eq. 19).

    The last layer of a network that ends in a readout is compared as it is. Make it for a network: `random`. The value
    of the loss is the sum over all layers.

    Args:
        readouts: one for each layer, the lowest first, from its spikes (batch, neurons) to (batch, C); the last layer
            may have none.
        trained: whether the readouts learn too, each by its own layer's loss; then give them to the optimiser
            (`Rule.parameters`). Fixed in the paper; otherwise they are frozen. The modules given are copied.
        regularizer: from the membranes U (B, *features) of a layer that has a readout to what they cost at one step,
            added to the step's loss; see `keep_active`. It needs a loss that is a sum over time.
    """

    def __init__(self, readouts: Sequence[nn.Module], *, trained: bool = False, regularizer: Regularizer | None = None):
        super().__init__()
        _checks.modules("local readouts", readouts)
        _checks.flag("trained", trained)
        if regularizer is not None and not callable(regularizer):
            raise TypeError(f"regularizer must be a function of U, got {regularizer!r}")
        self.readouts = nn.ModuleList(copy.deepcopy(module) for module in readouts).requires_grad_(trained)
        self.regularizer = regularizer

    @classmethod
    def random(
        cls,
        net: Network,
        generator: torch.Generator,
        *,
        classes: int | None = None,
        features: tuple[int, ...] | None = None,
        scale: float = 1.0,
        trained: bool = False,
        regularizer: Regularizer | None = None,
    ) -> Self:
        """A Linear readout without bias for each layer that fires, weights from N(0, scale**2 / neurons).

        Args:
            net: the network to draw for.
            generator: source of the draws.
            classes: C of the readouts; by default the number of the network's outputs, where it ends in a readout.
            features: shape of a sample's input at one step; not needed where the first synapse is an nn.Linear.
            scale: larger makes a layer's critic more certain.
            trained, regularizer: see the class.
        """
        check_layers(net)
        check_generator(generator)
        _checks.positive("scale", scale)
        *hidden, last = layer_sizes(net, features)
        ends = net.layers[-1].neuron.fire.analog
        if classes is None and not ends:
            raise ValueError("the network ends in a layer that fires, which gets a readout too: give its classes")
        classes = last if classes is None else classes
        _checks.whole("classes", classes, least=1)
        like, readouts = next(net.parameters()), []
        for n in hidden if ends else (*hidden, last):
            readout = nn.utils.skip_init(nn.Linear, n, classes, bias=False, dtype=like.dtype, device=like.device)
            with torch.no_grad():
                readout.weight.copy_(normal((classes, n), scale / math.sqrt(n), like, generator))
            readouts.append(readout)
        return cls(readouts, trained=trained, regularizer=regularizer)

    def down(self, i: int, synapse: nn.Module) -> nn.Module | None:
        """Nothing; the first layer's way to the network's input is its own."""
        return synapse if i == 0 else None

    def extra_repr(self) -> str:
        """What is not a submodule."""
        regularizer = getattr(self.regularizer, "__name__", type(self.regularizer).__name__)
        return f"trained={self.learns}, regularizer={None if self.regularizer is None else regularizer}"

    def reaches(self, i: int, synapse: nn.Module) -> bool:
        """Never."""
        return False

    def scores(self, outputs: Outputs) -> list[Tensor]:
        """What each layer says by its own readout, the last as it is where it has none: (T, B, C) or (B, C)."""
        read = [readout(layer.s.flatten(layer.lead)) for readout, layer in zip(self.readouts, outputs, strict=False)]
        return read + [layer.s for layer in outputs[len(read) :]]

    def answer(self, outputs: Outputs) -> Tensor:
        """What the last layer says."""
        return self.scores(outputs)[-1]

    def objective(self, loss: Loss, outputs: Outputs, y: Tensor) -> Tensor:
        """The sum of every layer's loss, and of what its activity costs."""
        losses = [loss(score, y) for score in self.scores(outputs)]
        if self.regularizer is not None:
            losses += [self._activity(loss, layer) for layer in outputs[: len(self.readouts)]]
        return sum(losses[1:], losses[0])

    def _activity(self, loss: Loss, layer: Output) -> Tensor:
        """The regularizer at one step, or added up over all of them with the loss's own weight."""
        assert self.regularizer is not None
        if layer.lead == 1:
            return self.regularizer(layer.U)
        assert isinstance(loss, OverTime)
        costs = [self.regularizer(U) for U in layer.U.unbind(0)]
        return loss.weight(*layer.U.shape[:2]) * sum(costs[1:], costs[0])

    def check(self, net: Network | EventNetwork, loss: Loss, rule: Rule) -> None:
        """See `Spatial.check`.

        Raises:
            ValueError: there are other than one readout a layer, a layer that fires has none, a readout does not fit
                its layer or is on another device, or the loss counts spikes.
            TypeError: a regularizer goes with a loss that is no sum over time; a readout has another dtype.
        """
        layers: Sequence[Any] = net.layers
        number, ends = len(layers), layers[-1].neuron.fire.analog
        if len(self.readouts) != number - 1 and not (len(self.readouts) == number and not ends):
            wanted = f"{number - 1}, since the last layer is a readout" if ends else f"{number - 1} or {number}"
            raise ValueError(
                f"{len(self.readouts)} local readouts for a network of {number} layers; it needs {wanted}: "
                "LocalErrors.random(net, generator)"
            )
        if isinstance(loss, SpikeCount | CurrentCount):
            raise ValueError(
                f"{type(loss).__name__} counts spikes, and local readouts have none; use OverTime(...) or CrossEntropy"
            )
        if self.regularizer is not None and not isinstance(loss, OverTime):
            raise TypeError("a regularizer costs something at each step and needs a loss that is a sum over time")
        first = next(net.parameters(), None)
        for i, (readout, layer) in enumerate(zip(self.readouts, layers, strict=False)):
            known = isinstance(readout, nn.Linear) and isinstance(layer.synapse, nn.Linear)
            if known and readout.in_features != layer.synapse.out_features:
                raise ValueError(
                    f"the readout of layer {i} takes {readout.in_features} neurons, the layer has "
                    f"{layer.synapse.out_features}; draw it for this network: LocalErrors.random(net, generator)"
                )
            weight = next(readout.parameters(), None)
            if first is not None and weight is not None:
                _checks.same_kind(f"the readout of layer {i}", weight, "the network's weights", first)
            if not all(_checks.finite(p) for p in readout.parameters()):
                raise ValueError(f"the readout of layer {i} holds NaN or infinity: it has diverged, or was loaded so")


def keep_active(U: Tensor, theta: float = 0.0, *, margin: float = 0.01, silent: float = 3e-3) -> Tensor:
    """What DECOLLE's code charges for activity: membranes above the threshold, and a layer that is nearly silent.

    mean(relu(x + margin)) + silent * relu(mean(0.1 - sigmoid(x))), x = U - theta; found in the authors' code, not in
    the paper. Scale it with a lambda: ``regularizer=lambda U: 0.1 * keep_active(U)``.

    Args:
        U: membranes of a layer, (B, *features).
        theta: the layer's threshold; DECOLLE's is 0.
        margin, silent: the constants of the code.
    """
    x = U - theta
    return (x + margin).relu().mean() + silent * (0.1 - x.sigmoid()).mean().relu()
