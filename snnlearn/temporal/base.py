"""What every method has in common."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.neurons import Neuron, State, Trace
from snnlearn.resets import no_reset, subtract, subtract_decayed, to_zero, to_zero_with_input
from snnlearn.surrogate import Surrogate


class Reset(enum.Enum):
    """What the gradient sees of the reset. The forward pass has the reset in all three.

    KEPT: all of it, the exact derivative of the smoothed neuron (EXODUS, BPTT).
    DETACHED: the spike that resets is taken for a constant.
    IGNORED: the membrane is differentiated as if there were no reset (SLAYER). The same as DETACHED for a reset by
    subtraction, not for one to zero, where DETACHED still knows that a spike cut the membrane's memory.
    """

    KEPT = "kept"
    DETACHED = "detached"
    IGNORED = "ignored"


@runtime_checkable
class Backward(Protocol):
    """Credit backward in time: the forward pass of a layer, with a gradient attached to it.

    A method of your own is any object with this ``run``; it needs no registration.
    """

    def run(
        self,
        neuron: Neuron,
        surrogate: Surrogate,
        a: Tensor,
        recurrent: Callable[[Tensor], Tensor] | None = None,
        lag: int = 1,
        state: State | None = None,
        sent: Sequence[Tensor] | None = None,
    ) -> Trace:
        """Simulate a layer, differentiably. Arguments and result as in `Neuron.simulate`."""


_KEEPS_WHAT_IS_NOT_FINITE = (subtract, subtract_decayed, to_zero, to_zero_with_input, no_reset)


def finite(neuron: Any, a: Tensor, last: Any) -> bool:
    """Whether no entry of the currents a (T, B, *features) is NaN or infinite, given the state after them.

    Under these resets such an entry leaves a membrane that is not finite at any later step, since 0 * infinity is NaN;
    so one look at the last state spares one at a.
    """
    if isinstance(neuron, Neuron) and neuron.reset in _KEEPS_WHAT_IS_NOT_FINITE and _checks.finite(last.U):
        return True
    return _checks.finite(a)


def check_reset(reset: object) -> None:
    """Refuse what is no `Reset`."""
    if not isinstance(reset, Reset):
        raise TypeError(f"reset must be one of {', '.join(map(str, Reset))}, got {reset!r}")


def call(module: nn.Module, parameters: Sequence[Tensor], values: Sequence[Tensor], *arguments: Any) -> Any:
    """module(*arguments) with ``values`` in the place of some of its parameters, wherever it holds them.

    functional_call by name spoils a module that holds another one twice; here each module is visited once.
    """
    new = dict(zip(map(id, parameters), values, strict=True))
    places = {
        f"{path}.{name}".lstrip("."): new[id(p)]
        for path, part in module.named_modules()
        for name, p in part.named_parameters(recurse=False, remove_duplicate=False)
        if id(p) in new
    }
    return torch.func.functional_call(module, places, arguments, tie_weights=False)


def check_axes(surrogate: object, temporal: object) -> None:
    """Refuse what is no surrogate, or no method through time."""
    if isinstance(surrogate, type) or not hasattr(surrogate, "slope"):
        raise TypeError(f"surrogate must be a Surrogate such as FastSigmoid(), got {surrogate!r}")
    if isinstance(temporal, type) or not isinstance(temporal, Backward):
        raise TypeError(f"temporal must be a method such as Unrolled(), got {temporal!r}")
