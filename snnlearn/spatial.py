"""How credit travels through layers (tutorial Sec. III-A and Fig. 5).

A spatial rule answers three questions and never touches a forward value:

    down(i, synapse) -> module or None      through what the error leaves layer i downwards
    inject(i, below) -> tensor or 0         a zero-valued current that carries a gradient: errors that do not come
                                            from the layer above
    objective(loss, outputs, y) -> scalar   who is told the error

It is an `nn.Module`, so that fixed random feedback weights can be saved with the network. Everything here is
(batch, *features): a sequence comes flattened to T * B, a single step as B, so that methods backward and forward in
time share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from snnlearn.neurons import State, Trace


class Transpose(nn.Module):
    """Backpropagation: the error goes down through the transposed weights (tutorial Eq. 10, Fig. 5a)."""

    def down(self, i: int, synapse: nn.Module) -> nn.Module | None:
        """The synapse of layer i itself."""
        return synapse

    def inject(self, i: int, below: Sequence[Tensor]) -> Tensor | float:
        """Nothing: all errors come from the layer above."""
        return 0.0

    def objective(
        self, loss: Callable[[Tensor, Tensor], Tensor], outputs: Sequence[Trace | State], y: Tensor
    ) -> Tensor:
        """The loss of the last layer; its outputs over all steps, or at one."""
        return loss(outputs[-1].s, y)


def connect(synapse: nn.Module, down: nn.Module | None, x: Tensor) -> Tensor:
    """synapse(x), with its error sent to x through ``down``: the synapse itself, or None for no error at all."""
    if down is None:
        return synapse(x.detach())
    if down is synapse:
        return synapse(x)
    raise TypeError(f"no way to send an error through {type(down).__name__}; down must be the synapse or None")
