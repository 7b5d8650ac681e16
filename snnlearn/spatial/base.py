"""How credit travels through layers (tutorial Secs. III-A and V, Box 2, Fig. 5).

A spatial rule answers four questions and never touches a forward value:

    down(i, synapse) -> module or None      through what the error leaves layer i downwards
    back(i, recurrent) -> module            through what credit goes back along the layer's own recurrent weights
    inject(i, below) -> tensor or 0         a zero-valued current that carries a gradient: errors that do not come
                                            from the layer above
    objective(loss, outputs, y) -> scalar   who is told the error

Transpose answers with the weights themselves (backpropagation, Fig. 5a), `FeedbackAlignment` with frozen random copies
of them (5b), `DirectFeedback` sends the output's error to every layer (5c), `LocalErrors` gives every layer a critic of
its own (5d, Eq. 19).

A spatial rule is an `nn.Module`, so that its weights go to another device or dtype with ``.to()``, and are saved beside
the network's with ``state_dict()``. Everything here is (batch, *features): a sequence comes flattened to T * B, a
single step as B, so that methods backward and forward in time share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from snnlearn.adaptive import AdaptiveState, AdaptiveTrace
from snnlearn.neurons import State, Trace

if TYPE_CHECKING:  # networks and rules lie floors above
    from snnlearn.events import EventNetwork
    from snnlearn.network import Network
    from snnlearn.rule import Rule

Output = Trace | State | AdaptiveTrace | AdaptiveState
Outputs = Sequence[Output]
Loss = Callable[[Any, Any], Tensor]


class Spatial(nn.Module):
    """What all spatial rules share; the answers here are those of backpropagation. A rule of your own overrides some.

    Attributes:
        events: whether it works on spike times (`snnlearn.events.EventNetwork`), where only ``down`` is asked.
    """

    events = False

    def down(self, i: int, synapse: nn.Module) -> nn.Module | None:
        """Through what the error leaves layer i downwards: the synapse, another module like it, or None for no error.

        A module other than the synapse is taken apart leaf by leaf where both are an `nn.Sequential`; a leaf without a
        weight matrix, such as pooling, keeps its own derivative (`connect`).
        """
        return synapse

    def back(self, i: int, recurrent: nn.Module) -> nn.Module:
        """Through what credit goes back along layer i's own recurrent weights: they themselves, or a module like it."""
        return recurrent

    def inject(self, i: int, below: Sequence[Tensor]) -> Tensor | float:
        """Zero, with the gradient of errors for the layers below i that do not go through its synapse.

        Args:
            i: the layer whose current it is added to, before the layer's gain.
            below: the network's input and the spikes of every layer below, as they arrive; (batch, *features).
        """
        return 0.0

    def reaches(self, i: int, synapse: nn.Module) -> bool:
        """Whether an error at the current of layer i goes to a layer below."""
        return i > 0 and self.down(i, synapse) is not None

    def objective(self, loss: Loss, outputs: Outputs, y: Tensor) -> Tensor:
        """The scalar to differentiate: the loss of the last layer's outputs, over all steps or at one."""
        return loss(outputs[-1].s, y)

    def answer(self, outputs: Outputs) -> Tensor:
        """The network's output, which scores are taken from; (T, B, C), or (B, C) at one step."""
        return outputs[-1].s

    def check(self, net: Network | EventNetwork, loss: Loss, rule: Rule) -> None:
        """Refuse, with ValueError or TypeError, a network, loss or rule that makes no sense with this one."""

    @property
    def learns(self) -> bool:
        """Whether it has weights that are trained along with the network's; give them to the optimiser."""
        return any(p.requires_grad for p in self.parameters())


class Transpose(Spatial):
    """Backpropagation: the error goes down through the transposed weights (tutorial Eq. 10, Fig. 5a)."""

    events = True


def zero(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def has_matrix(module: nn.Module) -> bool:
    """Whether a module has weights of two or more axes, which an error can be sent through instead of its own."""
    return any(p.dim() >= 2 for p in module.parameters())


def connect(synapse: nn.Module, down: nn.Module | None, x: Tensor) -> Tensor:
    """synapse(x), with its error sent to x through ``down``, or nowhere where that is None.

    The weights of ``down`` receive the gradient that the synapse's own receive.
    """
    if down is None:
        return synapse(x.detach())
    if down is synapse:
        return synapse(x)
    if isinstance(synapse, nn.Sequential) and isinstance(down, nn.Sequential):
        for part, other in zip(synapse, down, strict=True):
            x = connect(part, other, x)
        return x
    if not has_matrix(synapse):
        return synapse(x)
    return synapse(x.detach()) + zero(down(x))


class Rerouted(nn.Module):
    """A recurrent synapse whose credit goes back through another module of the same form."""

    def __init__(self, synapse: nn.Module, back: nn.Module):
        super().__init__()
        self.synapse, self.back = synapse, back

    def forward(self, s: Tensor) -> Tensor:
        """The synapse's output."""
        return connect(self.synapse, self.back, s)


def recurrence(spatial: Spatial, i: int, recurrent: nn.Module | None) -> nn.Module | None:
    """Layer i's recurrent synapse as a spatial rule wants it differentiated."""
    if recurrent is None or (back := spatial.back(i, recurrent)) is recurrent:
        return recurrent
    return Rerouted(recurrent, back)
