"""Neurons with any kernels: the spike-response model, and its gradient by the implicit function theorem (EXODUS).

    z[n] = sum_k<=n eps[n-k] a[k]                  filtered current        (EXODUS Eq. 6)
    U[n] = z[n] + sum_k<n nu[n-1-k] s[k]           membrane potential      (EXODUS Eq. 7)
    s[n] = fire(U[n], theta)                       spike                   (EXODUS Eq. 8)

A `snnlearn.neurons.Neuron` remembers by a state of three numbers; here the whole past counts, weighed by the response
kernel eps and the refractory kernel nu. `SRM` goes where a Neuron goes, with the methods `Unrolled` and `AdjointSRM`;
`snnlearn.implicit` has the matrices behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.implicit import Running, toeplitz
from snnlearn.neurons import Fire, Neuron, Rest, State, Threshold, Trace, exp_decay
from snnlearn.resets import Constant, Update
from snnlearn.surrogate import Surrogate
from snnlearn.temporal.base import Reset, check_reset

# Kernels.


def _filtered(matrix: Tensor, x: Tensor) -> Tensor:
    """A filter's matrix (T, T) on x (T, B, *features)."""
    return torch.tensordot(matrix, x, dims=1)


def _powers(decay: Constant, T: int) -> Tensor:
    """decay**n for n in 0..T-1, in double precision."""
    _checks.whole("T, the number of steps,", T, least=1)
    _one("a decay", decay)
    return torch.as_tensor(decay, dtype=torch.float64) ** torch.arange(T, dtype=torch.float64)


def _one(name: str, value: Constant) -> None:
    if isinstance(value, Tensor) and value.dim() > 0:
        raise ValueError(
            f"a kernel serves the whole layer, so {name} in it is one number; got shape {tuple(value.shape)}; make a "
            "layer for each value, or use a Neuron, whose constants may be one for each neuron"
        )


def respond(U: Tensor, refractory: Tensor, z: Tensor, beta: Constant, theta: Constant) -> Tensor:
    """Eq. 7 in the form of a membrane update, with the refractory potential (nu * s)[n-1] in the place of the spike.

    What a rule does to the spike of a reset, to detach or to ignore it, it does then to the refractory potential.
    """
    return z + refractory


# The neuron.


@dataclass(frozen=True, eq=False, repr=False)
class SRM:
    """A spike-response model: the dynamics, and nothing else.

    Args:
        eps: response kernel, (K,): what a unit current leaves on the membrane 0, 1, ... steps after it.
        nu: refractory kernel, (K,): what a spike leaves on the membrane 1, 2, ... steps after it.
        theta: threshold, > 0, in units of the membrane.
        fire: `Threshold` or `Analog`.
        longest: steps of the longest sequence that the kernels are made for. A kernel is zero beyond its end, so one
            that was cut off would be wrong there without a word; the constructors below set this, None is no limit.

    Kernels are taken to the dtype and device of the current.

    Raises:
        TypeError, ValueError: a kernel is no finite floating-point tensor (K,), or theta not positive.
    """

    eps: Tensor
    nu: Tensor
    theta: Constant = 1.0
    fire: Fire = Threshold()
    longest: int | None = field(default=None, kw_only=True)

    alpha = 0.0  # no synaptic current beside z: the membrane is z and the refractory potential, and no more
    beta = 0.0
    reset = staticmethod(respond)

    def __post_init__(self) -> None:
        for name, kernel in (("eps", self.eps), ("nu", self.nu)):
            if not isinstance(kernel, Tensor) or not kernel.is_floating_point():
                kind = kernel.dtype if isinstance(kernel, Tensor) else type(kernel).__name__
                raise TypeError(f"the kernel {name} must be a floating-point tensor (K,), got {kind}")
            if kernel.dim() != 1 or len(kernel) == 0:
                raise ValueError(
                    f"the kernel {name} must have shape (K,), K >= 1, got {tuple(kernel.shape)}; one serves the layer"
                )
            if not _checks.holds(torch.isfinite(kernel)):
                raise ValueError(f"the kernel {name} holds NaN or infinity; look at the constants that it was made of")
        Neuron(theta=self.theta, fire=self.fire)  # which refuses what is no threshold or no fire
        if self.longest is not None:
            _checks.whole("longest, the steps that the kernels are made for,", self.longest, least=1)

    def __repr__(self) -> str:
        return f"SRM(eps=({len(self.eps)},), nu=({len(self.nu)},), theta={self.theta}, fire={self.fire})"

    @property
    def constants(self) -> tuple[Constant, ...]:
        """eps, nu and theta."""
        return self.eps, self.nu, self.theta

    @classmethod
    def lif(
        cls, beta: Constant, theta: Constant = 1.0, *, T: int, decayed: bool = False, fire: Fire = Threshold()
    ) -> SRM:
        """Leaky integrate-and-fire: eps[n] = beta**n, nu[n] = -theta * beta**n (EXODUS 3.3, whose alpha is this beta).

        Args:
            beta: decay of the membrane over a step, in [0, 1]; 1 for a neuron that does not leak.
            theta: threshold, in units of the membrane.
            T: steps of the longest sequence.
            decayed: nu[n] = -theta * beta**(n+1), the reset `subtract_decayed`. Found in the EXODUS authors' code, not
                in the paper.
            fire: `Threshold` or `Analog`.

        >>> SRM.lif(0.5, T=4).nu
        tensor([-1.0000, -0.5000, -0.2500, -0.1250], dtype=torch.float64)
        """
        Neuron(beta=beta, theta=theta)  # which refuses bad ones
        _one("theta", theta)
        eps = _powers(beta, T)
        return cls(eps, -theta * eps * (beta if decayed else 1), theta, fire, longest=T)

    @classmethod
    def double_exponential(
        cls,
        *,
        tau_mem: Constant = 20e-3,
        tau_syn: Constant = 5e-3,
        dt: float = 1e-3,
        T: int,
        theta: Constant = 1.0,
        fire: Fire = Threshold(),
    ) -> SRM:
        """A membrane behind a synapse: eps[n] = sum_k<=n beta**(n-k) alpha**k, nu[n] = -theta * beta**n.

        That is `cuba_lif` in kernels, (beta**(n+1) - alpha**(n+1)) / (beta - alpha), and (n+1) * beta**n where the two
        time constants are equal.

        Args:
            tau_mem: membrane time constant, seconds; decay beta = exp(-dt/tau_mem).
            tau_syn: synaptic time constant, seconds; decay alpha = exp(-dt/tau_syn).
            dt: time step, seconds.
            T: steps of the longest sequence.
            theta: threshold, in units of the membrane.
            fire: `Threshold` or `Analog`.
        """
        _one("theta", theta)
        membrane, synapse = _powers(exp_decay(tau_mem, dt), T), _powers(exp_decay(tau_syn, dt), T)
        return cls(toeplitz(membrane, T) @ synapse, -theta * membrane, theta, fire, longest=T)

    @classmethod
    def alpha_function(
        cls,
        *,
        tau: Constant = 10e-3,
        tau_ref: Constant = 10e-3,
        dt: float = 1e-3,
        T: int,
        theta: Constant = 1.0,
        fire: Fire = Threshold(),
    ) -> SRM:
        """A response that rises before it falls, t/tau * exp(1 - t/tau) at t = n*dt: 0 at first, 1 at t = tau.

        nu[n] = -theta * exp(-n*dt/tau_ref).

        Args:
            tau: time to the peak of the response, seconds.
            tau_ref: time constant of the refractory potential, seconds.
            dt: time step, seconds.
            T, theta, fire: as in `double_exponential`.
        """
        _one("theta", theta)
        fall, steps = _powers(exp_decay(tau, dt), T), torch.arange(T, dtype=torch.float64)
        eps = steps * dt / tau * torch.e * fall
        return cls(eps, -theta * _powers(exp_decay(tau_ref, dt), T), theta, fire, longest=T)

    def kernels(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """eps and nu, of the dtype and device of the current a."""
        eps, nu = (k.to(dtype=a.dtype, device=a.device) for k in (self.eps, self.nu))
        return eps, nu

    def fits(self, a: Tensor, lag: int = 1, state: State | None = None, sent: Sequence[Tensor] | None = None) -> None:
        """Refuse what a sequence of currents a (T, B, *features) cannot be run with.

        Raises:
            ValueError: a is longer than the kernels were made for, theta has other features than a, or the sequence
                does not begin at rest.
            TypeError: theta has another dtype than a.
        """
        if self.longest is not None and len(a) > self.longest:
            raise ValueError(
                f"the kernels are made for sequences of up to {self.longest} steps, got {len(a)}; make them with "
                f"T={len(a)}"
            )
        Neuron(theta=self.theta, fire=self.fire).fits(a[0])
        if sent is not None and len(sent) != lag:
            raise ValueError(f"sent must hold the last lag = {lag} spikes, got {len(sent)}")
        rested = state is None or isinstance(state, Rest)
        # A state of zeros is not enough: with eps[0] = 0 an input that has just arrived has left no mark on it yet.
        if not rested or (sent is not None and not all(_checks.holds(s == 0) for s in sent)):
            self.refuse_state()

    def refuse_state(self) -> NoReturn:
        """Say why an SRM cannot go on from a state."""
        raise ValueError(
            "an SRM starts from rest: going on would need the currents and spikes of its whole past, which a state "
            "does not hold; give the sequence in one piece, or use a Neuron such as cuba_lif()"
        )

    def start(self, a: Tensor) -> State:
        """The state at rest for currents like ``a`` (B, *features)."""
        return Rest(torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a))

    def step(self, state: State, a: Tensor, fire: Fire | None = None, reset: Update | None = None) -> State:
        """Refused: a single step does not know the past."""
        self.refuse_state()

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
        """All steps of a sequence from rest; arguments as in `Neuron.simulate`. The trace has z in the place of I."""
        self.fits(a, lag, state, sent)
        fire, reset = fire or self.fire, reset or self.reset
        eps, nu = self.kernels(a)
        z = _filtered(toeplitz(eps, len(a)), a)  # Eq. 6
        U = refractory = silence = torch.zeros_like(a[0])
        back, refract = Running(eps), Running(nu)
        filtered: list[Tensor] = []
        membranes: list[Tensor] = []
        spikes: list[Tensor] = []
        for n, z_n in enumerate(z.unbind(0)):
            if recurrent is not None:
                z_n = z_n + back.push(recurrent(spikes[n - lag] if n >= lag else silence))
            U = reset(U, refractory, z_n, self.beta, self.theta)  # Eq. 7
            filtered.append(z_n)
            membranes.append(U)
            spikes.append(fire(U, self.theta))  # Eq. 8
            refractory = refract.push(spikes[-1])  # (nu * s)[n], which acts at n + 1
        return Trace(torch.stack(filtered), torch.stack(membranes), torch.stack(spikes))


# The method.


def reverse(
    srm: SRM, f: Tensor, errors: tuple[Tensor | None, Tensor | None, Tensor | None], choice: Reset = Reset.KEPT
) -> Tensor:
    """dL/da (T, B, *features): forward substitution in Eq. 9, from the last step to the first, and Eq. 14.

        lam[n] = f[n] * (e[n] + sum_m>n nu[m-1-n] lam[m])     dL/dU
        d[n]   = sum_m>=n eps[m-n] lam[m]                     dL/da

    Time O(T^2). Memory O(T) for each neuron, and one matrix (T, T) of eps for the layer while this runs.

    Args:
        srm: whose kernels.
        f: slopes (T, B, *features).
        errors: dL/dz, dL/dU, dL/ds from outside, each like f or None.
        choice: DETACHED and IGNORED drop nu, which is SLAYER (EXODUS 3.4).
    """
    e_z, e_U, e_s = errors
    eps, nu = srm.kernels(f)
    later: list[Tensor] = []  # lam[T-1] ... lam[n+1]
    through_reset, nu_lam = Running(nu), torch.zeros_like(f[0])
    for n in reversed(range(len(f))):
        e = torch.zeros_like(f[n]) if e_s is None else e_s[n]
        lam = f[n] * (e + nu_lam)  # Eq. 9
        later.append(lam if e_U is None else lam + e_U[n])
        if choice is Reset.KEPT:
            nu_lam = through_reset.push(later[-1])  # sum_m>=n nu[m-n] lam[m], which acts at n - 1
    to_z = torch.stack(later[::-1])
    if e_z is not None:
        to_z = to_z + e_z
    return _filtered(toeplitz(eps, len(f)).T, to_z)  # Eqs. 10 and 14


class _RunSRM(torch.autograd.Function):
    """One node for a layer's whole sequence, which keeps the membrane.

    The constants are arguments of their own, because torch.func has to see every tensor.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a, eps, nu, theta, srm, surrogate, choice):
        return tuple(replace(srm, eps=eps, nu=nu, theta=theta).simulate(a))

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, eps, nu, theta, ctx.srm, ctx.surrogate, ctx.choice = inputs
        ctx.theta = None if isinstance(theta, Tensor) else theta
        ctx.save_for_backward(output[1], eps, nu, theta if ctx.theta is None else None)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, e_z, e_U, e_s):
        U, eps, nu, theta = ctx.saved_tensors
        srm = replace(ctx.srm, eps=eps, nu=nu, theta=ctx.theta if theta is None else theta)
        f = torch.ones_like(U) if srm.fire.analog else ctx.surrogate.slope(U - srm.theta)
        return reverse(srm, f, (e_z, e_U, e_s), ctx.choice), None, None, None, None, None, None


@dataclass(frozen=True)
class AdjointSRM:
    """EXODUS for any kernels, equal to `Unrolled` with the same reset and keeping no more than the membrane.

    Args:
        reset: KEPT is EXODUS (Eqs. 9 and 14). DETACHED and IGNORED, here the same, drop nu from the derivative: SLAYER.
    """

    reset: Reset = Reset.KEPT

    def __post_init__(self) -> None:
        check_reset(self.reset)

    def run(
        self,
        neuron: SRM,
        surrogate: Surrogate,
        a: Tensor,
        recurrent: Callable[[Tensor], Tensor] | None = None,
        lag: int = 1,
        state: State | None = None,
        sent: Sequence[Tensor] | None = None,
    ) -> Trace:
        """See `Backward.run`.

        Raises:
            TypeError: the neuron is no `SRM`.
            ValueError: the layer is recurrent, the kernels are learned, or the state is not at rest.
        """
        if not isinstance(neuron, SRM):
            raise TypeError(
                f"AdjointSRM works on the kernels of an SRM, got {type(neuron).__name__}; use Adjoint({self.reset}) "
                "for it, or write the neuron as an SRM"
            )
        if recurrent is not None:
            raise ValueError(
                "AdjointSRM is for layers without recurrence, as EXODUS is; use Unrolled, or a Neuron with Adjoint"
            )
        if any(isinstance(c, Tensor) and c.requires_grad for c in neuron.constants):
            raise ValueError("AdjointSRM has no gradient of kernels or threshold; use Unrolled to learn them")
        neuron.fits(a, lag, state, sent)
        return Trace(*_RunSRM.apply(a, *neuron.constants, neuron, surrogate, self.reset))
