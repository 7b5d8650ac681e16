"""Backpropagation through time by torch's own autograd, through the loop: the reference for every other method.

Tutorial Sec. III-B and Box 2 (Eq. 11), Fig. 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.neurons import Neuron, State, Trace
from snnlearn.resets import Constant, Update, no_reset
from snnlearn.surrogate import Surrogate, firing
from snnlearn.temporal.base import Reset, check_reset


def seen(reset: Update, choice: Reset) -> Update:
    """The membrane update with the value of ``reset`` and as much of its derivative as ``choice`` lets through."""
    if choice is Reset.KEPT:
        return reset
    if choice is Reset.DETACHED:
        return lambda U, s, I, beta, theta: reset(U, s.detach(), I, beta, theta)

    def ignored(U: Tensor, s: Tensor, I: Tensor, beta: Constant, theta: Constant) -> Tensor:
        free = no_reset(U, s, I, beta, theta)
        # in this order the value is the reset's to the last bit: what is added is exactly zero
        return reset(U, s, I, beta, theta).detach() + (free - free.detach())

    return ignored


@dataclass(frozen=True)
class Unrolled:
    """BPTT: autograd through the unrolled loop.

    Args:
        reset: what the gradient sees of the reset.
        window: truncated BPTT: the gradient is cut at every ``window`` steps, at the same steps in every layer; None
            for the whole sequence. Spikes do not change; memory is saved only if the pieces are run one by one
            (`Network.run`), since one loss at the end holds all their graphs.
    """

    reset: Reset = Reset.KEPT
    window: int | None = None

    def __post_init__(self) -> None:
        check_reset(self.reset)
        if self.window is not None:
            _checks.whole("window", self.window, least=1)

    def cut(self, x: Tensor, delay: int) -> Tensor:
        """Inputs (delay + T, ...), the first ``delay`` waiting, without gradient where they cross a window's edge."""
        if self.window is None:
            return x
        crossing = torch.arange(len(x), device=x.device) % self.window < delay
        return torch.where(crossing.view(-1, *(1,) * (x.dim() - 1)), x.detach(), x)

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
        """See `Backward.run`."""
        fire, reset = firing(neuron, surrogate), seen(neuron.reset, self.reset)
        if self.window is None:
            return neuron.simulate(a, recurrent, lag, state, sent, fire, reset)
        state = neuron.start(a[0]) if state is None else state
        sent = (*(torch.zeros_like(state.s) for _ in range(lag - 1)), state.s) if sent is None else tuple(sent)
        pieces = []
        for piece in a.split(self.window):
            trace = neuron.simulate(piece, recurrent, lag, state, sent, fire, reset)
            pieces.append(trace)
            state = type(trace.last)(*(x.detach() for x in trace.last))
            sent = tuple(x.detach() for x in (*sent, *trace.s.unbind(0))[-lag:])
        return type(pieces[0])(*(torch.cat(x) for x in zip(*pieces, strict=True)))
