"""The ordinary torch module: currents in, spikes out, and ``loss.backward()``.

    model = nn.Sequential(nn.Linear(64, 128), LIF(cuba_lif()), nn.Linear(128, 10), LIF(readout()))
    loss(model(x), y).backward()        # x (T, B, 64)

A rule that changes how credit travels through layers needs a `snnlearn.Network`; here torch does that part.
"""

from __future__ import annotations

from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.learned import as_neuron, check_recurrent, check_source
from snnlearn.neurons import Neuron, State, Trace, lif
from snnlearn.surrogate import FastSigmoid, Surrogate, firing
from snnlearn.temporal import Backward, Forward, Reset, Unrolled, check_axes
from snnlearn.temporal.base import finite
from snnlearn.temporal.unrolled import seen


class LIF(nn.Module):
    """Neurons as a module, of any kind: LIF, IF, current-based LIF, readout.

    Args:
        neuron: a `Neuron` such as ``cuba_lif(tau_mem=20e-3)``, or a module such as `Learned` that makes one.
        surrogate: what replaces the derivative of the step.
        temporal: how credit travels through time.
        recurrent: a module without bias from the layer's spikes to its currents, one step later; or None.
    """

    def __init__(
        self,
        neuron: Neuron | nn.Module | None = None,
        *,
        surrogate: Surrogate = FastSigmoid(),
        temporal: Backward = Unrolled(),
        recurrent: nn.Module | None = None,
    ):
        super().__init__()
        neuron = lif() if neuron is None else neuron
        check_source(neuron)
        check_axes(surrogate, temporal)
        if isinstance(temporal, Forward):
            raise TypeError(
                f"{type(temporal).__name__} works forward in time and has no backward pass; build a Network and "
                "use Rule(...).backward(network, x, y, loss)"
            )
        check_recurrent(recurrent)
        self.source, self.surrogate, self.temporal, self.recurrent = neuron, surrogate, temporal, recurrent

    def forward(self, a: Tensor) -> Tensor:
        """Spikes (T, B, *features) for currents a (T, B, *features), from rest."""
        return self.trace(a).s

    def trace(self, a: Tensor, state: State | None = None) -> Trace:
        """Current, membrane and spikes; ``trace.last`` is the state to go on from.

        Raises:
            ValueError, TypeError: a is not a finite floating-point sequence (T, B, *features).
        """
        _checks.shape("the current a", a)
        if state is not None:
            _checks.same_kind("the state", state.U, "the current a", a)
        neuron = as_neuron(self.source)
        trace = self.temporal.run(neuron, self.surrogate, a, self.recurrent, 1, state)
        if not finite(neuron, a, trace.last):
            raise _checks.not_finite("the current a")
        return trace

    def step(self, state: State | None, a: Tensor) -> State:
        """The state at n from the state at n-1 and the current a (B, *features).

        Differentiable by autograd, with the reset as ``temporal`` sees it (kept, where it does not say).
        """
        neuron = as_neuron(self.source)
        state = neuron.start(a) if state is None else state
        if self.recurrent is not None:
            a = a + self.recurrent(state.s)
        choice = getattr(self.temporal, "reset", Reset.KEPT)
        return neuron.step(state, a, firing(neuron, self.surrogate), seen(neuron.reset, choice))

    def extra_repr(self) -> str:
        """What is not a submodule."""
        return f"{self.source}, surrogate={self.surrogate}, temporal={self.temporal}"


class PerStep(nn.Module):
    """A module of single samples, such as Conv2d or Flatten, over a sequence: time joins the batch and leaves it.

    ``nn.Linear`` does not need it; a module that looks at more than the last axis does.

    Args:
        module: maps (batch, *features) to (batch, *features).
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, *features) to (T, B, *features)."""
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
