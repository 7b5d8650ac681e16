"""One neuron in discrete time. IF, LIF, current-based LIF and the leaky readout are values of it.

    I[n] = alpha * I[n-1] + a[n]                       synaptic current     (tutorial Eq. 7)
    U[n] = reset(U[n-1], s[n-1], I[n], beta, theta)    membrane potential   (tutorial Eq. 8, EXODUS Eq. 7)
    s[n] = fire(U[n], theta)                           spike                (tutorial below Eq. 8, EXODUS Eq. 8)

``a[n]`` is what the synapse delivers at step n and it acts at that step. The tutorial lets a spike reach I one
step later and U one step after that; such delays belong to the layer (`snnlearn.network.Layer(delay=2)`).
Units: the resting potential is 0 and the membrane is measured so that theta = 1 is the usual threshold; time
constants and dt are in seconds. Tensors are time-major, (T, B, *features). State goes in and comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.resets import Constant, Update, no_reset, subtract

# Firing.


class Fire(Protocol):
    """What leaves the neuron: s[n] = fire(U[n], theta)."""

    @property
    def analog(self) -> bool:
        """Whether the output is the membrane itself, so that no surrogate is needed."""

    def __call__(self, U: Tensor, theta: Constant) -> Tensor:
        """The output for membranes U."""


@dataclass(frozen=True)
class Threshold:
    """Spike where the membrane reaches the threshold (EXODUS 2.2: "reaches or exceeds").

    Args:
        strict: only where it exceeds the threshold (the tutorial's notebooks, TSSL-BP's code).
        most: the largest number of spikes in a step; above 1 a step may fire trunc(U / theta) times.
    """

    strict: bool = False
    most: float = 1

    analog = False

    def __post_init__(self) -> None:
        if not (self.most >= 1 and (self.most == math.inf or self.most == int(self.most))):
            raise ValueError(
                "most, the largest number of spikes in a step, must be a whole number of at least 1, or math.inf; "
                f"got {self.most}"
            )
        if self.most > 1 and self.strict:
            raise ValueError("strict=True is defined for one spike a step only; use most=1 or strict=False")

    def __call__(self, U: Tensor, theta: Constant) -> Tensor:
        """Spikes, as numbers of the dtype of U."""
        if self.most == 1:
            return (theta < U if self.strict else theta <= U).to(U.dtype)
        return torch.trunc(U / theta).clamp(0, self.most)


@dataclass(frozen=True)
class Analog:
    """A readout: the membrane is the output."""

    analog = True

    def __call__(self, U: Tensor, theta: Constant) -> Tensor:
        """U itself."""
        return U


# State.


class State(NamedTuple):
    """A neuron at one step: current, membrane and spikes, each (B, *features)."""

    I: Tensor
    U: Tensor
    s: Tensor

    @property
    def lead(self) -> int:
        """Axes before the features."""
        return 1


class Rest(State):
    """A state before which there was nothing. Zeros alone do not tell: a spike may have been a while ago."""

    __slots__ = ()


class Trace(NamedTuple):
    """A neuron over a sequence: current, membrane and spikes, each (T, B, *features)."""

    I: Tensor
    U: Tensor
    s: Tensor

    @property
    def lead(self) -> int:
        """Axes before the features."""
        return 2

    @property
    def last(self) -> State:
        """The state to go on from."""
        return State(self.I[-1], self.U[-1], self.s[-1])


# From time constants to decays.


def _check_times(tau: Constant, dt: float) -> None:
    _checks.positive("the time constant tau", tau, "seconds")
    _checks.positive("the time step dt", dt, "seconds")


def exp_decay(tau: Constant, dt: float) -> Constant:
    """exp(-dt/tau), the exact decay of a leak over one step (tutorial below Eqs. 7 and 8). Both in seconds."""
    _check_times(tau, dt)
    return torch.exp(-dt / tau) if isinstance(tau, Tensor) else math.exp(-dt / tau)


def euler_decay(tau: Constant, dt: float) -> Constant:
    """1 - dt/tau, the decay of one forward Euler step. Both in seconds.

    Raises:
        ValueError: where dt > tau, since the leak would overshoot zero.
    """
    _check_times(tau, dt)
    if (isinstance(tau, Tensor) and not _checks.holds(tau >= dt)) or (not isinstance(tau, Tensor) and tau < dt):
        raise ValueError(f"Euler's decay 1 - dt/tau is negative: dt = {dt:g} s exceeds tau; use a smaller dt")
    return 1 - dt / tau


Decay = Callable[[Constant, float], Constant]


@dataclass(frozen=True, eq=False)
class Neuron:
    """The dynamics, and nothing else: no state, no weights, no delay, no rule.

    Args:
        alpha: decay of the synaptic current over a step, in [0, 1]; 0 for no synapse.
        beta: decay of the membrane over a step, in [0, 1]; 1 for a neuron that does not leak.
        theta: threshold, > 0, in units of the membrane; 0 where firing is strict.
        reset: the membrane update, one of this module's or a function of the same form.
        fire: `Threshold` or `Analog`.

    Constants may be tensors that broadcast to (B, *features); `snnlearn.learned.Learned` makes them from parameters.
    """

    alpha: Constant = 0.0
    beta: Constant = 1.0
    theta: Constant = 1.0
    reset: Update = subtract
    fire: Fire = Threshold()

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not isinstance(value, Tensor | float | int):
                raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
            inside = (value >= 0) & (value <= 1) if isinstance(value, Tensor) else 0 <= value <= 1
            if not (_checks.holds(inside) if isinstance(inside, Tensor) else inside):
                raise ValueError(f"{name} is a decay over one step and lies in 0..1, got {value}")
        if not (isinstance(self.theta, float | int) and self.theta == 0 and getattr(self.fire, "strict", False)):
            _checks.positive("the threshold theta", self.theta)  # or 0, where silence stays below it
        if not callable(self.reset):
            raise TypeError(f"reset must be a function such as subtract, got {self.reset!r}")
        if isinstance(self.fire, type) or not hasattr(self.fire, "analog"):
            raise TypeError(f"fire must be Threshold() or Analog(), got {self.fire!r}")

    def __repr__(self) -> str:
        reset = getattr(self.reset, "__name__", self.reset)  # a function's own form holds its address
        constants = f"alpha={self.alpha}, beta={self.beta}, theta={self.theta}"
        return f"Neuron({constants}, reset={reset}, fire={self.fire})"

    @property
    def constants(self) -> tuple[Constant, Constant, Constant]:
        """alpha, beta and theta."""
        return self.alpha, self.beta, self.theta

    def fits(self, a: Tensor, state: State | None = None) -> None:
        """Refuse a current a (B, *features) that constants or a state do not fit, before they broadcast it.

        Raises:
            ValueError: a constant has other features than a, or the state another shape.
            TypeError: a constant has another dtype.
        """
        for name, constant in zip(("alpha", "beta", "theta"), self.constants, strict=True):
            if isinstance(constant, Tensor):
                _checks.same_kind(name, constant, "the current", a)
                try:
                    fits = torch.broadcast_shapes(constant.shape, a.shape) == a.shape
                except RuntimeError:
                    fits = False
                if not fits:
                    raise ValueError(
                        f"{name} has shape {tuple(constant.shape)}, but a step of the layer {tuple(a.shape)}; give one "
                        "value, or one each neuron"
                    )
        if state is not None and state.U.shape != a.shape:
            raise ValueError(f"the state has shape {tuple(state.U.shape)}, but a step {tuple(a.shape)}")

    def start(self, a: Tensor) -> State:
        """The state at rest for currents like ``a`` (B, *features)."""
        return Rest(torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a))

    def step(self, state: State, a: Tensor, fire: Fire | None = None, reset: Update | None = None) -> State:
        """One step.

        Args:
            state: the state at n-1.
            a: the current delivered at n, (B, *features).
            fire, reset: the neuron's own functions with a rule's gradient attached, where a rule wants one.

        Returns:
            The state at n.
        """
        I = self.alpha * state.I + a
        U = (reset or self.reset)(state.U, state.s, I, self.beta, self.theta)
        return State(I, U, (fire or self.fire)(U, self.theta))

    def simulate(
        self,
        a: Tensor,
        recurrent: Callable[[Tensor], Tensor] | None = None,
        lag: int = 1,
        state: State | None = None,
        sent: Sequence[Tensor] | None = None,
        fire: Fire | None = None,
        reset: Update | None = None,
    ) -> Trace:
        """All steps of a sequence.

        Args:
            a: currents, (T, B, *features).
            recurrent: the layer's own spikes to currents, which arrive ``lag`` steps later.
            lag: at least 1.
            state: the state before the first step; at rest if not given.
            sent: the last ``lag`` spikes before the first step, oldest first; by default the state's, and none
                before them.
            fire, reset: see `step`.
        """
        return Trace(*unroll(self, a, recurrent, lag, state, sent, fire, reset))

    def pull(self, update: Update, trace: Trace, state: State, lam: Tensor) -> tuple[Tensor, ...]:
        """The adjoint of U[n] = update(U[n-1], s[n-1], I[n], beta, theta), all steps at once.

        Args:
            update: the neuron's reset, or what a gradient sees of it.
            trace: the forward pass, (T, B, *features).
            state: the state before it.
            lam: dL/dU, like ``trace.U``; ones give the partial derivatives.

        Returns:
            Gradients of U[n-1], s[n-1], I[n] (each like lam) and of beta and theta (summed to their shapes).
        """
        constants = (torch.as_tensor(c, dtype=lam.dtype, device=lam.device) for c in (self.beta, self.theta))
        return torch.func.vjp(update, before(trace.U, state.U), before(trace.s, state.s), trace.I, *constants)[1](lam)


def unroll(
    dynamics: Any,
    a: Tensor,
    recurrent: Callable[[Tensor], Tensor] | None,
    lag: int,
    state: Any,
    sent: Sequence[Tensor] | None,
    fire: Fire | None,
    reset: Update | None,
) -> Iterator[Tensor]:
    """`Neuron.simulate` for dynamics with ``fits``, ``start`` and ``step``: each part of the state over all steps."""
    dynamics.fits(a[0], state)
    now = dynamics.start(a[0]) if state is None else state
    if sent is None:
        sent = (*(torch.zeros_like(now.s) for _ in range(lag - 1)), now.s)
    if len(sent) != lag:
        raise ValueError(f"sent must hold the last lag = {lag} spikes, got {len(sent)}")
    spikes, states = list(sent), []
    for n, a_n in enumerate(a.unbind(0)):
        if recurrent is not None:
            a_n = a_n + recurrent(spikes[n])  # spikes[n] is s[n - lag]
        now = dynamics.step(now, a_n, fire, reset)
        spikes.append(now.s)
        states.append(now)
    return (torch.stack(x) for x in zip(*states, strict=True))


def before(x: Tensor, first: Tensor) -> Tensor:
    """x[n-1] in place n, and ``first`` in place 0."""
    return torch.cat([first[None], x[:-1]])


# Neurons by name, with physical arguments.


def iaf(*, theta: Constant = 1.0, reset: Update = subtract, fire: Fire = Threshold()) -> Neuron:
    """Integrate-and-fire: a membrane that does not leak.

    Args:
        theta: threshold, in units of the membrane.
        reset: see this module's resets.
        fire: `Threshold` or `Analog`.
    """
    return Neuron(0.0, 1.0, theta, reset, fire)


def lif(
    *,
    tau_mem: Constant = 20e-3,
    dt: float = 1e-3,
    theta: Constant = 1.0,
    reset: Update = subtract,
    fire: Fire = Threshold(),
    decay: Decay = exp_decay,
) -> Neuron:
    """Leaky integrate-and-fire (tutorial Eqs. 4 and 8 without a synapse).

    Args:
        tau_mem: membrane time constant, seconds.
        dt: time step, seconds.
        theta: threshold, in units of the membrane.
        reset: see this module's resets.
        fire: `Threshold` or `Analog`.
        decay: `exp_decay` or `euler_decay`.

    Raises:
        ValueError: tau_mem, dt or theta is not positive and finite.

    >>> lif(tau_mem=20e-3, dt=1e-3).beta
    0.951229424500714
    """
    return Neuron(0.0, decay(tau_mem, dt), theta, reset, fire)


def cuba_lif(
    *,
    tau_mem: Constant = 20e-3,
    tau_syn: Constant = 5e-3,
    dt: float = 1e-3,
    theta: Constant = 1.0,
    reset: Update = subtract,
    fire: Fire = Threshold(),
    decay: Decay = exp_decay,
) -> Neuron:
    """Current-based LIF: a LIF behind an exponential synapse (tutorial Eqs. 5 to 8).

    Args:
        tau_mem: membrane time constant, seconds.
        tau_syn: synaptic time constant, seconds.
        dt, theta, reset, fire, decay: as in `lif`.
    """
    return Neuron(decay(tau_syn, dt), decay(tau_mem, dt), theta, reset, fire)


def readout(
    *,
    tau_mem: Constant = 20e-3,
    tau_syn: Constant | None = None,
    dt: float = 1e-3,
    decay: Decay = exp_decay,
) -> Neuron:
    """Leaky readout: a LIF that never fires and whose output is its membrane.

    Args:
        tau_mem: membrane time constant, seconds.
        tau_syn: synaptic time constant, seconds; None for no synapse.
        dt, decay: as in `lif`.
    """
    alpha = 0.0 if tau_syn is None else decay(tau_syn, dt)
    return Neuron(alpha, decay(tau_mem, dt), 1.0, no_reset, Analog())
