"""Tutorial 11: the numbers of the case by hand and of the watched synapse, without the library's rules."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from snnlearn.encoding import poisson

Array = np.ndarray

# One step of two layers, for paper and pencil.

STEEP_BY_HAND = 5.0


class Hand(NamedTuple):
    """Two layers of two neurons, at one step: traces, weights, readouts, and what is wanted."""

    P: Array
    W: tuple[Array, Array]
    G: tuple[Array, Array]
    y: Array


def by_hand() -> Hand:
    """The case of section 1."""
    return Hand(
        P=np.array([1.0, 0.5]),
        W=(np.array([[0.6, -0.8], [-0.5, 0.4]]), np.array([[0.4, 0.3], [-0.2, 0.5]])),
        G=(np.array([[0.5, -1.0], [-0.5, 1.5]]), np.array([[1.0, 0.5], [1.0, -1.0]])),
        y=np.array([0.0, 1.0]),
    )


# One synapse of a DECOLLE layer, step by step.

SPAN, CHANGE = 120, 60  # ms; the label changes in the middle
NEURONS, SENDERS, RATE = 8, 20, 60.0  # Hz
TAU_SYN, TAU_REF = 5.0, 2.0  # ms


class Synapse(NamedTuple):
    """Everything that the synapse from sender 0 to neuron 0 sees, (SPAN,) each."""

    x: Array  # its input spikes
    Q: Array
    P: Array
    U: Array
    R: Array
    s: Array
    f: Array  # sigma'(U)
    e: Array  # G^T dL/dr of the neuron, its local error; L is a softmax cross-entropy
    product: Array  # e * f * P, the gradient of this step's loss
    w: Array  # the weight after each step


@lru_cache(maxsize=1)
def drawn() -> tuple[Array, Array, Array]:
    """Input spikes (SPAN, SENDERS), and W and G before they are scaled."""
    g = torch.Generator().manual_seed(5)
    x = poisson(torch.full((SENDERS,), RATE, dtype=torch.float64), SPAN, generator=g)
    W = torch.randn(NEURONS, SENDERS, dtype=torch.float64, generator=g) / math.sqrt(SENDERS)
    G = torch.randn(2, NEURONS, dtype=torch.float64, generator=g) / math.sqrt(NEURONS)
    return x.numpy(), W.numpy(), G.numpy()


@lru_cache(maxsize=32)
def synapse(
    size: float = 20.0,
    weight_ref: float = 1.0,
    steep: float = 3.0,
    tau_mem: float = 20.0,
    certain: float = 4.0,
    rate: float = 0.0,
) -> Synapse:
    """A layer of NEURONS, its critic, and a label that is 0 before CHANGE and 1 after.

    Args:
        size: of the weights, N(0, size**2 / SENDERS).
        weight_ref: w_R of the refractory trace.
        steep: of the slope 1 / (1 + steep |U|)**2.
        tau_mem: of P, ms.
        certain: size of the readout, N(0, certain**2 / NEURONS).
        rate: of learning, W -= rate * dW at every step.
    """
    x, W, G = drawn()
    W, G = size * W, certain * G
    alpha, beta, rho = (math.exp(-1 / tau) for tau in (tau_mem, TAU_SYN, TAU_REF))
    P, Q, R, s = np.zeros(SENDERS), np.zeros(SENDERS), np.zeros(NEURONS), np.zeros(NEURONS)
    rows = []
    for n in range(SPAN):
        P = alpha * P + (1 - alpha) * Q
        R = rho * R - (1 - rho) * weight_ref * s
        U = W @ P + R
        s = (U > 0).astype(float)
        r = G @ s
        p = np.exp(r - r.max())
        error = p / p.sum()
        error[int(n >= CHANGE)] -= 1
        e, f = G.T @ error, 1 / (1 + steep * np.abs(U)) ** 2
        dW = np.outer(e * f, P)
        W = W - rate * dW
        Q = beta * Q + (1 - beta) * x[n]  # P takes it in at the next step
        rows.append((x[n, 0], Q[0], P[0], U[0], R[0], s[0], f[0], e[0], dW[0, 0], W[0, 0]))
    return Synapse(*np.array(rows).T)
