"""EXODUS and SLAYER: the adjoint of a layer, written down instead of recorded by autograd.

EXODUS differentiates u = z + nu * s, s = f_s(u) by the implicit function theorem, which for a LIF turns Eqs. 14 and
16-19 into the reverse recursion of `snnlearn.temporal.recursion`, O(T). SLAYER leaves the reset out of the derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from snnlearn.neurons import Neuron, State, Trace
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import fused
from snnlearn.temporal.base import Reset, check_reset
from snnlearn.temporal.recursion import Credit, Method, exact


@dataclass(frozen=True)
class Adjoint(Method):
    """The reverse recursion, equal to `Unrolled` with the same reset and keeping less for it.

    Args:
        reset: KEPT is EXODUS, equal to BPTT; IGNORED is SLAYER.
    """

    reset: Reset = Reset.KEPT

    lean = True
    linked = True

    def __post_init__(self) -> None:
        check_reset(self.reset)

    def credit(self, neuron: Neuron, surrogate: Surrogate, trace: Trace, state: State, *extra: Tensor) -> Credit:
        """f = sigma', and the carry c[n] = dU[n+1]/dU[n], with the reset kept also f[n] * dU[n+1]/ds[n].

        For a reset by subtraction c = beta - theta * f (the factor in the product of EXODUS Eq. 17), beta if detached
        or ignored.
        """
        return exact(self.reset, neuron, surrogate, trace, state)

    def compiled(self, neuron: Neuron, surrogate: Surrogate, trace: Trace) -> fused.Compiled | None:
        """The same, if the kernels know the surrogate."""
        slope = fused.slope(surrogate)
        return None if slope is None else fused.Compiled(fused.SEEN[self.reset], slope)
