"""The numbers behind tutorial 09: the gradient of the sparse paper, dense and with the band, on one trial.

In the letters of the paper (Perez-Nieves & Goodman 2021), for a layer with inputs S_i, weights W_ij and membranes V_j:

    tr_i[t] = sum_(k<t) alpha**(t-k-1) S_i[k]                   input trace
    dW_ij = sum_t e_j[t] f_j[t] tr_i[t]                         Eq. 5, f the surrogate's slope
    delta_j[t] = sum_(k>t) alpha**(k-t-1) e_j[k] f_j[k]         Eq. 6
    e_i[t] of the layer below = sum_j W_ij delta_j[t]           Eq. 6

The reset is not differentiated, so with f = 0 outside |V - V_th| < B_th these are Eqs. 7-12. All in numpy and double
precision, since the panels call these functions at every move of a slider.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from snnlearn import datasets, tasks, training
from snnlearn.datasets import Dataset, Split
from snnlearn.network import Layer, Network
from snnlearn.neurons import Threshold, lif, readout
from snnlearn.rule import Rule
from snnlearn.sparse import Near, activities
from snnlearn.surrogate import FastSigmoid
from snnlearn.tasks import Task
from snnlearn.temporal import Adjoint, Reset

Array = NDArray[np.float64]

THETA = 1.0
STEEPNESS = 100.0
"""The authors' code has this number; the main text calls it beta and gives none."""


def slope(x: ArrayLike, steepness: float = STEEPNESS) -> Array:
    """The paper's g at x = V - V_th: 1 / (steepness |x| + 1)**2."""
    return 1 / (steepness * np.abs(np.asarray(x, float)) + 1) ** 2


def area_within(within: float, steepness: float) -> float:
    """The share of the area under the slope that lies within the band: the integral of g is known."""
    return steepness * within / (1 + steepness * within)


# The network: two hidden layers and a readout, as in the paper's Sec. 3, and digits.

STEPS, HIDDEN, SAMPLES, BATCH = 20, 64, 480, 64
SIZES = (128, HIDDEN, HIDDEN, 10)
STDS = (4 / math.sqrt(128), 4 / math.sqrt(HIDDEN), 1 / math.sqrt(HIDDEN))


def network(generator: torch.Generator) -> Network:
    """Eqs. 1, 2 and 4: an input reaches V one step later, the threshold is strict, a reset takes away V_th.

    In double precision: in single the rounding of other machines changes accuracies by some percent.
    """
    hidden, out = lif(tau_mem=10e-3, fire=Threshold(strict=True)), readout(tau_mem=20e-3)
    layers = []
    for (below, above), std in zip(itertools.pairwise(SIZES), STDS, strict=True):
        synapse: nn.Linear = nn.utils.skip_init(nn.Linear, below, above, bias=False, dtype=torch.float64)
        nn.init.normal_(synapse.weight, std=std, generator=generator)
        top = above == SIZES[-1]
        layers.append(Layer(synapse, out if top else hidden, delay=1, gain=1 - float(out.beta) if top else 1.0))
    return Network(*layers)


@functools.cache
def _data() -> Dataset:
    found = datasets.digits()
    train, validation, test = (Split(split.x.double(), split.y) for split in found[:3])
    return Dataset(Split(train.x[:SAMPLES], train.y[:SAMPLES]), validation, test, found.classes)


def digits() -> Task:
    """The library's task with fewer steps and images, and with this tutorial's network."""
    return replace(tasks.digits(steps=STEPS), load=_data, network=network, epochs=5, batch=32)


def rule(within: float, steepness: float = STEEPNESS, reset: Reset = Reset.IGNORED) -> Rule:
    """The paper's rule; an infinite ``within`` is the dense one."""
    return Rule(Near(FastSigmoid.from_steepness(steepness), within), Adjoint(reset))


class Learned(NamedTuple):
    """What a run came to, in shares of 1."""

    validation: float
    test: float
    activity: float  # over both hidden layers, of the trained network


def learn(
    within: float,
    steepness: float = STEEPNESS,
    *,
    reset: Reset = Reset.IGNORED,
    epochs: int | None = None,
    seed: int = 0,
    frozen: bool = False,
) -> Learned:
    """Train on `digits`.

    Args:
        within, steepness, reset: see `rule`.
        epochs: passes over the images, the task's own number if not given.
        seed: of the weights and of the order of the images.
        frozen: the hidden layers stay as they were drawn, only the readout learns.
    """
    task, method = digits(), rule(within, steepness, reset)
    if frozen:
        task = tasks.readout_only(task)
    net: Any  # a Network, since that is what the task makes
    net, result = training.train(task, method, seed=seed, epochs=epochs)
    share = activities(net, task.encode(_data().validation.x), method)[:2]
    return Learned(result.val_accuracy, result.test_accuracy, 0.0 if frozen else float(np.mean(share)))


# One trial: what the forward pass left behind, and the error at the top.


class Trial(NamedTuple):
    """A forward pass of `network`; tensors (T, B, N)."""

    x: Array
    V: tuple[Array, Array]
    S: tuple[Array, Array]
    tr: tuple[Array, Array]  # input traces of the two hidden layers
    e: Array  # dL/dS of the upper hidden layer
    W: Array  # between the hidden layers, (below, above)
    alpha: float


def trace_of(S: Array, alpha: float) -> Array:
    """tr[t] = sum_(k<t) alpha**(t-k-1) S[k] (Eq. 5), over the first axis."""
    tr, rows = np.zeros_like(S[0]), []
    for S_t in S:
        rows.append(tr)
        tr = alpha * tr + S_t
    return np.stack(rows)


@functools.cache
def trial(batch: int = BATCH, seed: int = 0) -> Trial:
    """The untrained network on the first images."""
    task, split = digits(), _data().train
    net = network(torch.Generator().manual_seed(seed))
    x = task.encode(split.x[:batch])
    traces = net(x, rule(math.inf))
    value = task.loss(traces[-1].s, split.y[:batch])
    # the readout has no slope, so this error is the same for every surrogate and every band
    (e,) = torch.autograd.grad(value, traces[1].s)
    V, S = ([getattr(t, name).detach().numpy() for t in traces[:2]] for name in ("U", "s"))
    alpha = float(net.layers[0].neuron.beta)
    synapse: Any = net.layers[1].synapse
    tr = trace_of(x.numpy(), alpha), trace_of(S[0], alpha)
    return Trial(x.numpy(), (V[0], V[1]), (S[0], S[1]), tr, e.numpy(), synapse.weight.detach().numpy().T, alpha)


@functools.cache
def _decay(steps: int, alpha: float) -> Array:
    """(T, T), entry [t, k] = alpha**(k-t-1) for k > t, 0 elsewhere: the sum of Eq. 6."""
    late = np.subtract.outer(np.arange(steps), np.arange(steps)).T - 1
    return np.where(late >= 0, alpha ** np.maximum(late, 0.0), 0.0)


class Found(NamedTuple):
    """The gradients of the two hidden layers, the lower first."""

    dW: tuple[Array, Array]  # (inputs, N), (N, N)
    active: tuple[NDArray[np.bool_], NDArray[np.bool_]]  # (T, B, N)
    e: Array  # dL/dS of the lower layer, (T, B, N)


def gradients(t: Trial, within: float, steepness: float, write: bool = False) -> Found:
    """Eqs. 5 and 6 with the slope of Eq. 8.

    Args:
        t: the trial.
        within: B_th; infinite for the dense gradient.
        steepness: of the slope.
        write: the error of the lower layer is zero where it is not active (Eq. 12), instead of complete (Eq. 6).
    """
    active = tuple(np.abs(V - THETA) < within for V in t.V)  # Eq. 7
    f = [np.where(a, slope(V - THETA, steepness), 0.0) for a, V in zip(active, t.V, strict=True)]  # Eq. 8
    steps, batch, _ = t.e.shape
    fe = f[1] * t.e
    delta = (_decay(steps, t.alpha) @ fe.reshape(steps, -1)).reshape(fe.shape)  # Eq. 6
    e = delta @ t.W.T  # Eq. 6
    if write:
        e = np.where(active[0], e, 0.0)  # Eq. 12
    flat = [v.reshape(steps * batch, -1) for v in (*t.tr, f[0] * e, fe)]
    return Found((flat[0].T @ flat[2], flat[1].T @ flat[3]), (active[0], active[1]), e)  # Eq. 5


class Likeness(NamedTuple):
    """How the sparse gradient compares to the dense one; pairs are (lower, upper) hidden layer."""

    activity: tuple[float, float]  # Eq. 13, in 0..1
    cosine: tuple[float, float]
    error: tuple[float, float]  # |sparse - dense| / |dense|
    saved: float  # share of the multiplications of Eqs. 5 and 6, both layers


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a.ravel() @ b.ravel()) / size if size > 0 else 0.0  # a gradient of zeros points nowhere


@functools.lru_cache(maxsize=64)
def _dense(steepness: float, batch: int, seed: int) -> Found:
    return gradients(trial(batch, seed), math.inf, steepness)


def likeness(within: float, steepness: float, batch: int = BATCH, seed: int = 0) -> tuple[Found, Likeness]:
    """The gradient of `trial` within the band, and how like the dense one it is."""
    dense, found = _dense(steepness, batch, seed), gradients(trial(batch, seed), within, steepness)
    pairs = list(zip(found.dW, dense.dW, strict=True))
    a = [float(v.mean()) for v in found.active]
    inputs, lower, upper = SIZES[:3]
    # Table 1: dW of each layer by its own active entries, the error below by those of the layer below
    left = a[0] * inputs * lower + (a[1] + a[0]) * lower * upper
    cosine, error = (
        tuple(measure(got, wanted) for got, wanted in pairs)
        for measure in (_cosine, lambda got, wanted: float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)))
    )
    saved = 1 - left / (inputs * lower + 2 * lower * upper)
    return found, Likeness((a[0], a[1]), (cosine[0], cosine[1]), (error[0], error[1]), saved)


BANDS = np.logspace(-2.5, 0, 26)
STEEP = np.logspace(0, 2.5, 16)


@functools.lru_cache(maxsize=64)
def curves(steepness: float) -> dict[str, Array]:
    """Over `BANDS`: activity and error of the lower hidden layer's gradient, its cosine, and what is saved."""
    rows = [likeness(float(within), steepness)[1] for within in BANDS]
    return {
        "activity": np.array([np.mean(row.activity) for row in rows]),
        "cosine": np.array([row.cosine[0] for row in rows]),
        "error": np.array([row.error[0] for row in rows]),
        "saved": np.array([row.saved for row in rows]),
    }


@functools.cache
def cosines() -> Array:
    """The cosine of the lower layer's dW with the dense one, (len(STEEP), len(BANDS))."""
    return np.stack([[likeness(float(w), float(k))[1].cosine[0] for w in BANDS] for k in STEEP])


def credit_within(distances: ArrayLike, steepness: float) -> Array:
    """The share of sum |f e| of the upper layer that comes from membranes closer to the threshold than each."""
    t = trial()
    x = np.abs(t.V[1] - THETA).ravel()
    order = np.argsort(x)
    amount = np.cumsum(np.abs(slope(x, steepness) * t.e.ravel())[order])
    place = np.searchsorted(x[order], np.asarray(distances, float), side="left")  # strictly closer
    return np.concatenate([[0.0], amount])[place] / amount[-1]


Timed = Callable[[], object]


def milliseconds(work: Timed, times: int = 15) -> float:
    """Processor time of the fastest of some calls."""
    marks = []
    for _ in range(times):
        begin = time.process_time()
        work()
        marks.append(time.process_time() - begin)
    return 1000 * min(marks)


def products(neurons: int, activity: float, inputs: int = 700, entries: int = 4000) -> tuple[Timed, Timed]:
    """Eq. 5's matrix product at an activity, over entries = T * B: dense with zeros, and as a sparse tensor."""
    draw = torch.Generator().manual_seed(0)
    size, dtype = (neurons, entries), torch.float32
    mask = torch.rand(size, generator=draw, dtype=dtype) < activity
    fe = mask * torch.randn(size, generator=draw, dtype=dtype)
    tr = torch.rand((entries, inputs), generator=draw, dtype=dtype)
    return (lambda: fe @ tr), (lambda: torch.sparse.mm(fe.to_sparse(), tr))
