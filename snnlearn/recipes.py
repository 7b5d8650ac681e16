"""Named rules: the papers as points of the three axes. A recipe is a few lines; nothing stops you from your own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from snnlearn import _checks
from snnlearn.events import EventNetwork, EventProp
from snnlearn.network import Network
from snnlearn.rule import Rule
from snnlearn.sparse import Near
from snnlearn.spatial import DirectFeedback, FeedbackAlignment, LocalErrors, Spatial, Transpose
from snnlearn.surrogate import Exponential, FastSigmoid, Sigmoid, Surrogate
from snnlearn.temporal import RTRL, TSSLBP, Adjoint, Eligibility, Memory, Reset, Unrolled

# The papers' own surrogates.
_OTTT = Sigmoid.from_steepness(4.0)
_DECOLLE = FastSigmoid.from_steepness(10.0)
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
def superspike(*, surrogate: Surrogate = FastSigmoid(), spatial: Spatial | None = None) -> Rule:
    """SuperSpike: error times filtered eligibility, forward in time.

    dW_ij[n] ~ e_i[n] eps * (sigma'(U_i) q_j)[n], e = eps * (S - S*). Give it `losses.van_rossum`, a spiking output,
    and, for the paper's rate for each parameter, `optim.RMaxProp`.

    Args:
        surrogate: sigma'.
        spatial: the paper's three kinds of feedback. Random: ``DirectFeedback.random(net, generator)``; uniform:
            ``DirectFeedback.uniform(net)``; symmetric: the default, the error above through the transposed weights,
            without the slopes above.

    It has no heterosynaptic regulariser.
    """
    return Rule(surrogate, Eligibility(), _or_transpose(spatial))


@_paper("Bellec, Scherr, Subramoney et al. 2020, Eqs. 1, 4, 22-25 and 28")
def eprop(*, surrogate: Surrogate = FastSigmoid(), spatial: Spatial | None = None) -> Rule:
    """e-prop: the error of a leaky readout times an eligibility filtered by its memory.

    dW_ij[n] ~ (B e)_i[n] kappa * (sigma'(U_i) q_j)[n]. With symmetric feedback exact, the reset not seen, for one layer
    that has no recurrence. Needs a loss that is a sum over time, such as ``OverTime(cross_entropy, mean=True)``. The
    paper's slow neurons are `snnlearn.adaptive.alif`, whose eligibility knows the moving threshold.

    Args:
        surrogate: the pseudo-derivative; the paper's is ``PiecewiseLinear(width=0.5, peak=0.3)`` at theta = 1.
        spatial: the paper's three kinds of broadcast. Symmetric: the default; random:
            ``DirectFeedback.random(net, generator)``; adaptive: ``DirectFeedback.adaptive(net, generator)``.

    The paper's refractory period, during which its pseudo-derivative is 0, and its regulariser of the firing rate are
    left out.
    """
    return Rule(surrogate, Eligibility(through_readout=True), _or_transpose(spatial))


@_paper("Xiao, Meng, Zhang, He & Lin 2022")
def ottt(*, surrogate: Surrogate = _OTTT, authors_code: bool = False) -> Rule:
    """OTTT: the error of this step, through all layers, times the trace of what arrived.

    Needs a loss that is a sum over time, such as ``OverTime(cross_entropy, mean=True)``.

    Args:
        surrogate: the slope; the authors' code takes a sigmoid's.
        authors_code: traces have the memory of the neurons that send, and none of the network's inputs
            (`Memory.SENDER`).

    Layers keep a trace for alpha too where they have a synapse; the paper's neurons have none.
    """
    _checks.flag("authors_code", authors_code)
    return Rule(surrogate, Eligibility(memory=Memory.SENDER if authors_code else Memory.OWN), Transpose())


@_paper("Kaiser, Mostafa & Neftci 2020; Neftci, Mostafa & Zenke 2019, Sec. V-D and Eq. 19")
def decolle(
    net: Network,
    generator: torch.Generator,
    *,
    surrogate: Surrogate = _DECOLLE,
    classes: int | None = None,
    features: tuple[int, ...] | None = None,
    scale: float = 1.0,
) -> Rule:
    """DECOLLE: each layer is told at each step how well a fixed random readout of its spikes does.

    dW_ij[n] ~ (G_l^T dL/dr_l)_i[n] sigma'(U_i) P_j[n]. Its layer is `snnlearn.network.decolle_layer`; others do as
    well. Needs a loss that is a sum over time; the paper's is ``OverTime(smooth_l1)`` or a mean squared error.

    Args:
        net, generator: what the readouts are drawn for, and from.
        surrogate: the slope; the authors' code has 1 / (1 + 10 |U|)**2.
        classes, features, scale: see `LocalErrors.random`.
    """
    spatial = LocalErrors.random(net, generator, classes=classes, features=features, scale=scale)
    return Rule(surrogate, Eligibility(adaptation=False), spatial)


@_paper("Lillicrap, Cownden, Tweed & Akerman 2016; Neftci, Mostafa & Zenke 2019, Sec. V-A and Fig. 5b")
def feedback_alignment(
    net: Network,
    generator: torch.Generator,
    *,
    surrogate: Surrogate = FastSigmoid(),
    reset: Reset = Reset.KEPT,
) -> Rule:
    """Feedback alignment: BPTT whose errors go down through fixed random weights, G delta instead of W^T delta.

    Args:
        net, generator: what the feedback is drawn for, and from.
        surrogate: sigma'.
        reset: what the gradient sees of the reset.

    Sign-concordant and learned feedback: ``Rule(surrogate, Adjoint(), FeedbackAlignment.concordant(net, generator))``
    and ``.kolen_pollack``.
    """
    return Rule(surrogate, Adjoint(reset), FeedbackAlignment.random(net, generator))


@_paper("Nøkland 2016; Neftci, Mostafa & Zenke 2019, Sec. V-A, Box 2 and Fig. 5c")
def direct_feedback_alignment(
    net: Network,
    generator: torch.Generator,
    *,
    surrogate: Surrogate = FastSigmoid(),
    reset: Reset = Reset.KEPT,
    through_readout: bool = False,
    features: tuple[int, ...] | None = None,
) -> Rule:
    """Direct feedback alignment: every layer is told the output's error through fixed random weights of its own.

    Args:
        net, generator: what the feedback is drawn for, and from.
        surrogate: sigma'.
        reset: what the gradient sees of the reset.
        through_readout, features: see `DirectFeedback.random`.
    """
    spatial = DirectFeedback.random(net, generator, features=features, through_readout=through_readout)
    return Rule(surrogate, Adjoint(reset), spatial)


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

    In a `Network` this is the gradient alone; where its sparsity saves time is in layers of events (`LinearLIF`).
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


def _or_transpose(spatial: Spatial | None) -> Spatial:
    return Transpose() if spatial is None else spatial


def make(name: str, net: Network | EventNetwork, generator: torch.Generator) -> Rule:
    """The rule by a recipe's name, with its defaults.

    Args:
        name: one of `listing`.
        net, generator: what feedback weights are drawn for and from, where the recipe has some.

    Raises:
        ValueError: there is no such recipe.
    """
    known = listing()
    if name not in known:
        raise ValueError(f"there is no recipe {name!r}; there are: {', '.join(known)}")
    drawn = "generator" in inspect.signature(known[name]).parameters
    return known[name](net, generator) if drawn else known[name]()


def listing() -> dict[str, Any]:
    """Every recipe of this module by name."""
    return {
        name: value for name, value in globals().items() if isinstance(value, FunctionType) and hasattr(value, "paper")
    }
