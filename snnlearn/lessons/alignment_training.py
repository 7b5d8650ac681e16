"""Tutorial 10: deep spiking networks trained side by side, under several ways for the error to go down.

What takes seconds with the library's networks, one after another, takes a fraction of it here: R networks of the same
shape learn at once, on tensors (R, T, B, neurons), and the adjoint recursion is written out. The tests hold the
gradients of every way against the library's rule.

    U[n] = beta * U[n-1] - theta * s[n-1] + (1 - beta) * W s_below[n]            forward, alpha = 0
    lam[n] = f[n] * e[n] + (beta - theta * f[n]) * lam[n+1]                      backward, the reset kept
    kap[n] = (1 - beta) * lam[n];  dL/dW = sum_n kap[n] s_below[n]^T             e below: see `Way`
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snnlearn import datasets, encoding
from snnlearn.losses import CrossEntropy, mean_over_time
from snnlearn.network import Layer, Network
from snnlearn.neurons import Neuron, Threshold, readout
from snnlearn.resets import subtract
from snnlearn.rule import Rule
from snnlearn.spatial import DirectFeedback, FeedbackAlignment, Spatial, Transpose
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import Adjoint

BETA, THETA, WIDTH = 0.8, 1.0, 0.5  # decay a step; threshold; width of the fast sigmoid
STEPS, SCALE = 8, 5.0  # T; factor on the mean of the readout
GAIN = 1 - BETA
HIDDEN, CLASSES, INPUTS = 64, 10, 128
DTYPE = torch.float64  # with it rounding never moved a spike in the trainings here; with float32 it does
DRAW = 10.0  # spiking layers' weights are drawn from N(0, DRAW**2 / inputs), the readout's from N(0, 1 / inputs)
PROBE = 64  # training images on which errors are compared

Array = NDArray[np.float64]


class Way(enum.Enum):
    """How the error e of a layer is made from kap of the layer above, or of the readout."""

    TRANSPOSE = "backpropagation"  # W^T kap_above
    RANDOM = "feedback alignment"  # G^T kap_above
    DIRECT = "direct feedback"  # H^T kap_readout
    SIGNS = "sign-concordant"  # (|G| sign W)^T kap_above
    LEARNED = "Kolen-Pollack"  # G^T kap_above, and G learns as W does
    NONE = "readout only"  # hidden layers stay as they were drawn


class Weights(NamedTuple):
    """Of R networks; W and G for each layer, (R, out, in), and H for each hidden layer, (R, classes, hidden)."""

    W: list[Tensor]
    G: list[Tensor]
    H: list[Tensor]

    def to(self, dtype: torch.dtype) -> Weights:
        """A copy in another precision."""
        return Weights(*([w.to(dtype, copy=True) for w in matrices] for matrices in self))


def draw(seeds: Sequence[int], depth: int, *, hidden: int = HIDDEN, scale: float = DRAW) -> Weights:
    """Fresh networks with ``depth`` hidden layers, and their feedback: G at the scale of W, H from N(0, 1/classes).

    Args:
        seeds: one for each network. The first layers of a deep one are not those of a shallow one.
        depth: number of hidden layers.
        hidden: neurons in each.
        scale: of the spiking layers' weights, times 1/sqrt(inputs).
    """
    sizes = [INPUTS, *[hidden] * depth, CLASSES]
    scales = [*[scale] * depth, 1.0]

    def matrices(generator: torch.Generator) -> list[Tensor]:
        shapes = zip(sizes[1:], sizes[:-1], scales, strict=True)
        return [c / math.sqrt(i) * torch.randn(o, i, generator=generator, dtype=DTYPE) for o, i, c in shapes]

    W, G, H = [], [], []
    for seed in seeds:
        W.append(matrices(torch.Generator().manual_seed(seed)))
        feedback = torch.Generator().manual_seed(1000 + seed)
        G.append(matrices(feedback))
        direct = [torch.randn(CLASSES, hidden, generator=feedback, dtype=DTYPE) for _ in range(depth)]
        H.append([h / math.sqrt(CLASSES) for h in direct])
    return Weights(*([torch.stack(same) for same in zip(*runs, strict=True)] for runs in (W, G, H)))


@lru_cache(maxsize=1)
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images as currents that stay on, (N, 128), ON and OFF, each with its labels."""
    data = datasets.digits()
    (x, y), (x_test, y_test) = (
        (encoding.on_off(split.x).flatten(1).to(DTYPE), split.y) for split in (data.train, data.test)
    )
    return x, y, x_test, y_test


class Activity(NamedTuple):
    """What R networks did with a batch: membranes and spikes of the hidden layers, (R, T, B, hidden), and scores."""

    U: list[Tensor]
    s: list[Tensor]
    scores: Tensor  # (R, B, classes)


def _spiking(a: Tensor) -> tuple[Tensor, Tensor]:
    """Membranes and spikes for currents a (R, T, B, hidden)."""
    U, s = torch.empty_like(a), torch.empty_like(a)
    U_n, s_n = torch.zeros_like(a[:, 0]), torch.zeros_like(a[:, 0])
    for n, a_n in enumerate(a.unbind(1)):
        U_n = torch.mul(U_n, BETA, out=U[:, n]).sub_(s_n, alpha=THETA).add_(a_n)
        s_n = torch.ge(U_n, THETA, out=s[:, n])
    return U, s


def _readout_weights(like: Tensor) -> Tensor:
    """What a current at step n adds to the mean of the readout, (T, 1, 1)."""
    left = torch.arange(STEPS, 0, -1, dtype=like.dtype)
    return (GAIN * (1 - BETA**left) / (1 - BETA) / STEPS)[:, None, None]


def forward(W: Sequence[Tensor], x: Tensor) -> Activity:
    """Networks of weights W on images x (B, 128)."""
    a = (GAIN * (x @ W[0].mT))[:, None].expand(-1, STEPS, -1, -1)
    membranes, spikes = [], []
    for l, w in enumerate(W[1:]):
        U, s = _spiking(a)
        membranes.append(U)
        spikes.append(s)
        a = _through(s, w.mT)
        if l < len(W) - 2:
            a.mul_(GAIN)
    return Activity(membranes, spikes, SCALE * (_readout_weights(a) * a).sum(1))


def _through(v: Tensor, matrix: Tensor) -> Tensor:
    """v[r, n] @ matrix[r] for all runs r and steps n."""
    return (v.flatten(1, 2) @ matrix).unflatten(1, v.shape[1:3])


def _slope(U: Tensor) -> Tensor:
    """FastSigmoid(width=WIDTH).slope(U - THETA), in place from the second operation on."""
    k = (math.sqrt(2) - 1) / WIDTH
    return (U - THETA).abs_().mul_(k).add_(1).square_().reciprocal_()


def _kappa(U: Tensor, e: Tensor) -> Tensor:
    """dL/da of a hidden layer, from its error e = dL/ds; both (R, T, B, hidden)."""
    f = _slope(U)
    carry, source = torch.rsub(f, BETA, alpha=THETA), f * e
    kap, lam = torch.empty_like(e), torch.zeros_like(e[:, 0])
    for n in reversed(range(e.shape[1])):
        lam = torch.addcmul(source[:, n], carry[:, n], lam, out=kap[:, n])
    return kap.mul_(GAIN)


def _outer(kap: Tensor, below: Tensor) -> Tensor:
    """sum_n kap[n] below[n]^T over time and batch, (R, post, pre)."""
    return kap.flatten(1, 2).mT @ below.flatten(1, 2)


class Gradients(NamedTuple):
    """Of R networks: losses (R,), gradients of W (None: not trained), and the errors dL/ds of the hidden layers."""

    losses: Tensor
    W: list[Tensor | None]
    errors: list[Tensor]  # (R, T, B, hidden), the lowest layer first


def gradients(way: Way, weights: Weights, x: Tensor, y: Tensor, activity: Activity | None = None) -> Gradients:
    """The gradients that a way gives for images x (B, 128) of labels y (B,)."""
    W = weights.W
    U, spikes, scores = activity or forward(W, x)
    logp = scores.log_softmax(-1)
    each = torch.arange(len(y))
    losses = -logp[:, each, y].mean(-1)
    wrong = logp.exp()
    wrong[:, each, y] -= 1
    top = kap = SCALE / len(y) * _readout_weights(wrong) * wrong[:, None]
    found: list[Tensor | None] = [None] * len(W)
    errors: list[Tensor] = []
    for l in range(len(W) - 1, 0, -1):
        found[l] = _outer(kap, spikes[l - 1])
        if way is Way.NONE:
            break
        errors.insert(0, _down(way, weights, l, kap, top))
        kap = _kappa(U[l - 1], errors[0])
    if way is not Way.NONE:
        found[0] = kap.sum(1).mT @ x
    return Gradients(losses, found, errors)


def feedback(way: Way, weights: Weights, l: int) -> Tensor:
    """The matrix, of the shape of W[l], through which the error leaves layer l downwards."""
    W, G = weights.W[l], weights.G[l]
    if way in (Way.RANDOM, Way.LEARNED):
        return G
    return G.abs() * W.sign() if way is Way.SIGNS else W


def _down(way: Way, weights: Weights, l: int, kap: Tensor, top: Tensor) -> Tensor:
    return _through(top, weights.H[l - 1]) if way is Way.DIRECT else _through(kap, feedback(way, weights, l))


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between a and b, (R, ...), for each of the R; 90 where one of them is 0."""
    a, b = a.flatten(1), b.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-30)
    return torch.rad2deg(cosine.clamp(-1, 1).acos())


# The same in the library.

LOSS = CrossEntropy(over=mean_over_time, scale=SCALE)


def linear(matrix: Tensor) -> nn.Linear:
    """A synapse with these weights (out, in) and no bias."""
    synapse: nn.Linear = nn.utils.skip_init(nn.Linear, *reversed(matrix.shape), bias=False, dtype=matrix.dtype)
    with torch.no_grad():
        synapse.weight.copy_(matrix)
    return synapse


def network(weights: Weights, run: int = 0) -> Network:
    """One of the networks, as the library has it."""
    tau = -1e-3 / math.log(BETA)  # s
    neurons = [Neuron(0.0, BETA, THETA, subtract, Threshold())] * (len(weights.W) - 1) + [readout(tau_mem=tau)]
    return Network(*(Layer(linear(w[run]), n, gain=GAIN) for w, n in zip(weights.W, neurons, strict=True)))


def library_rule(way: Way, weights: Weights, run: int = 0) -> Rule:
    """The library's rule for one of the networks and any way but `Way.NONE`."""
    spatial: Spatial = Transpose()
    if way is Way.DIRECT:
        spatial = DirectFeedback([h[run] for h in weights.H], through_readout=True)
    elif way is not Way.TRANSPOSE:
        backs = [linear(g[run]) for g in weights.G[1:]]
        spatial = FeedbackAlignment(backs, signs=way is Way.SIGNS, learned=way is Way.LEARNED)
    return Rule(FastSigmoid(width=WIDTH), Adjoint(), spatial)


# Training.


class Moment(NamedTuple):
    """R networks at a moment of their training."""

    epoch: float

    loss: Array  # (R,), on the probe
    accuracy: Array  # (R,), share of the test images
    weights: Array  # (depth, R), degrees between W and the feedback weights, layers 1..depth
    errors: Array  # (depth, R), degrees between the error and that of backpropagation, layers 0..depth - 1
    rates: Array  # (depth, R), spikes per neuron and step
    pairs: NDArray[np.float32]  # (depth, 2, points), some weights w and g of the first run, layers 1..depth
    blame: NDArray[np.float32]  # (depth, 2, points), some errors of it: by backpropagation, and this way's


class Fit(NamedTuple):
    """A way, and what it came to."""

    way: Way
    moments: list[Moment]

    def over(self, name: str) -> Array:
        """One of the fields of `Moment` at all moments, (moments, ...)."""
        return np.stack([getattr(moment, name) for moment in self.moments])


def _numpy(values: Sequence[Tensor]) -> Array:
    return torch.stack(list(values)).double().numpy()


def look(way: Way, weights: Weights, epoch: float = 0.0, points: int = 400) -> Moment:
    """Measure R networks as they are."""
    x, y, x_test, y_test = digits()
    x, y = x[:PROBE], y[:PROBE]
    activity = forward(weights.W, x)
    here = gradients(Way.RANDOM if way is Way.NONE else way, weights, x, y, activity)
    exact = gradients(Way.TRANSPOSE, weights, x, y, activity)
    depth = len(weights.W) - 1
    back = [feedback(way if way in (Way.SIGNS, Way.LEARNED) else Way.RANDOM, weights, l) for l in range(1, depth + 1)]
    sides = list(zip(here.errors, exact.errors, strict=True))
    pairs = [_some(points, w, g) for w, g in zip(weights.W[1:], back, strict=True)]
    blame = [_some(points, exact_e, e) for e, exact_e in sides]
    return Moment(
        epoch,
        here.losses.double().numpy(),
        (forward(weights.W, x_test).scores.argmax(-1) == y_test).double().mean(-1).numpy(),
        _numpy([angle(w, g) for w, g in zip(weights.W[1:], back, strict=True)]),
        _numpy([angle(e, b) for e, b in sides]),
        _numpy([s.mean((1, 2, 3)) for s in activity.s]),
        np.stack(pairs),
        np.stack(blame),
    )


def _some(points: int, a: Tensor, b: Tensor) -> NDArray[np.float32]:
    """The same entries, drawn at random, of the first run of a and b; (2, points)."""
    some = torch.randint(a[0].numel(), (points,), generator=torch.Generator().manual_seed(0))
    return torch.stack([v[0].flatten()[some] for v in (a, b)]).numpy()


def fit(
    way: Way,
    depth: int,
    *,
    seeds: Sequence[int] = range(5),
    epochs: int = 8,
    rate: float = 2e-2,
    decay: float = 1.0,
    batch: int = 64,
    looks: int = 1,
    hidden: int = HIDDEN,
    scale: float = DRAW,
) -> Fit:
    """Train networks side by side on the digits, by Adam with a rate that falls to 0 as a cosine.

    Args:
        way: how the error goes down.
        depth: number of hidden layers.
        seeds: of weights and feedback, one a network. The order of the images is the same for all.
        epochs: passes over the 1257 training images.
        rate: Adam's first rate.
        decay: of the weights (and of G where it learns), a step and unit of the rate.
        batch: images an update.
        looks: moments an epoch that `Fit` has, the first before it; and one at the end.
        hidden, scale: see `draw`.
    """
    x, y, *_ = digits()
    with torch.no_grad():
        weights = draw(seeds, depth, hidden=hidden, scale=scale)
        trained = {Way.LEARNED: weights.W + weights.G, Way.NONE: weights.W[-1:]}.get(way, weights.W)
        first, second = ([torch.zeros_like(w) for w in weights.W] for _ in range(2))
        order, steps, done, moments = torch.Generator().manual_seed(0), -(-len(y) // batch), 0, []
        for _ in range(epochs):
            for chosen in torch.randperm(len(y), generator=order).split(batch):
                if done % (steps // looks) == 0:
                    moments.append(look(way, weights, done / steps))
                now = 0.5 * rate * (1 + math.cos(math.pi * done / (epochs * steps)))
                done += 1
                found = gradients(way, weights, x[chosen], y[chosen]).W
                for w in trained:
                    w.mul_(1 - now * decay)
                for l, g in enumerate(found):
                    if g is not None:
                        change = now * _adam(g, first[l], second[l], done)
                        weights.W[l].sub_(change)
                        if way is Way.LEARNED:
                            weights.G[l].sub_(change)
        moments.append(look(way, weights, epochs))
    return Fit(way, moments)


def _adam(g: Tensor, m: Tensor, v: Tensor, k: int) -> Tensor:
    """Adam's direction at its k-th step; m and v move."""
    m.lerp_(g, 0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    return (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt_() + 1e-8)
