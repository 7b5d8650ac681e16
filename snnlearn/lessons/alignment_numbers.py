"""The numbers behind tutorial 10: a case by hand, and a network whose feedback weights are turned away from its own."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from snnlearn.lessons import alignment_training as training
from snnlearn.lessons.alignment_training import Way, Weights

Array = NDArray[np.float64]

# By hand: two inputs, two hidden neurons, two readouts, three steps.

ALPHA, BETA, THETA = 0.0, 0.5, 1.0  # of all neurons; the slope is max(0, 1 - |U - theta|)
HAND_X = ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0))
HAND_TARGET = ((1.0, 0.0), (1.0, 0.0), (1.0, 0.0))
HAND_W1 = ((0.8, 0.4), (0.3, 0.6))
HAND_W2 = ((1.0, -0.5), (0.5, 1.0))
HAND_G = ((0.5, 1.0), (1.0, -0.5))
HAND_H = ((1.0, 1.0), (-1.0, 0.5))


class Hand(NamedTuple):
    """The case by hand; each (T, 2)."""

    U: Array
    s: Array
    y: Array
    f: Array
    wrong: Array  # dL/dy = y - target
    kap: Array  # dL/da of the readout: the same, behind its memory


def by_hand() -> Hand:
    """Forward through the network, and the error at its output, of L = 1/2 sum (y - target)^2."""
    x, target, W1, W2 = (np.array(v) for v in (HAND_X, HAND_TARGET, HAND_W1, HAND_W2))
    U, s, y, found = np.zeros(2), np.zeros(2), np.zeros(2), []
    for x_n in x:
        U = BETA * U - THETA * s + W1 @ x_n
        s = (U >= THETA).astype(float)
        y = BETA * y + W2 @ s
        found.append((U, s, y, np.maximum(0, 1 - np.abs(U - THETA))))
    membranes, spikes, out, f = (np.array(v) for v in zip(*found, strict=True))
    return Hand(membranes, spikes, out, f, out - target, reverse(BETA, out - target))


def reverse(beta: ArrayLike, source: Array) -> Array:
    """lam[n] = source[n] + beta[n] * lam[n+1], along the first axis; beta may be a number."""
    beta = np.broadcast_to(beta, source.shape)
    lam, found = np.zeros_like(source[0]), np.empty_like(source)
    for n in reversed(range(len(source))):
        lam = found[n] = source[n] + beta[n] * lam
    return found


def first_gradient(e: Array) -> Array:
    """dL/dW1 of the case by hand, from the errors e (T, 2) of its hidden neurons; the reset is kept."""
    case = by_hand()
    lam = reverse(BETA - THETA * case.f, case.f * e)
    return lam.T @ np.array(HAND_X)


def degrees(a: ArrayLike, b: ArrayLike) -> float:
    """The angle between two arrays of the same shape, taken as one long vector each."""
    a, b = np.ravel(a), np.ravel(b)
    return float(np.degrees(np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))))


# Panel A: feedback turned away from the weights.

PHI = tuple(range(0, 181, 5))  # degrees between G and W
MOVES = np.linspace(0, 0.06, 13)  # |change| / |W| of the hidden layers' weights
DEPTHS = (1, 2, 3)
IMAGES = 64


class Turned(NamedTuple):
    """One network, with feedback at each of the angles `PHI`."""

    errors: Array  # (PHI, depth), degrees between the error and backpropagation's, the lowest layer first
    slopes: Array  # (PHI,), cosine between the hidden layers' gradient and backpropagation's
    losses: Array  # (PHI, MOVES), after a step against the gradient of the hidden layers
    blame: NDArray[np.float32]  # (PHI, 2, points), in the lowest layer: errors by backpropagation, and by this


def turn(weights: Weights, phi: ArrayLike, seed: int = 2000) -> Weights:
    """A network with feedback at the angles phi (degrees) to its own weights, as long as they, a run for each angle.

    G = cos(phi) W + sin(phi) P, where P is random, orthogonal to W and of the same norm. One run goes in.
    The seed must not be that of the weights, or P would be W.
    """
    angles = torch.deg2rad(torch.as_tensor(np.array(phi, dtype=np.float32)))[:, None, None]
    generator, G = torch.Generator().manual_seed(seed), []
    for w in weights.W:
        p = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        p = p - (p * w).sum() / w.square().sum() * w
        G.append(angles.cos() * w + angles.sin() * p * w.norm() / p.norm())
    W, H = ([v.expand(len(angles), -1, -1) for v in matrices] for matrices in (weights.W, weights.H))
    return Weights(W, G, H)


@lru_cache(maxsize=len(DEPTHS))
def turned(depth: int, points: int = 500) -> Turned:
    """A network as it was drawn, its errors and its steps, with feedback at each of the angles `PHI`."""
    x, y, *_ = training.digits()
    x, y = x[:IMAGES], y[:IMAGES]
    with torch.no_grad():
        weights = turn(training.draw([0], depth), PHI)
        exact, found = (training.gradients(way, weights, x, y) for way in (Way.TRANSPOSE, Way.RANDOM))
        errors = [training.angle(e, b) for e, b in zip(found.errors, exact.errors, strict=True)]
        mine, theirs = (torch.cat([g.flatten(1) for g in v.W[:-1] if g is not None], 1) for v in (found, exact))
        some = torch.randperm(exact.errors[0][0].numel(), generator=torch.Generator().manual_seed(1))[:points]
        blame = torch.stack([v.errors[0].flatten(1)[:, some] for v in (exact, found)], 1)
    return Turned(
        torch.stack(errors, 1).double().numpy(),
        torch.cosine_similarity(mine, theirs).double().numpy(),
        _after(weights, [g for g in found.W[:-1] if g is not None], x, y),
        blame.numpy(),
    )


def _after(weights: Weights, grads: list[Tensor], x: Tensor, y: Tensor) -> Array:
    """Losses of x, y when the hidden layers have moved against their gradients, (runs, MOVES)."""
    length = torch.cat([g.flatten(1) for g in grads], 1).norm(dim=1)[:, None, None]
    size = torch.cat([w[0].flatten() for w in weights.W[:-1]]).norm()
    losses = []
    with torch.no_grad():
        for move in MOVES:
            W = [w - move * size * g / length for w, g in zip(weights.W[:-1], grads, strict=True)]
            logp = training.forward([*W, weights.W[-1]], x).scores.log_softmax(-1)
            losses.append(-logp[:, torch.arange(len(y)), y].mean(-1))
    return torch.stack(losses, 1).double().numpy()


def random_angle(size: int, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation, in degrees, of the angle between two random vectors with this many entries."""
    a, b = np.random.default_rng(seed).normal(size=(2, draws, size)).astype(np.float32)
    cosine = (a * b).sum(1) / np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    angles = np.degrees(np.arccos(cosine))
    return float(angles.mean()), float(angles.std())
