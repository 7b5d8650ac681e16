"""Named rules: the papers as points of the three axes. A recipe is a few lines; nothing stops you from your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snnlearn.rule import Rule
from snnlearn.spatial import Transpose
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Reset, Unrolled


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


def listing() -> dict[str, Any]:
    """Every recipe of this module by name."""
    return {name: value for name, value in globals().items() if hasattr(value, "paper")}
