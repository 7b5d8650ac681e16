"""The numbers behind tutorial 12: one synapse of an adaptive neuron.

The neuron is the paper's (Bellec et al. 2020, Eqs. 6-8), without a synaptic current, dt = 1 ms, theta = 1:

    V[n] = beta * V[n-1] - s[n-1] + w x[n] + drive[n],   a[n] = rho * a[n-1] + s[n-1]
    s[n] = 1 where V[n] reaches 1 + strength * a[n]
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from snnlearn.surrogate import PiecewiseLinear

Array = NDArray[np.float64]

SPAN = 400  # ms
WEIGHT = 0.5  # of the synapse that is watched
PSEUDO = PiecewiseLinear(width=0.5, peak=0.3)  # the paper's: 0.3 * max(0, 1 - |U - 1|)


class Synapse(NamedTuple):
    """One synapse over time, (SPAN,) each."""

    x: Array
    V: Array
    threshold: Array
    s: Array
    f: Array
    q: Array
    eps: Array  # the slow component, eps^a
    fast: Array  # f q
    slow: Array  # -f * strength * eps

    @property
    def eligibility(self) -> Array:
        """Eq. 25."""
        return self.fast + self.slow

    def lasts(self, part: Array) -> int:
        """ms from the input spike to the last step at which a part of the eligibility is above 2 % of its largest."""
        size = np.abs(part)
        if size.max() == 0:
            return 0
        return int(np.flatnonzero(size > 0.02 * size.max())[-1] - np.flatnonzero(self.x)[0])


@lru_cache(maxsize=1)
def _drive() -> Array:
    """What all the other synapses bring: noise."""
    return np.random.default_rng(5).normal(0.07, 0.09, SPAN)


@lru_cache(maxsize=64)
def synapse(tau_mem: float, tau_adapt: float, strength: float, pre: int) -> Synapse:
    """The traces after one presynaptic spike.

    Args:
        tau_mem, tau_adapt: time constants, ms.
        strength: jump of the threshold at a spike.
        pre: when the input spike comes, ms.
    """
    beta, rho, drive = math.exp(-1 / tau_mem), math.exp(-1 / tau_adapt), _drive()
    x, q, eps = (np.zeros(SPAN) for _ in range(3))
    V, a, s, f = (np.zeros(SPAN) for _ in range(4))
    x[pre] = 1.0
    v = threshold = fired = trace = slow = 0.0
    for n in range(SPAN):
        threshold = rho * threshold + fired
        v = beta * v - fired + WEIGHT * x[n] + (20 / tau_mem) ** 0.5 * drive[n]  # as much noise at any tau_mem
        fired = float(v >= 1 + strength * threshold)
        V[n], a[n], s[n] = v, threshold, fired
    f = PSEUDO.slope(torch.from_numpy(V - strength * a - 1)).numpy()
    for n in range(SPAN):
        trace = beta * trace + x[n]
        q[n], eps[n] = trace, slow
        slow = rho * slow + f[n] * (trace - strength * slow)  # Eq. 24
    return Synapse(x, V, 1 + strength * a, s, f, q, eps, f * q, -f * strength * eps)
