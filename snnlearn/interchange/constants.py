"""From the constants of our neuron to those of NIR's, and back.

Ours, with a[n] = gain * synapse(x[n]) and no spike in the way:

    I[n] = alpha * I[n-1] + a[n],    U[n] = beta * U[n-1] + I[n]

NIR's, with v_leak = 0 and the synapse's output x held over a step of dt:

    tau dv/dt = -v + r x                                       LIF, LI
    dv/dt = r x                                                IF, I
    tau_syn di/dt = -i + w_in x,   tau_mem dv/dt = -v + r i    CubaLIF, CubaLI

One step of the first equation is v[n] = b v[n-1] + (1 - b) r x[n], with b = exp(-dt/tau) where it is solved exactly and
b = 1 - dt/tau where it is integrated by Euler. CubaLIF takes two such steps, i first, then v with the new i. So

    b = beta gives tau,    r = gain / (1 - beta)                             LIF, LI
    r = gain / dt                                                            IF, I
    alpha and beta give tau_syn and tau_mem,
    w_in = gain / (1 - alpha),   r = 1 / (1 - beta)                          CubaLIF, CubaLI

Both are the same recursion, the synaptic current in other units (ours is (1 - beta) r times NIR's). With ``exp_decay``
LIF, LI, IF, I and i of CubaLIF solve NIR's equations exactly at t = (n + 1) dt for an input that is held; v of CubaLIF
is of first order in dt, since i moves within the step, and exact once it is at rest. With ``euler_decay`` our recursion
is Euler's of these equations; only tau differs, r and w_in do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snnlearn.neurons import Decay, euler_decay, exp_decay
from snnlearn.resets import Constant, Update, no_reset, subtract, subtract_decayed, to_zero, to_zero_with_input

RESETS: dict[str, Update] = {
    reset.__name__: reset for reset in (subtract, subtract_decayed, to_zero, to_zero_with_input, no_reset)
}
DECAYS: dict[str, Decay] = {"exp": exp_decay, "euler": euler_decay}
NEURONS = {"LIF", "IF", "CubaLIF", "LI", "I", "CubaLI"}
OURS = "snnlearn"  # the entry of a node's or a graph's metadata that is ours


class Scale(nn.Module):
    """Multiply by fixed numbers, NIR's Scale.

    Args:
        scale: the factors, of any shape that broadcasts to (batch, *features).
    """

    scale: Tensor

    def __init__(self, scale: Tensor):
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """x times the scale."""
        return x * self.scale


def name_of(decay: Any) -> str:
    """The name under which a decay is kept.

    Raises:
        ValueError: it is neither `exp_decay` nor `euler_decay`.
    """
    for name, known in DECAYS.items():
        if decay is known:
            return name
    raise ValueError(f"decay must be neurons.exp_decay or neurons.euler_decay, got {decay!r}")


def time_constant(value: Constant, dt: float, decay: Decay) -> Constant:
    """The tau, seconds, whose decay over dt is ``value``, in (0, 1) or, for Euler, in [0, 1)."""
    if decay is euler_decay:
        return dt / (1 - value)
    return -dt / (torch.log(value) if isinstance(value, Tensor) else math.log(value))


def to_continuous(
    kind: str, alpha: Constant, beta: Constant, gain: Constant, dt: float, decay: Decay
) -> dict[str, Constant]:
    """What NIR's neuron of a kind needs to be ours: tau, r and w_in by their names in NIR."""
    if kind in ("IF", "I"):
        return {"r": gain / dt}
    if kind in ("LIF", "LI"):
        return {"tau": time_constant(beta, dt, decay), "r": gain / (1 - beta)}
    return {
        "tau_syn": time_constant(alpha, dt, decay),
        "tau_mem": time_constant(beta, dt, decay),
        "w_in": gain / (1 - alpha),
        "r": 1 / (1 - beta),
    }


def to_discrete(
    kind: str, given: Mapping[str, Constant], dt: float, decay: Decay
) -> tuple[Constant, Constant, Constant]:
    """alpha, beta and gain of our neuron, the inverse of `to_continuous`.

    Raises:
        ValueError: a time constant is not positive, or too short for Euler's step.
    """
    if kind in ("IF", "I"):
        return 0.0, 1.0, given["r"] * dt
    if kind in ("LIF", "LI"):
        beta = decay(given["tau"], dt)
        return 0.0, beta, given["r"] * (1 - beta)
    alpha, beta = decay(given["tau_syn"], dt), decay(given["tau_mem"], dt)
    return alpha, beta, given["w_in"] * (1 - alpha) * (given["r"] * (1 - beta))


def collapse(value: Constant) -> Constant:
    """A number where all entries are the same."""
    if isinstance(value, Tensor) and value.numel() and bool((value == value.flatten()[0]).all()):
        return float(value.flatten()[0])
    return value


def close(a: Constant, b: Constant) -> bool:
    """Whether two constants are the same but for rounding in float64."""
    first, second = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    return bool(torch.isclose(first, second, rtol=1e-9, atol=0.0).all())
