"""Neurons with a second, slow state: a threshold that rises with each spike and sinks back.

    V[n] = reset(V[n-1], s[n-1], I[n], beta, theta)    membrane, as any neuron's
    a[n] = rho * a[n-1] + s[n-1]                       adaptation
    s[n] = fire(U[n], theta),  U = V - strength * a    fires where V reaches theta + strength * a

the adaptive LIF of e-prop (Bellec et al. 2020, Eqs. 6-8). The same state on a neuron without memory is DECOLLE's
refractory trace: R = -strength * a, strength = (1 - rho) * w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.neurons import Decay, Fire, Neuron, State, Threshold, exp_decay, lif, unroll
from snnlearn.resets import Constant, Update, no_reset, subtract


class AdaptiveState(NamedTuple):
    """A neuron at one step: current, membrane U = V - strength * a, spikes and adaptation, each (B, *features)."""

    I: Tensor
    U: Tensor
    s: Tensor
    a: Tensor

    @property
    def lead(self) -> int:
        """Axes before the features."""
        return 1


class AdaptiveTrace(NamedTuple):
    """The same over a sequence, (T, B, *features)."""

    I: Tensor
    U: Tensor
    s: Tensor
    a: Tensor

    @property
    def lead(self) -> int:
        """Axes before the features."""
        return 2

    @property
    def last(self) -> AdaptiveState:
        """The state to go on from."""
        return AdaptiveState(*(x[-1] for x in self))


@dataclass(frozen=True, eq=False)
class Adaptive:
    """A `Neuron` with an adaptive threshold. U is measured from the moving threshold, so that it fires at theta.

    Args:
        neuron: membrane, current, base threshold and reset.
        rho: decay of the adaptation over a step, in [0, 1).
        strength: by how much a spike lifts the threshold, in units of the membrane; not negative.

    Methods written for a `Neuron` alone refuse it (`Adjoint`, `TSSLBP`); `Unrolled`, `RTRL` and `Eligibility` do not.
    What a method sees of the reset concerns V; they all see the adaptation, unless they say otherwise.
    """

    neuron: Neuron
    rho: float
    strength: float

    def __post_init__(self) -> None:
        if not isinstance(self.neuron, Neuron) or self.neuron.fire.analog:
            raise TypeError(f"Adaptive wraps a Neuron that fires, got {self.neuron!r}")
        for name, value in (("rho", self.rho), ("strength", self.strength)):
            if isinstance(value, bool) or not isinstance(value, float | int):
                raise TypeError(f"{name} must be a number, got {value!r}")
        if not 0 <= self.rho < 1:
            raise ValueError(f"rho is a decay over one step and lies in 0..1, 1 excluded, got {self.rho}")
        if not 0 <= self.strength < torch.inf:
            raise ValueError(f"strength must be finite and not negative, got {self.strength}")

    @property
    def alpha(self) -> Constant:
        """Decay of the synaptic current over a step."""
        return self.neuron.alpha

    @property
    def beta(self) -> Constant:
        """Decay of the membrane over a step."""
        return self.neuron.beta

    @property
    def theta(self) -> Constant:
        """The threshold at rest."""
        return self.neuron.theta

    @property
    def reset(self) -> Update:
        """The membrane update of V."""
        return self.neuron.reset

    @property
    def fire(self) -> Fire:
        """What leaves the neuron."""
        return self.neuron.fire

    @property
    def constants(self) -> tuple[Constant, ...]:
        """alpha, beta, theta, rho and strength."""
        return *self.neuron.constants, self.rho, self.strength

    def fits(self, a: Tensor, state: AdaptiveState | None = None) -> None:
        """See `Neuron.fits`."""
        self.neuron.fits(a, None if state is None else State(*state[:3]))

    def start(self, a: Tensor) -> AdaptiveState:
        """The state at rest for currents like ``a`` (B, *features)."""
        return AdaptiveState(*(torch.zeros_like(a) for _ in range(4)))

    def step(
        self, state: AdaptiveState, a: Tensor, fire: Fire | None = None, reset: Update | None = None
    ) -> AdaptiveState:
        """One step; see `Neuron.step`."""
        V = state.U + self.strength * state.a
        slow = self.rho * state.a + state.s
        I = self.alpha * state.I + a
        U = (reset or self.reset)(V, state.s, I, self.beta, self.theta) - self.strength * slow
        return AdaptiveState(I, U, (fire or self.fire)(U, self.theta), slow)

    def simulate(
        self,
        a: Tensor,
        recurrent: Callable[[Tensor], Tensor] | None = None,
        lag: int = 1,
        state: AdaptiveState | None = None,
        sent: Sequence[Tensor] | None = None,
        fire: Fire | None = None,
        reset: Update | None = None,
    ) -> AdaptiveTrace:
        """All steps of a sequence; see `Neuron.simulate`."""
        return AdaptiveTrace(*unroll(self, a, recurrent, lag, state, sent, fire, reset))


def alif(
    *,
    tau_mem: Constant = 20e-3,
    tau_adapt: float = 200e-3,
    strength: float = 0.1,
    dt: float = 1e-3,
    theta: Constant = 1.0,
    reset: Update = subtract,
    fire: Fire = Threshold(),
    decay: Decay = exp_decay,
) -> Adaptive:
    """Adaptive LIF: a LIF whose threshold jumps by ``strength`` at each spike and sinks back (Bellec et al. 2020).

    Args:
        tau_mem: membrane time constant, seconds.
        tau_adapt: time constant of the adaptation, seconds.
        strength: jump of the threshold, in units of the membrane.
        dt, theta, reset, fire, decay: as in `snnlearn.lif`.
    """
    if isinstance(tau_adapt, Tensor):
        raise TypeError("tau_adapt must be one number of seconds for the layer, got a tensor")
    neuron = lif(tau_mem=tau_mem, dt=dt, theta=theta, reset=reset, fire=fire, decay=decay)
    return Adaptive(neuron, float(decay(tau_adapt, dt)), strength)


def refractory(
    *,
    tau_ref: float = 2e-3,
    weight: float = 1.0,
    dt: float = 1e-3,
    theta: Constant = 0.0,
    fire: Fire = Threshold(strict=True),
) -> Adaptive:
    """DECOLLE's neuron: no memory but a refractory trace, R[n] = rho * R[n-1] - (1 - rho) * weight * s[n-1].

    U = I + R; all other memory is in the layer's filtered input (`snnlearn.network.decolle_layer`).

    Args:
        tau_ref: time constant of the trace, seconds.
        weight: w_R, the integral of what a spike takes off.
        dt: time step, seconds.
        theta, fire: threshold and firing; the code's are 0 and strict.
    """
    _checks.positive("tau_ref", tau_ref, "seconds")
    if not 0 <= weight < torch.inf:
        raise ValueError(f"the weight of the refractory trace must be finite and not negative, got {weight}")
    rho = float(exp_decay(tau_ref, dt))
    return Adaptive(Neuron(0.0, 0.0, theta, no_reset, fire), rho, (1 - rho) * weight)
