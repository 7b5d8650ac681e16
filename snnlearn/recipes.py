"""Named rules: the papers as points of the three axes. A recipe is a few lines; nothing stops you from your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snnlearn.rule import Rule
from snnlearn.spatial import Transpose
from snnlearn.surrogate import Exponential, FastSigmoid, Surrogate
from snnlearn.temporal import Adjoint, Reset, Unrolled


def _paper(reference: str) -> Callable[[Callable[..., Rule]], Callable[..., Rule]]:
    def mark(recipe: Callable[..., Rule]) -> Callable[..., Rule]:
        recipe.paper = reference  # type: ignore[attr-defined]
        return recipe

    return mark


@_paper("Neftci, Mostafa & Zenke 2019, Sec. III-B and IV-B, Box 2")
def bptt(*, surrogate: Surrogate = FastSigmoid(), reset: Reset = Reset.KEPT) -> Rule:
    """Backpropagation through time with a surrogate derivative.

    delta[n] = sigma'(U[n] - theta) * (W^T delta_above[n] + V^T delta[n+1]), unrolled by autograd (tutorial Eq. 11).

    Args:
        surrogate: sigma'. The paper's Fig. 3 shows three.
        reset: what the gradient sees of the reset. The tutorial's equations keep it; its authors' notebooks detach
            it (found in their code, not in the paper).

    >>> from snnlearn import recipes
    >>> rule = recipes.bptt()
    """
    return Rule(surrogate, Unrolled(reset), Transpose())


@_paper("Bauer, Lenz, Haghighatshoar & Sheik 2023, Eqs. 9 and 14-19")
def exodus(*, surrogate: Surrogate = Exponential.from_scale(0.5, 0.5)) -> Rule:
    """EXODUS: the exact gradient of the smoothed layer by the implicit function theorem, equal to BPTT.

    lam[n] = f[n] * e[n] + (beta - theta * f[n]) * lam[n+1], a reverse recursion in place of the sums of Eqs. 17 and 19.

    Args:
        surrogate: the slope f = sigma'(u - theta); the paper's form is scale / width * exp(-|u - theta| / width).

    The paper's reset is `subtract`; its authors' code simulates `subtract_decayed`. Both are the neuron's business.
    """
    return Rule(surrogate, Adjoint(Reset.KEPT), Transpose())


@_paper("Shrestha & Orchard 2018, as described by Bauer et al. 2023, Sec. 3.4")
def slayer(*, surrogate: Surrogate = Exponential.from_scale(0.5, 0.5)) -> Rule:
    """SLAYER: the same recursion with the reset left out of the derivative, lam[n] = f[n]*e[n] + beta*lam[n+1].

    Args:
        surrogate: the slope f; the larger its area, the sooner the gradient explodes from layer to layer.
    """
    return Rule(surrogate, Adjoint(Reset.IGNORED), Transpose())


def listing() -> dict[str, Any]:
    """Every recipe of this module by name."""
    return {name: value for name, value in globals().items() if hasattr(value, "paper")}
