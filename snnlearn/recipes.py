"""Named rules: the papers as points of the three axes. A recipe is a few lines; nothing stops you from your own."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from snnlearn.events import EventProp
from snnlearn.rule import Rule
from snnlearn.sparse import Near
from snnlearn.spatial import Transpose
from snnlearn.surrogate import Exponential, FastSigmoid, Sigmoid, Surrogate
from snnlearn.temporal import RTRL, TSSLBP, Adjoint, Eligibility, Reset, Unrolled

# The papers' own surrogates.
_OTTT = Sigmoid.from_steepness(4.0)
_STEEP = FastSigmoid.from_steepness(100.0)


def _paper(reference: str) -> Callable[[Callable[..., Rule]], Callable[..., Rule]]:
    def mark(recipe: Callable[..., Rule]) -> Callable[..., Rule]:
        recipe.paper = reference  # type: ignore[attr-defined]
        return recipe

    return mark


@_paper("Neftci, Mostafa & Zenke 2019, Sec. III-B and IV-B, Box 2")
def bptt(*, surrogate: Surrogate = FastSigmoid(), reset: Reset = Reset.KEPT, window: int | None = None) -> Rule:
    """Backpropagation through time with a surrogate derivative.

    delta[n] = sigma'(U[n] - theta) * (W^T delta_above[n] + V^T delta[n+1]), unrolled by autograd (tutorial Eq. 11).

    Args:
        surrogate: sigma'. The paper's Fig. 3 shows three.
        reset: what the gradient sees of the reset. The tutorial's equations keep it; its authors' notebooks detach
            it (found in their code, not in the paper).
        window: truncated BPTT, in steps; None for the whole sequence.

    >>> from snnlearn import recipes
    >>> rule = recipes.bptt()
    """
    return Rule(surrogate, Unrolled(reset, window), Transpose())


@_paper("Williams & Zipser 1989; Neftci, Mostafa & Zenke 2019, Eq. 12")
def rtrl(*, surrogate: Surrogate = FastSigmoid(), reset: Reset = Reset.KEPT) -> Rule:
    """Real-time recurrent learning: the gradient of BPTT, forward in time, for small networks.

    P[n] = J[n] P[n-1] + J_w[n], the influence of every weight on every state.

    Args:
        surrogate, reset: as `bptt`.
    """
    return Rule(surrogate, RTRL(reset), Transpose())


@_paper("Zenke & Ganguli 2018; Neftci, Mostafa & Zenke 2019, Eqs. 13-17")
def superspike(*, surrogate: Surrogate = FastSigmoid()) -> Rule:
    """SuperSpike: error times filtered eligibility, forward in time, with symmetric feedback.

    dW_ij[n] ~ e_i[n] eps * (sigma'(U_i) q_j)[n], e = eps * (S - S*). Give it `losses.van_rossum`, a spiking output,
    and, for the paper's rate for each parameter, `optim.RMaxProp`.

    Args:
        surrogate: sigma'.

    A hidden layer's error is the one above through the transposed weights, without the slopes above; the paper's other
    choices, random and uniform feedback, are a matter of the spatial axis. It has no heterosynaptic regulariser.
    """
    return Rule(surrogate, Eligibility(), Transpose())


@_paper("Bellec, Scherr, Subramoney et al. 2020, Eqs. 1 and 4")
def eprop(*, surrogate: Surrogate = FastSigmoid()) -> Rule:
    """e-prop with symmetric feedback: the error of a leaky readout times an eligibility filtered by its memory.

    dW_ij[n] ~ (W_out^T e)_i[n] kappa * (sigma'(U_i) q_j)[n]: exact, the reset not seen, for one layer that has no
    recurrence. Needs a loss that is a sum over time, such as ``OverTime(cross_entropy, mean=True)``.

    Args:
        surrogate: the pseudo-derivative; the paper's is `PiecewiseLinear`.
    """
    return Rule(surrogate, Eligibility(through_readout=True), Transpose())


@_paper("Xiao, Meng, Zhang, He & Lin 2022")
def ottt(*, surrogate: Surrogate = _OTTT) -> Rule:
    """OTTT: the error of this step, through all layers, times the trace of what arrived.

    Needs a loss that is a sum over time, such as ``OverTime(cross_entropy, mean=True)``.

    Args:
        surrogate: the slope; the authors' code takes a sigmoid's.

    Layers keep a trace for alpha too where they have a synapse; the paper's neurons have none.
    """
    return Rule(surrogate, Eligibility(), Transpose())


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


@_paper("Perez-Nieves & Goodman 2021, Eqs. 5-12")
def sparse(
    *,
    within: float = 0.2,
    surrogate: Surrogate = _STEEP,
    reset: Reset = Reset.IGNORED,
) -> Rule:
    """Sparse backpropagation: only neurons near their threshold pass credit.

    Args:
        within: B_th, half the width of the band around the threshold (in the authors' code theta - b_th).
        surrogate: the slope inside the band.
        reset: IGNORED as in the paper, KEPT for the exact gradient of the band.

    This is the gradient, in plain tensors; its sparsity saves no time here yet.
    """
    return Rule(Near(surrogate, within), Adjoint(reset), Transpose())


@_paper("Zhang & Li 2020, Eqs. 8-14")
def tssl_bp(*, paper: bool = False, tau_s: float | None = None) -> Rule:
    """TSSL-BP: credit through firing times, between neurons and within each, in O(T).

    Its neuron is reset to zero and strict: ``cuba_lif(..., reset=to_zero, fire=Threshold(strict=True),
    decay=euler_decay)`` with layers of gain 1/tau_s.

    Args:
        paper: Eqs. 8-14 alone, instead of with the heuristics of the authors' code (`TSSLBP`).
        tau_s: see `TSSLBP`.
    """
    return Rule(temporal=TSSLBP.paper() if paper else TSSLBP.authors_code(tau_s))


@_paper("Wunderlich & Pehle 2021")
def eventprop() -> Rule:
    """EventProp: the exact gradient of spike times in continuous time; needs an `events.EventNetwork`."""
    return Rule(temporal=EventProp())


def listing() -> dict[str, Any]:
    """Every recipe of this module by name."""
    return {
        name: value for name, value in globals().items() if isinstance(value, FunctionType) and hasattr(value, "paper")
    }
