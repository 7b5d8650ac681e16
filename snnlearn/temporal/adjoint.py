"""EXODUS and SLAYER: the adjoint of a layer, written down instead of recorded by autograd.

EXODUS differentiates u = z + nu * s, s = f_s(u) by the implicit function theorem, which for a LIF turns Eqs. 14 and
16-19 into the reverse recursion of `snnlearn.temporal.recursion`, O(T). SLAYER leaves the reset out of the derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnlearn.neurons import Neuron, State, Trace
from snnlearn.surrogate import Surrogate
from snnlearn.temporal.base import Reset
from snnlearn.temporal.recursion import Credit, Method, after, differentiated


@dataclass(frozen=True)
class Adjoint(Method):
    """The reverse recursion, equal to `Unrolled` with the same reset and keeping less for it.

    Args:
        reset: KEPT is EXODUS, equal to BPTT; IGNORED is SLAYER.
    """

    reset: Reset = Reset.KEPT

    lean = True

    def __post_init__(self) -> None:
        if not isinstance(self.reset, Reset):
            raise TypeError(f"reset must be one of {', '.join(map(str, Reset))}, got {self.reset!r}")

    def credit(self, neuron: Neuron, surrogate: Surrogate, trace: Trace, state: State, *extra: Tensor) -> Credit:
        """f = sigma', and the carry c[n] = dU[n+1]/dU[n], with the reset kept also f[n] * dU[n+1]/ds[n].

        For a reset by subtraction c = beta - theta * f (the factor in the product of EXODUS Eq. 17), beta if detached
        or ignored.
        """
        U = trace.U
        f = torch.ones_like(U) if neuron.fire.analog else surrogate.slope(U - neuron.theta)
        dU, ds, dI, *_ = neuron.pull(differentiated(neuron.reset, self.reset), trace, state, torch.ones_like(U))
        c = after(dU) + after(ds) * f if self.reset is Reset.KEPT else after(dU)
        return Credit(f, c, q=dI)
