"""Tutorial 11: three DECOLLE layers learn digits, quickly, several runs side by side.

Nothing goes from step to step in DECOLLE's credit, and nothing from layer to layer. So the traces P of a whole batch
can be made first, by one matrix product over time, and the gradient of all steps is one product of (error * slope)
with P. The result is that of the library's `Eligibility(adaptation=False)` with `LocalErrors`, to rounding.

Arrays of activity are (R, T, B, N): runs, steps, samples, neurons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from snnlearn import datasets, encoding
from snnlearn.adaptive import refractory
from snnlearn.filters import Cascade, filtered
from snnlearn.surrogate import FastSigmoid, firing

DT = 2.0  # ms a step
STEPS = 20  # 40 ms a digit
TAU_MEM, TAU_SYN, TAU_REF = 20.0, 5.0, 2.0  # ms, of P, Q and R
SLOW = 100.0  # ms, of the first layer's P where it is to remember the whole image
SIZES = (48, 48, 48)
CLASSES, INPUTS = 10, 128
START = (30.0, 6.0, 6.0)  # weights from N(0, START**2 / inputs); an input fires once, so its trace is small
CERTAIN = 5.0  # readouts from N(0, CERTAIN**2 / neurons)
STEEP = 3.0  # of the slope 1 / (1 + STEEP |U|)**2
RATE, EPOCHS, BATCH = 0.07, 12, 64
SHOWN = 20  # test samples whose scores are kept, of the first run

_RHO = math.exp(-DT / TAU_REF)


class Weights(NamedTuple):
    """Of R networks: W (R, N, inputs), b (R, 1, N) and the readouts G (R, classes, N), for each layer."""

    W: list[Tensor]
    b: list[Tensor]
    G: list[Tensor]


class History(NamedTuple):
    """R runs over the epochs; the first entry is before training."""

    accuracy: np.ndarray  # (epochs + 1, layers, R), of each layer's own readout on the test images
    answers: np.ndarray  # (epochs + 1, layers, test images), of the first run
    scores: np.ndarray  # (epochs + 1, layers, T, SHOWN, classes), of the first run, each critic's softmax
    rates: np.ndarray  # (epochs + 1, layers), spikes a neuron and step, all runs
    weights: Weights  # after the last epoch


def draw_weights(
    seeds: Sequence[int],
    sizes: Sequence[int] = SIZES,
    start: Sequence[float] = START,
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """One network for each seed, whatever the other seeds are."""
    made: list[list[list[Tensor]]] = []
    for seed in seeds:
        g, below, rows = torch.Generator().manual_seed(seed), INPUTS, []
        for n, scale in zip(sizes, start, strict=True):
            W = scale / math.sqrt(below) * torch.randn(n, below, generator=g, dtype=dtype)
            G = CERTAIN / math.sqrt(n) * torch.randn(CLASSES, n, generator=g, dtype=dtype)
            rows.append([W, torch.zeros(1, n, dtype=dtype), G])
            below = n
        made.append(rows)
    return Weights(*([torch.stack([run[i][k] for run in made]) for i in range(len(sizes))] for k in range(3)))


@lru_cache(maxsize=4)
def kernel(steps: int = STEPS, dtype: torch.dtype = torch.float32, tau_mem: float = TAU_MEM) -> Tensor:
    """P as a matrix over time, (T, T): P = kernel @ x, one step late."""
    leaks = Cascade.normalised(math.exp(-DT / TAU_SYN), math.exp(-DT / tau_mem))
    late = torch.zeros(steps, steps, dtype=torch.float64)
    late[1:] = torch.eye(steps, dtype=torch.float64)[:-1]
    return filtered(leaks, late).to(dtype)


def traces(x: Tensor, tau_mem: float = TAU_MEM) -> Tensor:
    """P of spikes (..., T, B, N)."""
    return (kernel(x.shape[-3], x.dtype, tau_mem) @ x.flatten(-2)).reshape(x.shape)


def encode(x: Tensor, steps: int = STEPS) -> Tensor:
    """Spikes (T, B, INPUTS) of images: a bright pixel fires early, a dark one on its own channel."""
    return encoding.latency(encoding.on_off(x), steps)


@lru_cache(maxsize=3)
def digits(code: str = "latency") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """P of the training images (T, B, INPUTS), their labels, and the same of the test images; `fit` has the codes."""
    data = datasets.digits()
    if code == "steady":
        P, P_test = (encoding.on_off(split.x).expand(STEPS, -1, -1) for split in (data.train, data.test))
    else:
        tau = SLOW if code == "slow" else TAU_MEM
        P, P_test = (tau / TAU_MEM * traces(encode(split.x), tau) for split in (data.train, data.test))
    return P, data.train.y, P_test, data.test.y


def fire(U: Tensor, weight_ref: float = 1.0) -> Tensor:
    """Spikes for W P + b (R, T, B, N), to which the refractory trace is added in place: U is the membrane then."""
    R, S = torch.zeros_like(U[:, 0]), torch.empty_like(U)
    for n in range(U.shape[1]):
        U_n = U[:, n].add_(R)
        s = S[:, n].copy_(U_n > 0)
        R.mul_(_RHO).add_(s, alpha=-(1 - _RHO) * weight_ref)
    return S


def layer(P: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Membranes and spikes (R, T, B, N) for traces P (R or 1, T, B, inputs)."""
    U = P.flatten(1, 2) @ W.transpose(1, 2) + b
    U = U.unflatten(1, P.shape[1:3])
    S = fire(U)
    return U, S


def slope(U: Tensor, steep: float = STEEP) -> Tensor:
    """sigma'(U) = 1 / (1 + steep |U|)**2."""
    return U.abs().mul_(steep).add_(1).square_().reciprocal_()


class Fit(NamedTuple):
    """One batch: the gradients of W, b and G, as lists over layers, and each critic's scores (R, T, B, classes)."""

    W: list[Tensor]
    b: list[Tensor]
    G: list[Tensor]
    scores: list[Tensor]


@torch.no_grad()
def gradients(weights: Weights, P: Tensor, y: Tensor, *, loss: str = "cross-entropy", steep: float = STEEP) -> Fit:
    """All steps of a batch: dW_l = sum_n (G_l^T e_l[n] * sigma'(U_l[n])) P_l[n]^T, divided by T and B.

    Args:
        weights: of R networks.
        P: traces of the input, (T, B, INPUTS).
        y: labels (B,).
        loss: "cross-entropy" or "smooth L1" (DECOLLE's code), the latter to one-hot targets.
        steep: of the slope.
    """
    wanted, found = functional.one_hot(y, CLASSES).to(P.dtype), Fit([], [], [], [])
    p = P[None]
    for W, b, G in zip(*weights, strict=True):
        U, S = layer(p, W, b)
        read = S.flatten(1, 2) @ G.transpose(1, 2)
        e = read.unflatten(1, U.shape[1:3])
        found.scores.append(e)
        e = e.softmax(-1) - wanted if loss == "cross-entropy" else (e - wanted).clamp(-1, 1) / CLASSES
        e = (e / (U.shape[1] * U.shape[2])).flatten(1, 2)
        delta = (e @ G).mul_(slope(U, steep).flatten(1, 2))
        found.W.append(delta.transpose(1, 2) @ p.flatten(1, 2))
        found.b.append(delta.sum(1, keepdim=True))
        found.G.append(e.transpose(1, 2) @ S.flatten(1, 2))
        p = traces(S)
    return found


@torch.no_grad()
def critics(weights: Weights, P: Tensor) -> tuple[list[Tensor], list[float]]:
    """Each critic's scores (R, T, B, classes) for traces (T, B, INPUTS), and each layer's rate."""
    scores, rates, p = [], [], P[None]
    for W, b, G in zip(*weights, strict=True):
        _, S = layer(p, W, b)
        scores.append((S.flatten(1, 2) @ G.transpose(1, 2)).unflatten(1, S.shape[1:3]))
        rates.append(S.mean().item())
        p = traces(S)
    return scores, rates


def fit(
    seeds: Sequence[int] = range(5),
    *,
    readouts: bool = False,
    epochs: int = EPOCHS,
    rate: float = RATE,
    loss: str = "cross-entropy",
    certain: float = CERTAIN,
    code: str = "latency",
    watch: bool = True,
) -> History:
    """Train all layers by their own critics, an update after every batch.

    Args:
        seeds: of the weights, one run each. The order of the images is the same for all.
        readouts: train G too.
        epochs, rate: passes over the 1257 images; Adam's first rate, which falls to 0 as a cosine.
        loss: see `gradients`.
        certain: scale of G.
        code: "latency", one spike an input; "slow", the same with a first layer that remembers longer (its P is scaled
            so that a spike counts as much); or "steady": P is the pixel's brightness, at every step.
        watch: look at the test images after every epoch, or only before and after training.
    """
    P, y, P_test, y_test = digits(code)
    weights = draw_weights(seeds, start=(START[-1],) * len(SIZES) if code == "steady" else START)
    weights = weights._replace(G=[certain / CERTAIN * G for G in weights.G])
    moved = [*weights.W, *weights.b, *(weights.G if readouts else [])]
    optimizer, schedule = _adam(moved, rate, epochs * -(-len(y) // BATCH))
    order, rows = torch.Generator().manual_seed(1), [_look(weights, P_test, y_test)]
    for epoch in range(epochs):
        for batch in torch.randperm(len(y), generator=order).split(BATCH):
            found = gradients(weights, P[:, batch], y[batch], loss=loss)
            for p, g in zip(moved, [*found.W, *found.b, *found.G], strict=False):
                p.grad = g
            optimizer.step()
            schedule.step()
        if watch or epoch == epochs - 1:
            rows.append(_look(weights, P_test, y_test))
    accuracy, answers, scores, rates = (np.stack(column) for column in zip(*rows, strict=True))
    return History(accuracy, answers, scores, rates, weights)


def fit_readouts(seeds: Sequence[int] = range(5), *, epochs: int = EPOCHS, rate: float = RATE) -> np.ndarray:
    """The same networks left as they were drawn, a trained readout on each layer: accuracy (layers, R) at the end."""
    P, y, P_test, y_test = digits()
    weights = draw_weights(seeds)
    spikes, p = [], P[None]
    for W, b in zip(weights.W, weights.b, strict=True):
        spikes.append(layer(p, W, b)[1])
        p = traces(spikes[-1])
    optimizer, schedule = _adam(weights.G, rate, epochs * -(-len(y) // BATCH))
    order, wanted = torch.Generator().manual_seed(1), functional.one_hot(y, CLASSES).to(P.dtype)
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=order).split(BATCH):
            for G, S in zip(weights.G, spikes, strict=True):
                s = S[:, :, batch].flatten(1, 2)
                e = (s @ G.transpose(1, 2)).softmax(-1).unflatten(1, (len(P), -1)) - wanted[batch]
                G.grad = (e.flatten(1, 2) / s.shape[1]).transpose(1, 2) @ s
            optimizer.step()
            schedule.step()
    return _look(weights, P_test, y_test)[0]


def _adam(parameters: list[Tensor], rate: float, steps: int) -> tuple[Any, Any]:
    """Adam, and its rate that falls to 0 as a cosine."""
    for p in parameters:
        p.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=rate)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def over_time(weights: Weights, code: str = "latency") -> np.ndarray:
    """The share of the test images that each critic names rightly at one step alone, (layers, R, T)."""
    _, _, P, y = digits(code)
    scores, _ = critics(weights, P)
    return torch.stack([(r.argmax(-1) == y).double().mean(-1) for r in scores]).numpy()


@torch.no_grad()
def _look(weights: Weights, P: Tensor, y: Tensor) -> tuple[np.ndarray, ...]:
    """A row of a `History`."""
    scores, rates = critics(weights, P)
    answers = torch.stack([r.mean(1).argmax(-1) for r in scores])  # (layers, R, B)
    accuracy = (answers == y).double().mean(-1)
    shown = torch.stack([r[0, :, :SHOWN].softmax(-1) for r in scores])
    return accuracy.numpy(), answers[:, 0].byte().numpy(), shown.numpy(), np.array(rates)


# Backpropagation through time and layers on the same neurons, with a trained readout of the top layer.


def backprop(weights: Weights, P: Tensor, y: Tensor, *, steep: float = STEEP) -> tuple[Tensor, Tensor]:
    """The loss of the top layer's readout with its graph, summed over runs, and the scores (R, T, B, classes)."""
    spike = firing(refractory().neuron, FastSigmoid.from_steepness(steep))
    p, S = P[None], P[None]
    for W, b in zip(weights.W, weights.b, strict=True):
        U = (p.flatten(1, 2) @ W.transpose(1, 2) + b).unflatten(1, P.shape[:2])
        R, out = torch.zeros_like(U[:, 0]), []
        for U_n in U.unbind(1):
            out.append(spike(U_n + R, 0.0))
            R = _RHO * R - (1 - _RHO) * out[-1]
        S = torch.stack(out, 1)
        p = traces(S)
    scores = (S.flatten(1, 2) @ weights.G[-1].transpose(1, 2)).unflatten(1, S.shape[1:3])
    target = y.expand(*scores.shape[:3]).flatten()
    return functional.cross_entropy(scores.flatten(0, 2), target) * len(scores), scores


def fit_backprop(seeds: Sequence[int] = range(2), *, epochs: int = EPOCHS, rate: float = 0.05) -> np.ndarray:
    """The same networks and images by BPTT; accuracy of the top readout on the test images, (epochs + 1, R)."""
    P, y, P_test, y_test = digits()
    drawn = draw_weights(seeds)
    weights = drawn._replace(G=drawn.G[-1:])
    optimizer, schedule = _adam([p for part in weights for p in part], rate, epochs * -(-len(y) // BATCH))
    order, rows = torch.Generator().manual_seed(1), []
    for epoch in range(epochs + 1):
        with torch.no_grad():
            _, scores = backprop(weights, P_test, y_test)
            rows.append((scores.mean(1).argmax(-1) == y_test).double().mean(-1).numpy())
        for batch in torch.randperm(len(y), generator=order).split(BATCH) if epoch < epochs else ():
            optimizer.zero_grad()
            backprop(weights, P[:, batch], y[batch])[0].backward()
            optimizer.step()
            schedule.step()
    return np.stack(rows)
